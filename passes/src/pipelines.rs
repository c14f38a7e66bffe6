//! The order of passes, stage by stage, and the registry of all of them.

use crate::analyze::{FIX_SHAPES, INFER_TYPES};
use crate::legalize::LEGALIZE;
use crate::lower::{CUT_AT_QUANTIZERS, FOLD_BATCH_NORMS, LOWER_ORT, SNAP_BIASES, WIDEN_TO_DOUBLE};
use crate::pass::Pass;
use crate::quantize::{FLIP_GAMMAS, PLACE_QUANTIZERS, SET_STEPS};
use crate::train::{ATTACH_LOSS, ATTACH_OPTIMIZER, CHOOSE_PARAMETERS, DIFFERENTIATE, USE_BATCH_STATISTICS};

/// Every pass, in the order in which a run meets them.
pub static ALL: &[&Pass] = &[
    &FIX_SHAPES,
    &INFER_TYPES,
    &FLIP_GAMMAS,
    &PLACE_QUANTIZERS,
    &SET_STEPS,
    &CHOOSE_PARAMETERS,
    &USE_BATCH_STATISTICS,
    &ATTACH_LOSS,
    &DIFFERENTIATE,
    &ATTACH_OPTIMIZER,
    &LEGALIZE,
    &FOLD_BATCH_NORMS,
    &SNAP_BIASES,
    &CUT_AT_QUANTIZERS,
    &WIDEN_TO_DOUBLE,
    &LOWER_ORT,
];

/// The pass of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Pass> {
    ALL.iter().copied().find(|pass| pass.name == name)
}

/// What every model goes through first.
pub static SIMPLIFY: &[&Pass] = &[&INFER_TYPES];

/// What leaves no unused node behind.
pub static CLEAN: &[&Pass] = &[];

/// From the float network to one with fake quantizers, their steps still unset.
pub static QUANTIZE: &[&Pass] = &[&PLACE_QUANTIZERS];

/// From a quantized network of fixed shapes to a step graph.
pub static TRAIN: &[&Pass] = &[
    &CHOOSE_PARAMETERS,
    &USE_BATCH_STATISTICS,
    &ATTACH_LOSS,
    &DIFFERENTIATE,
    &ATTACH_OPTIMIZER,
    &LEGALIZE,
];

/// The same, with the statistics of BatchNormalization frozen.
pub static TRAIN_FROZEN: &[&Pass] = &[&CHOOSE_PARAMETERS, &ATTACH_LOSS, &DIFFERENTIATE, &ATTACH_OPTIMIZER, &LEGALIZE];

/// The quantized network in training, for the statistics of its batches.
pub static STATISTICS: &[&Pass] = &[&FIX_SHAPES, &INFER_TYPES, &USE_BATCH_STATISTICS, &LEGALIZE];

/// From the trained network to the fake-quantized one that the lowered file must equal.
pub static FINISH: &[&Pass] = &[&FOLD_BATCH_NORMS, &SNAP_BIASES, &INFER_TYPES];

/// The fake-quantized network in standard ops, computed in floats.
pub static SPELL: &[&Pass] = &[&LEGALIZE];

/// From there to ONNX Runtime's integers.
pub static LOWER: &[&Pass] = &[&LOWER_ORT];
