//! Which passes there are, and which run one after another. To add a pass: list it in [`ALL`], and in the pipelines that need it.

use crate::analyze::{FIX_SHAPES, INFER_TYPES};
use crate::legalize::LEGALIZE;
use crate::lower::{
    BAKE_WEIGHTS, CUT_AT_QUANTIZERS, FOLD_BATCH_NORMS, LOWER_BLOCKS, LOWER_QDQ, RAISE_STEPS, RESTORE_HALVES, SEPARATE_WEIGHTS,
    SNAP_BIASES, UNPACK_BLOCKS, UNPACK_WEIGHTS, WIDEN_TO_DOUBLE,
};
use crate::pass::Pass;
use crate::quantize::{FLIP_GAMMAS, PLACE_QUANTIZERS, SET_STEPS};
use crate::simplify::{
    EXPAND_FUSED, FOLD_CONSTANTS, FOLD_SHAPES, FREE_BATCH, FREEZE_DEFAULTS, INLINE_BRANCHES, INLINE_FUNCTIONS, LIFT_CONSTANTS,
    NAME_POOLS, REMOVE_DEAD, REMOVE_IDENTITIES, UPGRADE_OPSET, WIDEN_HALVES,
};
use crate::train::{ATTACH_LOSS, ATTACH_OPTIMIZER, CHOOSE_PARAMETERS, DIFFERENTIATE, FREEZE_OSCILLATING, USE_BATCH_STATISTICS};

/// Every pass, in the order in which a run meets them.
pub static ALL: &[&Pass] = &[
    &FREEZE_DEFAULTS,
    &INLINE_FUNCTIONS,
    &WIDEN_HALVES,
    &LIFT_CONSTANTS,
    &UPGRADE_OPSET,
    &EXPAND_FUSED,
    &FOLD_SHAPES,
    &FOLD_CONSTANTS,
    &INLINE_BRANCHES,
    &REMOVE_IDENTITIES,
    &NAME_POOLS,
    &REMOVE_DEAD,
    &INFER_TYPES,
    &FREE_BATCH,
    &FLIP_GAMMAS,
    &PLACE_QUANTIZERS,
    &SET_STEPS,
    &FIX_SHAPES,
    &CHOOSE_PARAMETERS,
    &USE_BATCH_STATISTICS,
    &ATTACH_LOSS,
    &DIFFERENTIATE,
    &ATTACH_OPTIMIZER,
    &FREEZE_OSCILLATING,
    &LEGALIZE,
    &FOLD_BATCH_NORMS,
    &RAISE_STEPS,
    &SNAP_BIASES,
    &BAKE_WEIGHTS,
    &LOWER_BLOCKS,
    &LOWER_QDQ,
    &RESTORE_HALVES,
    &UNPACK_BLOCKS,
    &UNPACK_WEIGHTS,
    &SEPARATE_WEIGHTS,
    &CUT_AT_QUANTIZERS,
    &WIDEN_TO_DOUBLE,
];

/// The pass of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Pass> {
    ALL.iter().copied().find(|pass| pass.name == name)
}

/// Lets a network in half precision be one in single precision. Types are inferred before, because ops that are not known keep what they have:
/// of one operator set, and functions are spelled, because their bodies have none.
pub static WIDEN: &[&Pass] = &[
    &FREEZE_DEFAULTS,
    &INLINE_FUNCTIONS,
    &LIFT_CONSTANTS,
    &UPGRADE_OPSET,
    &INFER_TYPES,
    &WIDEN_HALVES,
];

/// Brings a float network into plain form. Dimensions are folded before constants, so that the evaluator sees fewer nodes, and again after
/// them, because constants make more dimensions known.
pub static SIMPLIFY: &[&Pass] = &[
    &FREEZE_DEFAULTS,
    &INLINE_FUNCTIONS,
    &LIFT_CONSTANTS,
    &UPGRADE_OPSET,
    &EXPAND_FUSED,
    &FOLD_SHAPES,
    &FOLD_CONSTANTS,
    &INLINE_BRANCHES,
    &FOLD_SHAPES,
    &REMOVE_IDENTITIES,
    &NAME_POOLS,
    &REMOVE_DEAD,
    &INFER_TYPES,
];

/// Opens the batch of a network in plain form whose batch is fixed.
pub static FREE: &[&Pass] = &[&FREE_BATCH, &FOLD_SHAPES, &FOLD_CONSTANTS, &REMOVE_DEAD, &INFER_TYPES];

/// Fixes every shape by those of the inputs.
pub static FIX: &[&Pass] = &[
    &FIX_SHAPES,
    &INFER_TYPES,
    &FOLD_SHAPES,
    &FOLD_CONSTANTS,
    &REMOVE_DEAD,
    &INFER_TYPES,
];

/// From the float network to one with fake quantizers, their steps still unset.
pub static QUANTIZE: &[&Pass] = &[&PLACE_QUANTIZERS];

/// From a quantized network of fixed shapes to a step graph.
pub static TRAIN: &[&Pass] = &[
    &CHOOSE_PARAMETERS,
    &USE_BATCH_STATISTICS,
    &ATTACH_LOSS,
    &DIFFERENTIATE,
    &ATTACH_OPTIMIZER,
    &FREEZE_OSCILLATING,
    &LEGALIZE,
];

/// The same, with the statistics of BatchNormalization frozen.
pub static TRAIN_FROZEN: &[&Pass] = &[
    &CHOOSE_PARAMETERS,
    &ATTACH_LOSS,
    &DIFFERENTIATE,
    &ATTACH_OPTIMIZER,
    &FREEZE_OSCILLATING,
    &LEGALIZE,
];

/// From a quantized network of fixed shapes to its loss and the gradients, for those who ask what they reach.
pub static GRADIENTS: &[&Pass] = &[&CHOOSE_PARAMETERS, &ATTACH_LOSS, &DIFFERENTIATE];

/// What leaves no unused node behind.
pub static CLEAN: &[&Pass] = &[&REMOVE_DEAD];

/// The quantized network of fixed shapes in training, for the statistics of its batches.
pub static STATISTICS: &[&Pass] = &[&USE_BATCH_STATISTICS, &LEGALIZE];

/// From the trained network to the fake-quantized one that the lowered file must equal.
pub static FINISH: &[&Pass] = &[&FOLD_BATCH_NORMS, &RAISE_STEPS, &SNAP_BIASES, &REMOVE_DEAD, &INFER_TYPES];

/// The fake-quantized network in standard ops, computed in floats.
pub static SPELL: &[&Pass] = &[&BAKE_WEIGHTS, &LEGALIZE, &REMOVE_DEAD];

/// From the fake-quantized network to integers, as `lower::Form` says.
pub static LOWER: &[&Pass] = &[&LOWER_BLOCKS, &LOWER_QDQ, &REMOVE_DEAD];

/// The lowest IR version that ONNX allows with this version of the default operator set (its `docs/Versioning.md`); `None` for versions
/// that lsqc does not know.
#[must_use]
pub fn lowest_ir_version(opset: i64) -> Option<i64> {
    Some(match opset {
        13 | 14 => 7,
        15..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        24 => 12,
        25 => 13,
        _ => return None,
    })
}
