//! How a lowered file is written, and what follows from it for the levels of weights.

use super::{Fixed, input_quantizer};
use crate::ir::{DType, Graph, NodeId, Tensor};
use crate::ops::QuantRange;
use crate::target::{ActivationForm, BiasForm, BlockForm, Storage, Sums, Target};

/// How a lowered file is written; the passes of this stage take it from their context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Levels of activations.
    pub activations: ActivationForm,
    /// Levels of those with a sign that a product of two activations takes.
    pub operands: ActivationForm,
    /// Biases.
    pub biases: BiasForm,
    /// Levels of weights.
    pub storage: Storage,
    /// What the runtime adds products up in.
    pub sums: Sums,
    /// Weights in blocks beside activations in floats; `None` where the target has none.
    pub blocks: Option<BlockForm>,
}

impl Form {
    /// How files for `target` are written where nothing else is asked for.
    #[must_use]
    pub fn of(target: &Target) -> Form {
        Form {
            activations: target.activations,
            operands: target.operands,
            biases: target.biases,
            storage: Storage::default(),
            sums: Sums::default(),
            blocks: target.weight_only.map(|has| has.form),
        }
    }

    /// The same for a quantizer of this range that operand `operand` of a product of two activations takes.
    #[must_use]
    pub(super) fn of_operand(self, operand: usize, range: QuantRange) -> Form {
        // Without a sign a first operand is as every activation; a second one fits int8 if it has less than 8 bits.
        let apart = range.signed || operand == 1 && range.bits < 8;
        Form {
            activations: if apart { self.operands } else { self.activations },
            ..self
        }
    }

    /// The zero point of levels of this range.
    #[must_use]
    pub fn zero_point(self, range: QuantRange) -> i32 {
        match self.activations {
            ActivationForm::UnsignedBytes if range.signed => 128,
            _ => 0,
        }
    }

    /// The type of activations' levels.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self.activations {
            ActivationForm::UnsignedBytes => DType::U8,
            ActivationForm::SignedBytes => DType::I8,
        }
    }

    /// A level of an activation, zero point included, as it is stored.
    ///
    /// # Errors
    /// If it leaves the type.
    pub(super) fn byte(self, level: i32) -> Result<Tensor, String> {
        let stored = match self.activations {
            ActivationForm::UnsignedBytes => u8::try_from(level).ok().map(Tensor::scalar),
            ActivationForm::SignedBytes => i8::try_from(level).ok().map(Tensor::scalar),
        };
        stored.ok_or_else(|| format!("level {level} leaves {}", self.dtype()))
    }

    /// The largest level of an activation.
    pub(super) fn most(self) -> i32 {
        match self.activations {
            ActivationForm::UnsignedBytes => 255,
            ActivationForm::SignedBytes => 127,
        }
    }

    /// Is this range all that the type of activations' levels has?
    pub(super) fn is_full(self, least: i32, most: i32) -> bool {
        let all = match self.activations {
            ActivationForm::UnsignedBytes => (0, self.most()),
            ActivationForm::SignedBytes => (-128, self.most()),
        };
        (least, most) == all
    }

    /// Bits to the left that the levels of a weight are shifted to fill a byte. It costs nothing and makes the bias grid finer.
    /// `weight` is its fake quantizer. Where sums have 16 bits, less, so that 2·a·w stays within them for the largest levels a of the
    /// layers' inputs and w of the weight.
    #[must_use]
    pub fn shift(self, graph: &Graph, weight: &Fixed) -> u32 {
        let shift = 8 - weight.quantizer.range.bits;
        if self.sums == Sums::Wide {
            return shift;
        }
        let inputs = graph[weight.y]
            .uses()
            .iter()
            .filter_map(|used| self.largest_input(graph, used.node));
        let largest = inputs.max().unwrap_or(0);
        let fits = |shift: &u32| sums_fit(largest, weight.quantizer.range.q_n() << shift);
        (0..=shift).rev().find(fits).unwrap_or(0)
    }

    fn largest_input(self, graph: &Graph, layer: NodeId) -> Option<i32> {
        let range = input_quantizer(graph, layer)?.quantizer.range;
        Some(self.zero_point(range) + range.q_p())
    }
}

impl Default for Form {
    fn default() -> Form {
        Form::of(&crate::target::ORT)
    }
}

/// Do two products of levels as large as these stay within 16 bits?
#[must_use]
pub fn sums_fit(activation: i32, weight: i32) -> bool {
    2 * activation * weight <= i32::from(i16::MAX)
}

/// The most bits of a weight for which sums of 16 bits hold beside inputs of this range, with the levels as `form` has them.
#[must_use]
pub fn most_weight_bits(form: Form, input: QuantRange) -> u32 {
    let largest = form.zero_point(input) + input.q_p();
    let fits = |bits: &u32| {
        sums_fit(
            largest,
            QuantRange {
                bits: *bits,
                signed: true,
            }
            .q_n(),
        )
    };
    (2..=8).rev().find(fits).unwrap_or(2)
}
