//! Which passes there are, and which run one after another. To add a pass: list it in [`ALL`], and in the pipelines that need it.

use crate::analyze::INFER_TYPES;
use crate::pass::Pass;
use crate::simplify::{
    FOLD_CONSTANTS, FOLD_SHAPES, FREEZE_DEFAULTS, LIFT_CONSTANTS, REMOVE_DEAD, REMOVE_IDENTITIES, UPGRADE_OPSET,
};

/// Every pass, for `lsqc opt`.
pub static ALL: &[&Pass] = &[
    &FREEZE_DEFAULTS,
    &LIFT_CONSTANTS,
    &UPGRADE_OPSET,
    &FOLD_SHAPES,
    &FOLD_CONSTANTS,
    &REMOVE_IDENTITIES,
    &REMOVE_DEAD,
    &INFER_TYPES,
];

/// Brings a float network into plain form. Dimensions are folded before constants, so that the evaluator sees fewer nodes, and again after
/// them, because constants make more dimensions known.
pub static SIMPLIFY: &[&Pass] = &[
    &FREEZE_DEFAULTS,
    &LIFT_CONSTANTS,
    &UPGRADE_OPSET,
    &FOLD_SHAPES,
    &FOLD_CONSTANTS,
    &FOLD_SHAPES,
    &REMOVE_IDENTITIES,
    &REMOVE_DEAD,
    &INFER_TYPES,
];

/// The pass of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Pass> {
    ALL.iter().copied().find(|pass| pass.name == name)
}
