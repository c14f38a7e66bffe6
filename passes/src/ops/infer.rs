//! What type rules are given, and the algebra of shapes that they share.

use std::collections::HashMap;

use crate::ir::{DType, Dim, Graph, Node, NodeId, Tensor, TensorType, ValueId};

/// Types the results of a node, one for each. A rule gives what it knows: an unknown input makes an unknown result, not an error; an error
/// is for inputs that contradict each other.
pub type InferRule = fn(&InferCx) -> Result<Vec<Option<TensorType>>, String>;

/// The dimensions that the node's only result holds as numbers, where that can be told.
pub type ShapeRule = fn(&InferCx) -> Option<Vec<Dim>>;

/// What a type rule sees: a node, and what is known of its operands.
pub struct InferCx<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The node.
    pub node: &'a Node,
    /// Integer values whose elements are known dimensions.
    pub dims: &'a HashMap<ValueId, Vec<Dim>>,
    /// The version of the default operator set.
    pub opset: i64,
}

impl<'a> InferCx<'a> {
    /// What is known of `node`, without shape arithmetic.
    #[must_use]
    pub fn new(graph: &'a Graph, node: NodeId, dims: &'a HashMap<ValueId, Vec<Dim>>, opset: i64) -> InferCx<'a> {
        InferCx {
            graph,
            node: &graph[node],
            dims,
            opset,
        }
    }

    /// The type of operand `index`.
    #[must_use]
    pub fn ty(&self, index: usize) -> Option<&'a TensorType> {
        self.graph[self.node.input(index)?].ty.as_ref()
    }

    /// The element type of operand `index`.
    #[must_use]
    pub fn dtype(&self, index: usize) -> Option<DType> {
        Some(self.ty(index)?.dtype)
    }

    /// The extents of operand `index`.
    #[must_use]
    pub fn shape(&self, index: usize) -> Option<&'a [Dim]> {
        self.ty(index)?.shape.as_deref()
    }

    /// The elements of operand `index`, if it is a constant.
    #[must_use]
    pub fn constant(&self, index: usize) -> Option<&'a Tensor> {
        self.graph[self.node.input(index)?].constant()
    }

    /// The integers that operand `index` holds, if all are known.
    #[must_use]
    pub fn ints(&self, index: usize) -> Option<Vec<i64>> {
        if let Some(tensor) = self.constant(index) {
            return tensor.to_i64();
        }
        let dims = self.dims.get(&self.node.input(index)?)?;
        dims.iter()
            .map(|dim| dim.known().and_then(|extent| i64::try_from(extent).ok()))
            .collect()
    }

    /// The dimensions that operand `index` holds as numbers, known or not; `None` if not even their count is known.
    #[must_use]
    pub fn held_dims(&self, index: usize) -> Option<Vec<Dim>> {
        if let Some(dims) = self.dims.get(&self.node.input(index)?) {
            return Some(dims.clone());
        }
        let values = self.constant(index)?.to_i64()?;
        Some(
            values
                .into_iter()
                .map(|value| usize::try_from(value).map_or(Dim::Unknown, Dim::Known))
                .collect(),
        )
    }

    /// The integers of attribute `name` or, in newer operator sets, of operand `index`.
    #[must_use]
    pub fn ints_of(&self, name: &str, index: usize) -> Option<Vec<i64>> {
        match self.node.ints(name) {
            Some(values) => Some(values.to_vec()),
            None => self.ints(index),
        }
    }

    /// One result of this element type and shape.
    ///
    /// # Errors
    /// Never; the signature is that of a rule.
    pub fn one(&self, dtype: Option<DType>, shape: Option<Vec<Dim>>) -> Result<Vec<Option<TensorType>>, String> {
        Ok(vec![dtype.map(|dtype| TensorType { dtype, shape })])
    }

    /// One result with the type of operand 0.
    ///
    /// # Errors
    /// Never; the signature is that of a rule.
    pub fn like_first(&self) -> Result<Vec<Option<TensorType>>, String> {
        Ok(vec![self.ty(0).cloned()])
    }
}

/// The shape that two shapes broadcast to, as numpy and ONNX do it; `None` where a dimension cannot be told.
///
/// # Errors
/// If two known extents differ and neither is 1.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], axis: usize| -> Dim {
        (axis + shape.len())
            .checked_sub(rank)
            .and_then(|i| shape.get(i).cloned())
            .unwrap_or(Dim::Known(1))
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (Dim::Known(1), other) | (other, Dim::Known(1)) => Ok(other),
            (x, y) if x == y => Ok(x),
            (Dim::Known(x), Dim::Known(y)) => Err(format!("extents {x} and {y} do not broadcast")),
            (known @ Dim::Known(_), _) | (_, known @ Dim::Known(_)) => Ok(known),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// `axis` counted from the front; ONNX counts negative ones from the back.
///
/// # Errors
/// If it lies outside the rank.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).map_err(|_| "rank is absurd".to_owned())?;
    let from_front = if axis < 0 { axis + signed } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("axis {axis} lies outside rank {rank}"))
}

/// Every axis by [`normalize_axis`], in the order given.
///
/// # Errors
/// If one lies outside the rank.
pub fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    axes.iter().map(|&axis| normalize_axis(axis, rank)).collect()
}
