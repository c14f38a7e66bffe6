//! TensorRT, with strongly typed networks and explicit quantization (its developer guide, "Working with Quantized Types"). Levels are int8
//! with zero point 0, so unsigned ones have at most 7 bits; a Clip is in floats only and so stands before the quantizer; biases are float;
//! of an addition the shortcut alone is quantized, since the other branch is the layer that the addition is fused into.

use super::{ActivationForm, BiasForm, Placement, Requantizing, Results, Strides, Target};

/// The target.
pub static TENSORRT: Target = Target {
    name: "tensorrt",
    title: "TensorRT",
    placements: &[Placement::Shortcut, Placement::Paper],
    requantizing: Requantizing::Never,
    results: Results::Any,
    strides: Strides::Stay,
    activations: ActivationForm::SignedBytes,
    operands: ActivationForm::SignedBytes,
    biases: BiasForm::Float,
    widest_unsigned: 7,
    widest_unsigned_second: 7,
    packed: &[],
    opsets: &[],
    weight_only: Some(&super::weight_only::INT4_BLOCKS),
};
