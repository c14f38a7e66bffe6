//! The ops of lsqc's own domain that have a kernel: operands, the shapes of results, and how a node's attributes become a kernel.

use super::batch_norm::{Backward, BatchNorm, Channels, Forward};
use super::{ConvWeight, FakeQuantize, Parallel};

/// An op that engines can take from here.
pub(in crate::engine) struct NativeOp {
    /// Its name, in the domain `lsqc`.
    pub(in crate::engine) name: &'static str,
    /// How many operands it has; all are float32.
    pub(in crate::engine) operands: usize,
    /// The shape of each result; all are float32.
    pub(in crate::engine) results: &'static [ShapeOf],
    /// Makes the kernel of a node.
    pub(in crate::engine) kernel: fn(&dyn Attributes) -> Made,
}

/// A kernel, or what is wrong with the node.
pub(in crate::engine) type Made = Result<Box<dyn Kernel>, String>;

/// Where a result has its shape from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum ShapeOf {
    /// This operand.
    Operand(usize),
    /// The attribute of this name.
    Attribute(&'static str),
}

/// A node's attributes, as an engine holds them.
pub(in crate::engine) trait Attributes {
    /// An integer.
    fn int(&self, name: &str) -> Option<i64>;
    /// A float.
    fn float(&self, name: &str) -> Option<f32>;
    /// Integers.
    fn ints(&self, name: &str) -> Option<Vec<i64>>;
}

/// An operand.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Operand<'a> {
    /// Its shape.
    pub(in crate::engine) shape: &'a [usize],
    /// Its values, row-major.
    pub(in crate::engine) values: &'a [f32],
}

