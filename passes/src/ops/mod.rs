//! The op table: every fact about one op, in one entry.
//!
//! An entry says how the op types its results ([`InferRule`]), how gradients flow back through it ([`Gradient`]), what quantization makes
//! of it ([`Quant`]), how it is spelled in newer operator sets, and on which sample cases its gradient is checked. An op without an entry
//! keeps its declared types, stops gradients and stays float. To add an op: one entry in the file of its family, listed in that file's
//! `ENTRIES`.

pub mod build;
mod gradient;
mod infer;
pub mod sample;
pub mod window;

mod activation;
mod along;
mod arithmetic;
mod blocks;
mod compare;
mod constant;
mod conv;
mod conv_transpose;
mod dims;
mod einsum;
mod functions;
mod gather;
mod indexing;
mod integer;
mod join;
mod matmul;
pub(crate) mod normalize;
mod norms;
mod pad;
pub(crate) mod picks;
mod pointwise;
mod pool;
mod quantizer;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod shape;
mod vision;

use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) use activation::clip_bounds;
pub use constant::constant_value;
pub use dims::{product, quotient};
pub use gradient::{GradCx, Gradient, GradientRule};
pub use infer::{InferCx, InferRule, ShapeRule, broadcast, normalize_axes, normalize_axis};
pub use quantizer::{QuantRange, Quantizer};

use crate::ir::{LSQC_DOMAIN, Node, Op};
use sample::Sample;

/// What quantization makes of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// A matrix multiply: operand 0 is the activation, operand `weight` the weight if it is constant, operand `bias` the bias.
    Weighted {
        /// Operand of the weight.
        weight: usize,
        /// Operand of the bias.
        bias: Option<usize>,
    },
    /// Computed on quantized inputs into a quantized result of its own step (average pools).
    Inputs,
    /// Moves values and computes none: levels pass through unchanged (reshapes, MaxPool).
    Transparent,
    /// Joins several quantized inputs (Add, Concat).
    Joins,
    /// Absorbed by the integer range of the quantizer after it (Relu, Clip).
    Clamp,
    /// Stays in floats.
    Float,
}

/// One entry of the table.
#[derive(Clone, Copy)]
pub struct OpEntry {
    /// The op's domain.
    pub domain: &'static str,
    /// The op's name.
    pub name: &'static str,
    /// Types of the results.
    pub infer: InferRule,
    /// Dimensions that the results hold as numbers, for shape arithmetic.
    pub shape_value: Option<ShapeRule>,
    /// How gradients flow back.
    pub gradient: Gradient,
    /// What quantization makes of it.
    pub quant: Quant,
    /// Cases on which the gradient is checked, and the op run on every engine.
    pub samples: fn() -> Vec<Sample>,
}

impl OpEntry {
    /// An entry of the default domain that types its results by `infer`, stops gradients with the reason `why`, and stays float.
    #[must_use]
    pub const fn new(name: &'static str, infer: InferRule, why: &'static str) -> OpEntry {
        OpEntry {
            domain: "",
            name,
            infer,
            shape_value: None,
            gradient: Gradient::Unsupported(why),
            quant: Quant::Float,
            samples: Vec::new,
        }
    }

    /// The same, in lsqc's own domain.
    #[must_use]
    pub const fn lsqc(self) -> OpEntry {
        OpEntry {
            domain: LSQC_DOMAIN,
            ..self
        }
    }

    /// The same with a gradient rule and the sample cases that check it.
    #[must_use]
    pub const fn gradient(self, rule: GradientRule, samples: fn() -> Vec<Sample>) -> OpEntry {
        OpEntry {
            gradient: Gradient::Rule(rule),
            samples,
            ..self
        }
    }

    /// The same with a gradient that is zero almost everywhere, or has no meaning because the op computes no floats from floats.
    #[must_use]
    pub const fn zero_gradient(self) -> OpEntry {
        OpEntry {
            gradient: Gradient::Zero,
            ..self
        }
    }

    /// The same with a quantization trait.
    #[must_use]
    pub const fn quant(self, quant: Quant) -> OpEntry {
        OpEntry { quant, ..self }
    }

    /// The same with a rule for shape arithmetic.
    #[must_use]
    pub const fn shape_value(self, rule: ShapeRule) -> OpEntry {
        OpEntry {
            shape_value: Some(rule),
            ..self
        }
    }
}

/// Every entry, in the order of the families.
pub fn entries() -> impl Iterator<Item = &'static OpEntry> {
    [
        conv::ENTRIES,
        conv_transpose::ENTRIES,
        matmul::ENTRIES,
        einsum::ENTRIES,
        activation::ENTRIES,
        pointwise::ENTRIES,
        functions::ENTRIES,
        arithmetic::ENTRIES,
        normalize::ENTRIES,
        norms::ENTRIES,
        pool::ENTRIES,
        reduce::ENTRIES,
        shape::ENTRIES,
        constant::ENTRIES,
        indexing::ENTRIES,
        pad::ENTRIES,
        gather::ENTRIES,
        resize::ENTRIES,
        blocks::ENTRIES,
        join::ENTRIES,
        compare::ENTRIES,
        random::ENTRIES,
        recurrent::ENTRIES,
        vision::ENTRIES,
        integer::ENTRIES,
        quantizer::ENTRIES,
    ]
    .into_iter()
    .flatten()
}

/// The entry of an op, if the table has one.
#[must_use]
pub fn lookup(op: &Op) -> Option<&'static OpEntry> {
    type Table = HashMap<(&'static str, &'static str), &'static OpEntry>;
    static TABLE: LazyLock<Table> = LazyLock::new(|| entries().map(|entry| ((entry.domain, entry.name), entry)).collect());
    let domain = if op.in_default_domain() { "" } else { &op.domain };
    TABLE.get(&(domain, op.name.as_ref())).copied()
}

/// What quantization makes of a node.
#[must_use]
pub fn quant(node: &Node) -> Quant {
    lookup(&node.op).map_or(Quant::Float, |entry| entry.quant)
}

/// Is the node a matrix multiply, quantized or not?
#[must_use]
pub fn is_weighted(node: &Node) -> bool {
    matches!(quant(node), Quant::Weighted { .. })
}
