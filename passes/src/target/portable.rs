//! Any runtime that knows operator set 13: `QuantizeLinear` and `DequantizeLinear` of int8 with zero point 0, floats otherwise.

use super::{ActivationForm, BiasForm, Placement, Requantizing, Results, Strides, Target};

/// The target.
pub static PORTABLE: Target = Target {
    name: "portable",
    title: "any runtime with operator set 13",
    placements: &[
        Placement::EightBitAdds,
        Placement::Shared,
        Placement::Shortcut,
        Placement::Paper,
    ],
    requantizing: Requantizing::Chained,
    results: Results::Any,
    strides: Strides::Stay,
    activations: ActivationForm::SignedBytes,
    operands: ActivationForm::SignedBytes,
    biases: BiasForm::Float,
    widest_unsigned: 7,
    widest_unsigned_second: 7,
    packed: &[],
    opsets: &[],
    weight_only: None,
};
