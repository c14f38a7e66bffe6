//! ONNX Runtime on the CPU. It fuses an op only between quantizers of uint8 that stand on all sides of it, and takes the bias in int32.

use super::{ActivationForm, BiasForm, Placement, Requantizing, Results, Storage, Strides, Target, Version};

/// The target.
pub static ORT: Target = Target {
    name: "ort",
    title: "ONNX Runtime",
    placements: &[Placement::EightBitAdds, Placement::Shared, Placement::Paper],
    requantizing: Requantizing::Chained,
    results: Results::OneQuantizer,
    strides: Strides::Stay,
    activations: ActivationForm::UnsignedBytes,
    operands: ActivationForm::UnsignedBytes,
    biases: BiasForm::Int32,
    widest_unsigned: 8,
    widest_unsigned_second: 8,
    packed: &[(Storage::Int4, Version(1, 23)), (Storage::Int2, Version(1, 24))],
    // ONNX Runtime's documentation, "ONNX Runtime compatibility", as far as its wheels have quantizers of the operator set too.
    opsets: &[
        (13, Version(1, 7)),
        (14, Version(1, 8)),
        (15, Version(1, 10)),
        (16, Version(1, 11)),
        (17, Version(1, 12)),
        (18, Version(1, 14)),
        (19, Version(1, 16)),
        (20, Version(1, 17)),
        (21, Version(1, 18)),
        (22, Version(1, 21)),
        (23, Version(1, 24)),
        (24, Version(1, 24)),
        (25, Version(1, 24)),
    ],
    weight_only: Some(&super::weight_only::MATMUL_NBITS),
};
