//! Weights alone in integers, in blocks that share a step, beside activations in floats: which runtimes have it, with which bits and blocks.

use super::{Target, Version};

/// How a runtime takes weights in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockForm {
    /// `com.microsoft.MatMulNBits` in place of the product.
    MatMulNBits,
    /// `DequantizeLinear` of int4, with scales of blocks, before it (ONNX, operator set 21).
    Int4,
}

/// What a runtime has of it.
#[derive(Debug)]
pub struct WeightOnly {
    /// How it is written.
    pub form: BlockForm,
    /// The bits of a weight, those that they are stored in, and the oldest version that computes such a layer, where it is known.
    pub bits: &'static [(u32, u32, Option<Version>)],
    /// The elements that may share a step, ascending.
    pub blocks: &'static [usize],
    /// The block where none is asked for.
    pub block: usize,
    /// May the last block of a column be shorter than the others?
    pub tail: Tail,
    /// The operator set that the form needs.
    pub opset: i64,
}

/// The last block of a column whose extent is no multiple of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It is shorter.
    Short,
    /// There is none: such a layer stays in floats.
    Refused,
}

impl WeightOnly {
    /// The bits that a weight of `bits` is stored in; `None` where the runtime has no such weights.
    #[must_use]
    pub fn stored_bits(&self, bits: u32) -> Option<u32> {
        let found = self.bits.iter().find(|(of, ..)| *of == bits);
        found.map(|&(_, stored, _)| stored)
    }

    /// The oldest version that computes layers with weights of `bits`; `None` where it is not known.
    #[must_use]
    pub fn oldest(&self, bits: u32) -> Option<Version> {
        self.bits.iter().find(|(of, ..)| *of == bits)?.2
    }

    /// The oldest version that computes layers with weights stored in `bits`; `None` where it is not known.
    #[must_use]
    pub fn oldest_stored(&self, bits: u32) -> Option<Version> {
        let stored = self.bits.iter().filter(|(_, stored, _)| *stored == bits);
        stored.filter_map(|(.., version)| *version).min()
    }
}

impl Target {
    /// The bits that a weight of `bits` is stored in where weights alone are quantized; a byte where the target has nothing of the kind.
    #[must_use]
    pub fn stored_in_blocks(&self, bits: u32) -> u32 {
        self.weight_only.and_then(|has| has.stored_bits(bits)).unwrap_or(8)
    }
}

/// ONNX Runtime's `MatMulNBits`. Tried with the wheels from 1.16 on, at `accuracy_level` 1, which keeps activations in float32: 4 bits are computed
/// from 1.17 on, 8 from 1.23 (1.22 only with activations in int8), 2 from 1.24. Blocks of more than 256 give garbage up to 1.24 and are refused
/// later.
pub(super) static MATMUL_NBITS: WeightOnly = WeightOnly {
    form: BlockForm::MatMulNBits,
    bits: &[
        (2, 2, Some(Version(1, 24))),
        (3, 4, Some(Version(1, 17))),
        (4, 4, Some(Version(1, 17))),
        (8, 8, Some(Version(1, 23))),
    ],
    blocks: &[16, 32, 64, 128, 256],
    block: 32,
    tail: Tail::Short,
    opset: 13,
};

/// TensorRT's developer guide, "Quantization Schemes": int4 is for weights, with scales of blocks of 64 or 128 along one of the last two axes.
pub(super) static INT4_BLOCKS: WeightOnly = WeightOnly {
    form: BlockForm::Int4,
    bits: &[(2, 4, None), (3, 4, None), (4, 4, None)],
    blocks: &[64, 128],
    block: 64,
    tail: Tail::Refused,
    opset: 21,
};
