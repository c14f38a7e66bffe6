//! Adds typed nodes, spelled so that every operator set from 13 on reads them alike.
//!
//! Gradients and legalization are built with it. Each method is one ONNX op and gives its result; the types of the operands must be known,
//! with every extent a number, where the method's spelling depends on the shape.

use std::collections::HashMap;

use super::infer::InferCx;
use super::lookup;
use crate::ir::{Attribute, DType, Graph, Op, Tensor, TensorType, ValueId};

/// A graph to add to, and the base of new names.
pub struct Build<'a> {
    /// The graph.
    pub graph: &'a mut Graph,
    prefix: String,
}

impl<'a> Build<'a> {
    /// Adds to `graph`; new values are named after `prefix`.
    pub fn new(graph: &'a mut Graph, prefix: &str) -> Build<'a> {
        Build {
            graph,
            prefix: prefix.to_owned(),
        }
    }

    /// The shape of a value.
    ///
    /// # Errors
    /// If it is not fixed.
    pub fn shape(&self, value: ValueId) -> Result<Vec<usize>, String> {
        let value = &self.graph[value];
        value
            .shape()
            .ok_or_else(|| format!("the shape of '{}' is not fixed", value.name()))
    }

    /// The element type of a value; float where it is not known.
    #[must_use]
    pub fn dtype(&self, value: ValueId) -> DType {
        self.graph[value].ty.as_ref().map_or(DType::F32, |ty| ty.dtype)
    }

    /// Adds any node with `results` results and types them by the table.
    pub fn nodes(&mut self, op: Op, inputs: &[Option<ValueId>], attributes: Vec<Attribute>, results: usize) -> Vec<ValueId> {
        let base = format!("{}/{}", self.prefix, op.name);
        let bases = vec![base.as_str(); results];
        let outputs = self.graph.insert_many(op, inputs, attributes, &bases);
        if let Some(node) = outputs.first().and_then(|&output| self.graph[output].producer()) {
            type_results(self.graph, node);
        }
        outputs
    }

    /// Adds any node with one result.
    pub fn node(&mut self, op: Op, inputs: &[ValueId], attributes: Vec<Attribute>) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.nodes(op, &inputs, attributes, 1)[0]
    }

    fn onnx(&mut self, name: &'static str, inputs: &[ValueId], attributes: Vec<Attribute>) -> ValueId {
        self.node(Op::onnx(name), inputs, attributes)
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let base = format!("{}/const", self.prefix);
        self.graph.add_constant(&base, tensor)
    }

    /// A float scalar.
    pub fn scalar(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    /// An int64 vector.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// Add.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.onnx("Add", &[a, b], vec![])
    }