/// What computes a node.
pub(in crate::engine) trait Kernel: Send + Sync {
    /// Fills the results, which have the shapes that the table says.
    ///
    /// # Errors
    /// If operands are missing or do not fit each other.
    fn run(&self, parallel: &dyn Parallel, operands: &[Operand<'_>], results: &mut [&mut [f32]]) -> Result<(), String>;
}

/// All of them.
pub(in crate::engine) static NATIVE: [NativeOp; 5] = [
    NativeOp {
        name: "FakeQuantize",
        operands: 2,
        results: &[ShapeOf::Operand(0)],
        kernel: |of| Ok(Box::new(Quantize(Quantizer::of(of)?))),
    },
    NativeOp {
        name: "FakeQuantizeGrad",
        operands: 3,
        results: &[ShapeOf::Operand(0), ShapeOf::Operand(1)],
        kernel: |of| Ok(Box::new(QuantizeGrad(Quantizer::of(of)?))),
    },
    NativeOp {
        name: "BatchNormalizationTrain",
        operands: 3,
        results: &[ShapeOf::Operand(0), ShapeOf::Operand(1), ShapeOf::Operand(1)],
        kernel: |of| Ok(Box::new(Normalize(batch_norm(of)))),
    },
    NativeOp {
        name: "BatchNormalizationGrad",
        operands: 5,
        results: &[ShapeOf::Operand(1), ShapeOf::Operand(2), ShapeOf::Operand(2)],
        kernel: |of| Ok(Box::new(NormalizeGrad(batch_norm(of)))),
    },
    NativeOp {
        name: "ConvGradWeight",
        operands: 2,
        results: &[ShapeOf::Attribute("weight_shape")],
        kernel: |of| Ok(Box::new(Window::of(of)?)),
    },
];

const ODD: &str = "its operands do not fit each other";

struct Quantizer {
    of: FakeQuantize,
    axis: Option<i64>,
}

impl Quantizer {
    fn of(attributes: &dyn Attributes) -> Result<Quantizer, String> {
        let bits = attributes.int("bits").and_then(|bits| i32::try_from(bits).ok());
        let bits = bits
            .filter(|bits| (2..=8).contains(bits))
            .ok_or("a quantizer has 2 to 8 bits")?;
        let (lo, hi) = if attributes.int("signed").unwrap_or(0) != 0 {
            (-(1i32 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else {
            (0, (1 << bits) - 1)
        };
        let of = FakeQuantize {
            lo: lo as f32,
            hi: hi as f32,
            gain: attributes.float("gain").unwrap_or(1.0),
        };
        Ok(Quantizer {
            of,
            axis: attributes.int("axis"),
        })
    }

    /// The values in turn that share a step.
    fn inner(&self, shape: &[usize]) -> Result<usize, String> {
        let Some(axis) = self.axis else {
            return Ok(shape.iter().product());
        };
        let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).map_err(|_| ODD)?;
        Ok(shape.get(axis + 1..).ok_or(ODD)?.iter().product())
    }
}

struct Quantize(Quantizer);

impl Kernel for Quantize {
    fn run(&self, parallel: &dyn Parallel, operands: &[Operand<'_>], results: &mut [&mut [f32]]) -> Result<(), String> {
        let ([v, s], [y]) = (operands, results) else {
            return Err(ODD.to_owned());
        };
        self.0.of.forward(parallel, v.values, s.values, self.0.inner(v.shape)?, y);
        Ok(())
    }
}

struct QuantizeGrad(Quantizer);

impl Kernel for QuantizeGrad {
    fn run(&self, parallel: &dyn Parallel, operands: &[Operand<'_>], results: &mut [&mut [f32]]) -> Result<(), String> {
        let ([v, s, dy], [dv, ds]) = (operands, results) else {
            return Err(ODD.to_owned());
        };
        let inner = self.0.inner(v.shape)?;
        self.0.of.backward(parallel, (v.values, s.values, dy.values), inner, (dv, ds));
        Ok(())
    }
}

/// ONNX's default ε is 1e-5.
fn batch_norm(attributes: &dyn Attributes) -> BatchNorm {
    BatchNorm {
        epsilon: attributes.float("epsilon").unwrap_or(1e-5),
    }
}

struct Normalize(BatchNorm);

impl Kernel for Normalize {
    fn run(&self, parallel: &dyn Parallel, operands: &[Operand<'_>], results: &mut [&mut [f32]]) -> Result<(), String> {
        let ([x, gamma, beta], [y, mean, variance]) = (operands, results) else {
            return Err(ODD.to_owned());
        };
        let of = Forward {
            x: x.values,
            gamma: gamma.values,
            beta: beta.values,
            y,
            mean,
            variance,
        };
        self.0.forward(parallel, Channels::of(x.shape), of);
        Ok(())
    }
}

struct NormalizeGrad(BatchNorm);

impl Kernel for NormalizeGrad {
    fn run(&self, parallel: &dyn Parallel, operands: &[Operand<'_>], results: &mut [&mut [f32]]) -> Result<(), String> {
        let ([dy, x, gamma, mean, variance], [dx, d_gamma, d_beta]) = (operands, results) else {
            return Err(ODD.to_owned());
        };
        let of = Backward {
            dy: dy.values,
            x: x.values,
            gamma: gamma.values,
            mean: mean.values,
            variance: variance.values,
            dx,
            d_gamma,
            d_beta,
        };
        self.0.backward(parallel, Channels::of(x.shape), of);
        Ok(())
    }
}

/// A two-dimensional window, as `ConvGradWeight` has it.
struct Window {
    group: usize,
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 2],
}

impl Window {
    fn of(attributes: &dyn Attributes) -> Result<Window, String> {
        let pair = |values: Option<Vec<i64>>, at: usize| -> Result<[usize; 2], String> {
            let Some(values) = values else { return Ok([1, 1]) };
            let extent = |at: usize| values.get(at).and_then(|&value| usize::try_from(value).ok()).ok_or(ODD);
            Ok([extent(at)?, extent(at + 1)?])
        };
        let pads = attributes.ints("pads").unwrap_or_else(|| vec![0; 4]);
        Ok(Window {
            group: usize::try_from(attributes.int("group").unwrap_or(1)).map_err(|_| ODD)?.max(1),
            kernel: pair(attributes.ints("weight_shape"), 2)?,
            strides: pair(attributes.ints("strides"), 0)?,
            dilations: pair(attributes.ints("dilations"), 0)?,
            pads: pair(Some(pads), 0)?,
        })
    }
}

impl Kernel for Window {
    fn run(&self, parallel: &dyn Parallel, operands: &[Operand<'_>], results: &mut [&mut [f32]]) -> Result<(), String> {
        let ([x, dy], [dw]) = (operands, results) else {
            return Err(ODD.to_owned());
        };
        let (&[batch, channels, height, width], &[_, filters, rows, columns]) = (x.shape, dy.shape) else {
            return Err(ODD.to_owned());
        };
        let conv = ConvWeight {
            batch,
            channels,
            filters,
            group: self.group,
            input: [height, width],
            output: [rows, columns],
            kernel: self.kernel,
            strides: self.strides,
            dilations: self.dilations,
            pads: self.pads,
        };
        conv.compute(parallel, x.values, dy.values, dw);
        Ok(())
    }
}
