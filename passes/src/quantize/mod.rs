//! Quantizers: where they stand, how many bits they have, how their steps start.

mod fit;
mod flip_gammas;
mod name_others;
mod place_quantizers;
mod products;
mod results;
mod set_steps;
pub mod step_size;
mod weight_only;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ops::QuantRange;
use crate::target::{Placement, Requantizing, Results};

pub use fit::fits;
pub use flip_gammas::FLIP_GAMMAS;
pub use place_quantizers::PLACE_QUANTIZERS;
pub use set_steps::SET_STEPS;
pub use weight_only::{BlockLayer, Blocked, WeightOnlyPlan, WeightRule, WeightRules, blocked, chosen};

/// Bits of a layer's weight and of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Of the weight, 2 to 8.
    pub weight: u32,
    /// Of the input activation, 2 to 8.
    pub activation: u32,
    /// Has the input levels below 0? `None`: as the graph and the data say.
    pub sign: Option<Sign>,
}

/// How many steps a weight has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Granularity {
    /// One.
    #[default]
    PerTensor,
    /// One for each output channel.
    PerChannel,
}

/// What the user asks for one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRule {
    /// Quantize it to these bits.
    Quantize(Bits),
    /// Leave it in floats.
    Float,
}

/// Bits of the first and the last weighted layers, and of what adds and average pools take (arXiv 1902.08153, section 2.3).
pub const EDGE_BITS: u32 = 8;

/// What `place-quantizers` is asked for.
#[derive(Clone)]
pub struct QuantizePlan {
    /// Bits of every layer that nothing else is said about.
    pub bits: Bits,
    /// Where quantizers stand at joins.
    pub placement: Placement,
    /// A value that several ops take at different bits.
    pub requantizing: Requantizing,
    /// What may take the result of a convolution: with [`Results::OneQuantizer`] one is placed behind those whose result goes elsewhere.
    pub results: Results,
    /// How many steps a weight has.
    pub granularity: Granularity,
    /// The most bits of a weight beside an input of a range, where the runtime has a limit. Its sign is not known yet: both are asked.
    pub most_weight_bits: Option<WeightLimit>,
    /// What the user says of a layer, by its name.
    pub rule: LayerRules,
    /// Weights alone are quantized, in blocks; nothing else of the plan is looked at then.
    pub weight_only: Option<WeightOnlyPlan>,
}

/// The most bits that a weight may have beside an input of this range.
pub type WeightLimit = Arc<dyn Fn(QuantRange) -> u32>;

/// What the user says of a layer of this name; `None`: nothing.
pub type LayerRules = Arc<dyn Fn(&str) -> Option<LayerRule>>;

impl Default for QuantizePlan {
    fn default() -> QuantizePlan {
        QuantizePlan {
            bits: Bits {
                weight: EDGE_BITS,
                activation: EDGE_BITS,
                sign: None,
            },
            placement: Placement::default(),
            requantizing: Requantizing::Chained,
            results: Results::OneQuantizer,
            granularity: Granularity::default(),
            most_weight_bits: None,
            rule: Arc::new(|_| None),
            weight_only: None,
        }
    }
}

/// One quantized layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The node, as messages call it.
    pub name: String,
    /// Its op.
    pub op: String,
    /// Its bits.
    pub bits: Bits,
    /// Is there a path from an input on which it is the first weighted layer?
    pub first: bool,
    /// Is there a path to an output on which it is the last?
    pub last: bool,
    /// The quantized weight.
    pub weight: String,
    /// The quantized input.
    pub input: String,
}

/// One quantized product of two activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The node, as messages call it.
    pub name: String,
    /// Its op.
    pub op: String,
    /// Bits of both operands.
    pub bits: u32,
    /// The quantized operands.
    pub inputs: [String; 2],
}

/// One activation quantizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The quantized value; its step is `<value>/step`.
    pub value: String,
    /// The float value whose distribution it quantizes, as the unquantized graph names it.
    pub source: String,
    /// Bits.
    pub bits: u32,
    /// Does the graph prove the source at least 0?
    pub non_negative: bool,
    /// The sign that the user asks for.
    pub asked: Option<Sign>,
    /// The site whose step this one shares, if it has none of its own.
    pub shares: Option<String>,
}

/// Where `place-quantizers` put quantizers; it leaves this in its context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    /// The quantized layers, in graph order.
    pub layers: Vec<Layer>,
    /// The quantized products of two activations, in graph order.
    pub products: Vec<Product>,
    /// The activation quantizers, in graph order.
    pub activations: Vec<Site>,
    /// The layers whose weights alone are quantized, in graph order; then there is nothing else.
    pub blocks: Vec<BlockLayer>,
}

impl Sites {
    /// Each quantized layer's name, quantized weight and bits of it.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &str, u32)> {
        let layers = self.layers.iter();
        let layers = layers.map(|layer| (layer.name.as_str(), layer.weight.as_str(), layer.bits.weight));
        let blocks = self.blocks.iter();
        layers.chain(blocks.map(|layer| (layer.name.as_str(), layer.weight.as_str(), layer.bits)))
    }
}

/// Quantized values that no gradient reaches: their steps start where the error is least, because they stay there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untrained(pub BTreeSet<String>);

/// A step and a sign for each activation quantizer, by the name of the quantized value; `set-steps` takes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActivationSteps(pub BTreeMap<String, (f32, Sign)>);

/// Does a quantizer have levels below 0?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// −Q_N = −2^(b−1).
    Signed,
    /// −Q_N = 0.
    Unsigned,
}

/// The most bits for which the paper's start is a good one. 2·mean|v|/√Q_P makes the range 2·mean|v|·√Q_P, which grows with the levels while
/// the values do not: at 8 bits it is 16 times what normal values fill, and a short training does not find back.
pub const PAPER_BITS: u32 = 4;

/// How a step starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StepInit {
    /// As the paper up to [`PAPER_BITS`], of the least error above.
    #[default]
    ByBits,
    /// 2·mean|v|/√Q_P, as the paper.
    Lsq,
    /// The step of the least mean squared error.
    MinMse,
}