    /// Sub.
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.onnx("Sub", &[a, b], vec![])
    }

    /// Mul.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.onnx("Mul", &[a, b], vec![])
    }

    /// Div.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.onnx("Div", &[a, b], vec![])
    }

    /// Mul by a number.
    pub fn scale(&mut self, a: ValueId, factor: f32) -> ValueId {
        let factor = self.scalar(factor);
        self.mul(a, factor)
    }

    /// An op of one operand and no attribute (Neg, Sqrt, Exp, Round, …).
    pub fn unary(&mut self, name: &'static str, a: ValueId) -> ValueId {
        self.onnx(name, &[a], vec![])
    }

    /// An op of two operands and no attribute (Max, Greater, …).
    pub fn binary(&mut self, name: &'static str, a: ValueId, b: ValueId) -> ValueId {
        self.onnx(name, &[a, b], vec![])
    }

    /// Clip to [lo, hi].
    pub fn clip(&mut self, a: ValueId, lo: f32, hi: f32) -> ValueId {
        let (lo, hi) = (self.scalar(lo), self.scalar(hi));
        self.onnx("Clip", &[a, lo, hi], vec![])
    }

    /// MatMul.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.onnx("MatMul", &[a, b], vec![])
    }

    /// Transpose.
    pub fn transpose(&mut self, a: ValueId, perm: &[i64]) -> ValueId {
        self.onnx("Transpose", &[a], vec![Attribute::new("perm", perm.to_vec())])
    }

    /// Transpose of the last two axes.
    ///
    /// # Errors
    /// If the shape is not fixed, or of rank under 2.
    pub fn swap_last(&mut self, a: ValueId) -> Result<ValueId, String> {
        let rank = self.shape(a)?.len();
        if rank < 2 {
            return Err("a matrix has rank 2 or more".to_owned());
        }
        let mut perm: Vec<i64> = (0..).take(rank).collect();
        perm.swap(rank - 1, rank - 2);
        Ok(self.transpose(a, &perm))
    }

    /// Reshape to fixed extents; nothing where the shape is that already.
    pub fn reshape(&mut self, a: ValueId, shape: &[usize]) -> ValueId {
        if self.graph[a].shape().as_deref() == Some(shape) {
            return a;
        }
        let target = self.ints(&as_i64(shape));
        self.onnx("Reshape", &[a, target], vec![])
    }

    /// Expand to fixed extents.
    pub fn expand(&mut self, a: ValueId, shape: &[usize]) -> ValueId {
        let target = self.ints(&as_i64(shape));
        self.onnx("Expand", &[a, target], vec![])
    }

    /// ReduceSum over `axes`.
    pub fn reduce_sum(&mut self, a: ValueId, axes: &[i64], keep: KeepDims) -> ValueId {
        let axes = self.ints(axes);
        self.onnx("ReduceSum", &[a, axes], vec![Attribute::new("keepdims", keep as i64)])
    }

    /// ReduceSum over every axis, to a scalar: over the outermost and the inner axes first where there are channels between them, which
    /// engines run several times faster than all at once.
    pub fn sum_all(&mut self, a: ValueId) -> ValueId {
        let rank = self.graph[a].ty.as_ref().and_then(TensorType::rank).unwrap_or(0);
        let others: Vec<i64> = (0..).take(rank).filter(|&axis| axis != 1).collect();
        let partial = if rank > 2 {
            self.reduce_sum(a, &others, KeepDims::No)
        } else {
            a
        };
        self.onnx("ReduceSum", &[partial], vec![Attribute::new("keepdims", KeepDims::No as i64)])
    }

    /// Sums `a` back to `shape`, from which it was broadcast.
    ///
    /// # Errors
    /// If the shape of `a` is not fixed, or does not come from `shape` by broadcasting.
    pub fn sum_to(&mut self, a: ValueId, shape: &[usize]) -> Result<ValueId, String> {
        let from = self.shape(a)?;
        if from == shape {
            return Ok(a);
        }
        let Some(lead) = from.len().checked_sub(shape.len()) else {
            return Err(format!("a gradient of shape {from:?} does not belong to {shape:?}"));
        };
        let stretched = shape.iter().zip(&from[lead..]).map(|(&want, &have)| want == 1 && have != 1);
        let axes: Vec<i64> = (0..)
            .zip(std::iter::repeat_n(true, lead).chain(stretched))
            .filter_map(|(axis, sum)| sum.then_some(axis))
            .collect();
        let summed = if axes.is_empty() {
            a
        } else {
            self.reduce_sum(a, &axes, KeepDims::Yes)
        };
        Ok(self.reshape(summed, shape))
    }

    /// Slice along one axis: from `start` on, before `end`, every `step`th.
    pub fn slice(&mut self, a: ValueId, axis: i64, start: i64, end: i64, step: i64) -> ValueId {
        let [start, end, axis, step] = [start, end, axis, step].map(|value| self.ints(&[value]));
        self.onnx("Slice", &[a, start, end, axis, step], vec![])
    }

    /// Pad with zeros; `pads` has the begins of all axes, then the ends.
    pub fn pad(&mut self, a: ValueId, pads: &[i64]) -> ValueId {
        if pads.iter().all(|&pad| pad == 0) {
            return a;
        }
        let pads = self.ints(pads);
        self.onnx("Pad", &[a, pads], vec![])
    }

    /// Concat along `axis`.
    pub fn concat(&mut self, parts: &[ValueId], axis: i64) -> ValueId {
        if let [only] = parts {
            return *only;
        }
        self.onnx("Concat", parts, vec![Attribute::new("axis", axis)])
    }

    /// Cast.
    pub fn cast(&mut self, a: ValueId, to: DType) -> ValueId {
        self.onnx("Cast", &[a], vec![Attribute::new("to", i64::from(to.code()))])
    }

    /// 1 where `a < b`, else 0, as floats.
    pub fn less(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let mask = self.binary("Less", a, b);
        self.cast(mask, DType::F32)
    }

    /// 1 where `a > b`, else 0, as floats.
    pub fn greater(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let mask = self.binary("Greater", a, b);
        self.cast(mask, DType::F32)
    }

    /// Conv.
    pub fn conv(&mut self, x: ValueId, w: ValueId, attributes: Vec<Attribute>) -> ValueId {
        self.onnx("Conv", &[x, w], attributes)
    }
}

/// Does a reduction keep the axes it reduces, with extent 1?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepDims {
    /// It drops them.
    No = 0,
    /// It keeps them.
    Yes = 1,
}

/// Types the results of a node that was just added, by the table's rule, where the table has one.
pub fn type_results(graph: &mut Graph, node: crate::ir::NodeId) {
    // Nodes made here are spelled alike in all of these operator sets.
    const OPSET: i64 = 17;
    let none = HashMap::new();
    let Some(entry) = lookup(&graph[node].op) else { return };
    let types: Vec<Option<TensorType>> = (entry.infer)(&InferCx::new(graph, node, &none, OPSET)).unwrap_or_default();
    let outputs = graph[node].outputs().to_vec();
    for (output, ty) in outputs.into_iter().zip(types) {
        if let (Some(output), Some(ty)) = (output, ty) {
            graph[output].ty = Some(ty);
        }
    }
}

/// Extents as ONNX's int64; every extent of a tensor that exists fits.
#[must_use]
pub fn as_i64(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX))
        .collect()
}
