//! Which rules hold for which target.

use super::Rule;
use super::biases::{BIAS_FLOAT, BIAS_GRID, BIAS_INT32, MATMUL_BIAS};
use super::file::{INTEGER_OPS, IR_VERSION, OPSET_13, OPSET_FORMS, OWN_OPS, QUANTIZED, RUNTIME, STANDARD_OPS};
use super::fusion::{CLAMP_BEFORE, ONE_QUANTIZER, REPEAT_BEHIND_MOVES, SECOND_CLIP, ZERO_POINT_WRITTEN};
use super::levels::{ACTIVATION_UINT8, INT8_LEVELS, INTEGER_CLIP, NARROW_TYPES, SIGNED_TYPES};
use super::quantizers::{ACTIVATION_PER_TENSOR, AXIS, NOTHING_BETWEEN, PAIR, SCALE, ZERO_POINT};
use super::structure::{ADD_SIDES, BOTH_SIDES, SHORTCUT_ADD};
use super::weights::{GATHER_LEVELS, INT4_WEIGHTS, PACKED_CAST, PACKED_CONV, WEIGHT_AND_INPUT, WEIGHT_AXIS};
use crate::target::{OPENVINO, ORT, PORTABLE, TENSORRT, Target};

/// The rules of a target, in the order in which they look; none for a target that is not listed here.
#[must_use]
pub fn rules_of(target: &Target) -> &'static [&'static Rule] {
    let of = RULES.iter().find(|(of, _)| of.name == target.name);
    of.map_or(&[], |(_, rules)| rules)
}

static RULES: &[(&Target, &[&Rule])] = &[
    (
        &ORT,
        &[
            &QUANTIZED,
            &OWN_OPS,
            &IR_VERSION,
            &OPSET_FORMS,
            &RUNTIME,
            &SCALE,
            &PAIR,
            &AXIS,
            &ACTIVATION_UINT8,
            &ACTIVATION_PER_TENSOR,
            &INTEGER_CLIP,
            &ZERO_POINT_WRITTEN,
            &CLAMP_BEFORE,
            &ONE_QUANTIZER,
            &SECOND_CLIP,
            &REPEAT_BEHIND_MOVES,
            &WEIGHT_AXIS,
            &PACKED_CAST,
            &BIAS_INT32,
            &BIAS_GRID,
            &MATMUL_BIAS,
            &ADD_SIDES,
            &GATHER_LEVELS,
        ],
    ),
    (
        &OPENVINO,
        &[
            &QUANTIZED,
            &OWN_OPS,
            &IR_VERSION,
            &OPSET_FORMS,
            &SCALE,
            &PAIR,
            &AXIS,
            &NARROW_TYPES,
            &WEIGHT_AXIS,
            &PACKED_CONV,
            &SHORTCUT_ADD,
        ],
    ),
    (
        &TENSORRT,
        &[
            &QUANTIZED,
            &OWN_OPS,
            &IR_VERSION,
            &OPSET_FORMS,
            &INTEGER_OPS,
            &SCALE,
            &PAIR,
            &AXIS,
            &SIGNED_TYPES,
            &ZERO_POINT,
            &ACTIVATION_PER_TENSOR,
            &NOTHING_BETWEEN,
            &WEIGHT_AXIS,
            &WEIGHT_AND_INPUT,
            &INT4_WEIGHTS,
            &BIAS_FLOAT,
            &SHORTCUT_ADD,
            &BOTH_SIDES,
        ],
    ),
    (
        &PORTABLE,
        &[
            &QUANTIZED,
            &OWN_OPS,
            &IR_VERSION,
            &OPSET_13,
            &OPSET_FORMS,
            &STANDARD_OPS,
            &INTEGER_OPS,
            &SCALE,
            &PAIR,
            &AXIS,
            &INT8_LEVELS,
            &ZERO_POINT,
            &BIAS_FLOAT,
        ],
    ),
];
