//! The runtimes that a network may be quantized for, a file each: where quantizers stand for it and how the result is written.
//!
//! What runs fast differs by runtime, and where quantizers stand is fixed before training: a network that is trained with quantizers in other
//! places is another network. So a target is chosen first; `place-quantizers` and the lowering both follow its description.

mod openvino;
mod ort;
mod portable;
mod tensorrt;
mod weight_only;

pub use self::ort::ORT;
pub use openvino::OPENVINO;
pub use portable::PORTABLE;
pub use tensorrt::TENSORRT;
pub use weight_only::{BlockForm, Tail, WeightOnly};

/// What is known of one runtime.
#[derive(Debug)]
pub struct Target {
    /// As the command line has it.
    pub name: &'static str,
    /// As sentences have it.
    pub title: &'static str,
    /// Where quantizers may stand; the first is the default.
    pub placements: &'static [Placement],
    /// A value that several ops take at different bits.
    pub requantizing: Requantizing,
    /// What may take the result of a convolution that is computed in integers.
    pub results: Results,
    /// What becomes of the strides of a convolution whose kernel is a point.
    pub strides: Strides,
    /// How levels of activations are written.
    pub activations: ActivationForm,
    /// How those are written that a product of two activations takes, where they have a sign.
    pub operands: ActivationForm,
    /// How biases are written.
    pub biases: BiasForm,
    /// The most bits that a level without a sign may have; wider ones are trained with a sign.
    pub widest_unsigned: u32,
    /// The same of what a product of two activations takes second.
    pub widest_unsigned_second: u32,
    /// How else than in bytes weights may be stored, and the oldest version that loads such a file.
    pub packed: &'static [(Storage, Version)],
    /// Operator sets, ascending, and the oldest version that has each; empty where that is not known.
    pub opsets: &'static [(i64, Version)],
    /// Weights alone in integers, where it has that.
    pub weight_only: Option<&'static WeightOnly>,
}

/// Every target; the first is the default.
pub static TARGETS: &[&Target] = &[&ORT, &OPENVINO, &TENSORRT, &PORTABLE];

/// What additions, concats and average pools between quantized layers take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// 8 bits at the add; the conv after it requantizes to its own bits.
    #[default]
    EightBitAdds,
    /// The shortcut adds the very levels that the conv beside it takes.
    Shared,
    /// An add takes the layer before it in floats, and of a shortcut the levels that the layer beside it takes: runtimes that compute the
    /// addition at the end of that layer have no use for a quantizer between the two.
    Shortcut,
    /// As the paper: quantizers only at the inputs of weighted ops; adds and pools stay float.
    Paper,
}

/// What becomes of a value that several ops take at different bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requantizing {
    /// It is quantized to the most bits, and a user of fewer takes a second quantizer behind the first.
    Chained,
    /// All take one quantizer, of the most bits that a layer asks for.
    Never,
}

/// What may take the result of a convolution that a runtime computes in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// One quantizer alone.
    OneQuantizer,
    /// Anything.
    Any,
}

/// What a runtime does with the strides of a convolution whose kernel is a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strides {
    /// They stay.
    Stay,
    /// They move before the dequantization of its input, where all that takes it has the same; then the convolution has no levels to take.
    Move,
}

/// How an activation's levels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationForm {
    /// `QuantizeLinear(uint8) → Clip(uint8)`, zero point 0 without and 128 with a sign.
    UnsignedBytes,
    /// `Clip(float) → QuantizeLinear(int8)`, zero point 0.
    SignedBytes,
}

/// How a bias is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// Integers on the grid s_x·s_w of the accumulator.
    Int32,
    /// As it is.
    Float,
}

/// The fewest bits that a weight is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Storage {
    /// 2, as int2.
    Int2,
    /// 4, as int4.
    Int4,
    /// A byte.
    #[default]
    Int8,
}

impl Storage {
    /// The bits that one level of a weight of `bits` is stored in.
    #[must_use]
    pub fn stored_bits(self, bits: u32) -> u32 {
        match (self, bits) {
            (Storage::Int2, ..=2) => 2,
            (Storage::Int2 | Storage::Int4, ..=4) => 4,
            _ => 8,
        }
    }

    /// The operator set that has it: Cast takes int4 from 21 on and int2 from 25 on.
    #[must_use]
    pub fn opset(self) -> i64 {
        match self {
            Storage::Int2 => 25,
            Storage::Int4 => 21,
            Storage::Int8 => 13,
        }
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Storage::Int2 => "int2",
            Storage::Int4 => "int4",
            Storage::Int8 => "int8",
        })
    }
}

/// What a runtime adds up products of levels in, two at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sums {
    /// 32 bits.
    #[default]
    Wide,
    /// 16 bits, saturated, as x86 processors without VNNI do.
    SixteenBit,
}

/// A runtime's version: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[major, minor] | &[major, minor, _]) => Ok(Version(major, minor)),
            _ => Err(format!("\"{text}\" is no version: write it like 1.23")),
        }
    }
}

impl Target {
    /// The oldest version that loads a file of this operator set with weights stored so; `None` where that is not known.
    #[must_use]
    pub fn oldest(&self, opset: i64, storage: Storage) -> Option<Version> {
        let by_opset = self
            .opsets
            .iter()
            .find(|(has, _)| *has >= opset)
            .map(|(_, version)| *version)?;
        let by_storage = self
            .packed
            .iter()
            .find(|(has, _)| *has == storage)
            .map(|(_, version)| *version);
        Some(by_storage.map_or(by_opset, |version| version.max(by_opset)))
    }
}
