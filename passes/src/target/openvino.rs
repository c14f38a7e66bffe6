//! OpenVINO on the CPU. It takes what ONNX Runtime takes, but adds a shortcut at the end of the convolution before it, and drops a quantizer
//! that stands between the two.

use super::{ActivationForm, BiasForm, Placement, Requantizing, Results, Target};

/// The target.
pub static OPENVINO: Target = Target {
    name: "openvino",
    title: "OpenVINO",
    placements: &[Placement::Shortcut, Placement::Paper],
    requantizing: Requantizing::Never,
    results: Results::Any,
    activations: ActivationForm::UnsignedBytes,
    biases: BiasForm::Int32,
    widest_unsigned: 8,
    packed: &[],
    opsets: &[],
    weight_only: None,
};
