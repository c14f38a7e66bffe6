//! OpenVINO on the CPU. It takes what ONNX Runtime takes, but adds a shortcut at the end of the convolution before it, and drops a quantizer
//! that stands between the two. A product of two activations it computes in integers where zero points are 0 on both sides (a first operand with a
//! sign in int8, without one in uint8; the second in int8, so that without a sign it has at most 7 bits), else in floats. A convolution whose kernel is a point has its
//! strides moved up to the conversion of its levels, as a pooling, where all that takes them has the same strides; it then runs in floats.

use super::{ActivationForm, BiasForm, Placement, Requantizing, Results, Strides, Target};

/// The target.
pub static OPENVINO: Target = Target {
    name: "openvino",
    title: "OpenVINO",
    placements: &[Placement::Shortcut, Placement::Paper],
    requantizing: Requantizing::Never,
    results: Results::Any,
    strides: Strides::Move,
    activations: ActivationForm::UnsignedBytes,
    operands: ActivationForm::SignedBytes,
    biases: BiasForm::Int32,
    widest_unsigned: 8,
    widest_unsigned_second: 7,
    packed: &[],
    opsets: &[],
    weight_only: None,
};
