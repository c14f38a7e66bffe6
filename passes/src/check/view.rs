//! One graph of a file as the rules see it: which values are constant, where quantizers stand, what a weighted op takes.
//!
//! A value is constant if it is an initializer, or computed from constants alone; so a weight may be stored as levels, as levels behind a
//! Cast, or as floats behind a `QuantizeLinear` of its own, as other tools write it.

use std::collections::HashSet;

use crate::ir::{DType, Def, Graph, Model, Node, NodeId, Tensor, ValueId};
use crate::ops::{self, Quant};
use crate::target::{Target, Version};

/// One graph of a file, and what is known of it.
pub struct View<'a> {
    /// The file.
    pub model: &'a Model,
    /// The graph.
    pub graph: &'a Graph,
    /// Whose rules are looked at.
    pub target: &'static Target,
    /// The version of the runtime that must load the file, where one is named.
    pub runtime: Option<Version>,
    outer: Option<&'a View<'a>>,
    constant: HashSet<ValueId>,
}

/// A `QuantizeLinear` or `DequantizeLinear` (ONNX, operator set 10 and later, or of the domain `com.microsoft`).
pub struct Linear<'a> {
    /// The node.
    pub id: NodeId,
    /// The same.
    pub node: &'a Node,
    /// What it takes.
    pub x: ValueId,
    /// What it gives.
    pub y: ValueId,
    /// The scales, if they are constants.
    pub scale: Option<Tensor>,
    /// The zero points, if they are there and constants.
    pub zero: Option<Tensor>,
    /// The type of the levels.
    pub levels: Option<DType>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `QuantizeLinear`.
    Quantize,
    /// `DequantizeLinear`.
    Dequantize,
}

impl Linear<'_> {
    /// Is it a `QuantizeLinear`?
    pub fn quantizes(&self) -> bool {
        self.node.op.name == "QuantizeLinear"
    }

    /// The scales along an axis, if there is more than one and they are not of blocks.
    pub fn axis(&self) -> Option<i64> {
        let many = self.scale.as_ref().is_some_and(|scale| scale.len() > 1);
        (many && self.block() == 0).then(|| self.node.int("axis").unwrap_or(1))
    }

    /// Elements that share a scale along the axis; 0 where scales are not of blocks.
    pub fn block(&self) -> i64 {
        self.node.int("block_size").unwrap_or(0)
    }

    /// Is every zero point 0? One that is left out is.
    pub fn is_symmetric(&self) -> Option<bool> {
        match (&self.zero, self.node.input(2)) {
            (Some(zero), _) => Some(all_zero(zero)),
            (None, None) => Some(true),
            (None, Some(_)) => None,
        }
    }

    /// The only scale.
    pub fn step(&self) -> Option<f32> {
        match self.scale.as_ref()?.to_f32()?[..] {
            [step] => Some(step),
            _ => None,
        }
    }

    /// The only zero point; 0 where it is left out.
    pub fn zero_level(&self) -> Option<i64> {
        match (&self.zero, self.node.input(2)) {
            (Some(zero), _) => match zero.to_i64()?[..] {
                [level] => Some(level),
                _ => None,
            },
            (None, None) => Some(0),
            (None, Some(_)) => None,
        }
    }
}

/// Where the levels come from that a `DequantizeLinear` takes.
pub struct Source<'a> {
    /// What stands between, the last first.
    pub between: Vec<NodeId>,
    /// The `QuantizeLinear` that makes them, if one does.
    pub quantize: Option<Linear<'a>>,
}

/// What a weighted op takes as its weight.
pub enum Weight<'a> {
    /// A constant in floats.
    Float,
    /// A constant behind a `DequantizeLinear`, and the axis of output channels as that one sees the tensor, where it is known.
    Levels(Linear<'a>, Option<i64>),
    /// No constant: both operands are activations.
    Activation,
}

/// A matrix multiply.
pub struct Multiply<'a> {
    /// The node.
    pub id: NodeId,
    /// The same.
    pub node: &'a Node,
    /// The operand that is an activation.
    pub data: ValueId,
    /// The other one.
    pub other: ValueId,
    /// What that one is.
    pub weight: Weight<'a>,
}

impl Multiply<'_> {
    /// The quantizer of the weight.
    pub fn levels(&self) -> Option<&Linear<'_>> {
        match &self.weight {
            Weight::Levels(linear, _) => Some(linear),
            Weight::Float | Weight::Activation => None,
        }
    }
}

impl<'a> View<'a> {
    /// The view of a file's main graph.
    #[must_use]
    pub fn new(model: &'a Model, target: &'static Target, runtime: Option<Version>) -> View<'a> {
        View {
            model,
            graph: &model.graph,
            target,
            runtime,
            outer: None,
            constant: HashSet::new(),
        }
        .learned()
    }

    /// The view of a graph that is an attribute of one of this graph's nodes.
    #[must_use]
    pub fn inside<'b>(&'b self, graph: &'b Graph) -> View<'b> {
        View {
            model: self.model,
            graph,
            target: self.target,
            runtime: self.runtime,
            outer: Some(self),
            constant: HashSet::new(),
        }
        .learned()
    }

    fn learned(mut self) -> Self {
        for (value, what) in self.graph.values() {
            let outside = match what.def() {
                Def::Captured(outer) => self.outer.is_some_and(|view| view.is_constant(*outer)),
                _ => what.initial().is_some(),
            };
            if outside {
                self.constant.insert(value);
            }
        }
        for (_, node) in self.graph.nodes() {
            let inputs = || node.inputs().iter().flatten();
            let known = node.op.is("Constant") || inputs().next().is_some() && inputs().all(|&value| self.is_constant(value));
            if known && node.subgraphs().next().is_none() {
                self.constant.extend(node.outputs().iter().flatten());
            }
        }
        self
    }

    /// Is the value computed from constants alone?
    #[must_use]
    pub fn is_constant(&self, value: ValueId) -> bool {
        self.constant.contains(&value)
    }

    /// The elements, of an initializer, a Constant, or one of these that an Identity or a subgraph takes.
    #[must_use]
    pub fn tensor(&self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.graph[value].initial() {
            return Some(tensor.clone());
        }
        match self.graph[value].def() {
            Def::Captured(outer) => self.outer?.tensor(*outer),
            Def::Node(id, 0) if self.graph[*id].op.is("Constant") => ops::constant_value(&self.graph[*id]),
            Def::Node(id, 0) if self.graph[*id].op.is("Identity") => self.tensor(self.graph[*id].input(0)?),
            _ => None,
        }
    }

    /// Reads a node as a quantizer.
    #[must_use]
    pub fn linear(&self, id: NodeId) -> Option<Linear<'_>> {
        let node = &self.graph[id];
        let known = node.op.in_default_domain() || node.op.domain == MICROSOFT;
        if !known || !matches!(node.op.name.as_ref(), "QuantizeLinear" | "DequantizeLinear") {
            return None;
        }
        let (x, y) = (node.input(0)?, node.output(0)?);
        let dtype = |value: ValueId| {
            let declared = self.graph[value].ty.as_ref().map(|ty| ty.dtype);
            declared.or_else(|| self.tensor(value).map(|tensor| tensor.dtype()))
        };
        let declared = || {
            let code = node.int("output_dtype").filter(|&code| code != 0)?;
            DType::from_code(i32::try_from(code).ok()?)
        };
        let levels = match (node.op.name.as_ref(), node.input(2)) {
            ("DequantizeLinear", _) => dtype(x),
            (_, Some(zero)) => dtype(zero).or_else(|| dtype(y)),
            (_, None) => Some(declared().unwrap_or(DType::U8)),
        };
        Some(Linear {
            id,
            node,
            x,
            y,
            scale: node.input(1).and_then(|scale| self.tensor(scale)),
            zero: node.input(2).and_then(|zero| self.tensor(zero)),
            levels,
        })
    }

    /// All quantizers of a kind, in the order of the graph.
    pub fn linears(&self, kind: Kind) -> impl Iterator<Item = Linear<'_>> {
        let of_kind = move |linear: &Linear| linear.quantizes() == (kind == Kind::Quantize);
        self.graph.node_ids().filter_map(|id| self.linear(id)).filter(of_kind)
    }

    /// Quantizers of activations, and the dequantizers whose levels no quantizer of this graph makes: each grid of the file once.
    pub fn grids(&self) -> impl Iterator<Item = Linear<'_>> {
        let alone = |linear: &Linear| linear.quantizes() || self.source(linear).quantize.is_none();
        self.graph.node_ids().filter_map(|id| self.linear(id)).filter(alone)
    }

    /// What makes `value`, seen through Identity.
    #[must_use]
    pub fn maker(&self, mut value: ValueId) -> Option<(NodeId, &Node)> {
        loop {
            let (id, node) = self.graph.producer(value)?;
            if !node.op.is("Identity") {
                return Some((id, node));
            }
            value = node.input(0)?;
        }
    }

    /// The quantizer of this kind that makes `value`.
    #[must_use]
    pub fn made_by(&self, kind: Kind, value: ValueId) -> Option<Linear<'_>> {
        let (id, _) = self.maker(value)?;
        self.linear(id)
            .filter(|linear| linear.quantizes() == (kind == Kind::Quantize))
    }

    /// Where the levels of a `DequantizeLinear` come from.
    #[must_use]
    pub fn source(&self, dequantize: &Linear) -> Source<'_> {
        let (mut value, mut between) = (dequantize.x, Vec::new());
        loop {
            if let Some(quantize) = self.made_by(Kind::Quantize, value) {
                return Source {
                    between,
                    quantize: Some(quantize),
                };
            }
            let before = self.maker(value).filter(|(_, node)| node.op.is("Clip") || node.op.is("Cast"));
            let Some((id, input)) = before.and_then(|(id, node)| Some((id, node.input(0)?))) else {
                return Source { between, quantize: None };
            };
            between.push(id);
            value = input;
        }
    }

    /// The `DequantizeLinear` behind `value`, seen through ops that only move values, and those ops, the last first.
    #[must_use]
    pub fn behind_moves(&self, mut value: ValueId) -> Option<(Linear<'_>, Vec<NodeId>)> {
        let mut moves = Vec::new();
        loop {
            if let Some(found) = self.made_by(Kind::Dequantize, value) {
                return Some((found, moves));
            }
            let (id, node) = self.maker(value)?;
            let passes = ops::quant(node) == Quant::Transparent;
            value = node.input(0).filter(|_| passes)?;
            moves.push(id);
        }
    }

    /// The `DequantizeLinear` of an activation behind `value`, seen through moves.
    #[must_use]
    pub fn quantized(&self, value: ValueId) -> Option<Linear<'_>> {
        self.behind_moves(value).map(|(linear, _)| linear)
    }

    /// Is nothing known of what makes the value, because a subgraph captures it?
    #[must_use]
    pub fn is_captured(&self, value: ValueId) -> bool {
        matches!(self.graph[value].def(), Def::Captured(_))
    }

    /// The quantizers that take `value` itself.
    #[must_use]
    pub fn quantizers_of(&self, value: ValueId) -> Vec<Linear<'_>> {
        let taken = self.graph[value].uses().iter().filter(|used| used.index == 0);
        taken
            .filter_map(|used| self.linear(used.node))
            .filter(Linear::quantizes)
            .collect()
    }

    /// Does the value go to a quantizer, perhaps through clamps and moves?
    #[must_use]
    pub fn reaches_quantizer(&self, value: ValueId) -> bool {
        let (mut pending, mut seen) = (vec![value], HashSet::new());
        while let Some(value) = pending.pop() {
            if !self.quantizers_of(value).is_empty() {
                return true;
            }
            for used in self.graph[value].uses().iter().filter(|used| used.index == 0) {
                let node = &self.graph[used.node];
                let passes = matches!(ops::quant(node), Quant::Transparent | Quant::Clamp) || node.op.is("Identity");
                pending.extend(node.output(0).filter(|&next| passes && seen.insert(next)));
            }
        }
        false
    }

    /// Reads a node as a matrix multiply: Conv, ConvTranspose, Gemm, MatMul.
    #[must_use]
    pub fn multiply(&self, id: NodeId) -> Option<Multiply<'_>> {
        let node = &self.graph[id];
        let op = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
            .into_iter()
            .find(|op| node.op.is(op))?;
        let (a, b) = (node.input(0)?, node.input(1)?);
        let symmetric = matches!(op, "Gemm" | "MatMul");
        let turned = symmetric && self.is_constant(a) && !self.is_constant(b);
        let (data, other) = if turned { (b, a) } else { (a, b) };
        let rank = || self.rank(other);
        let is_set = |attribute: &str| node.int(attribute).unwrap_or(0) != 0;
        let axis = match (op, turned) {
            ("Conv", _) => Some(0),
            ("ConvTranspose", _) => Some(1),
            ("Gemm", false) => Some(i64::from(!is_set("transB"))),
            ("Gemm", true) => Some(i64::from(is_set("transA"))),
            (_, false) => rank().map(|rank| rank - 1),
            (_, true) => rank().map(|rank| rank - 2),
        };
        let weight = if self.is_constant(other) {
            self.weight(other, axis)
        } else {
            Weight::Activation
        };
        Some(Multiply {
            id,
            node,
            data,
            other,
            weight,
        })
    }

    /// All matrix multiplies.
    pub fn multiplies(&self) -> impl Iterator<Item = Multiply<'_>> {
        self.graph.node_ids().filter_map(|id| self.multiply(id))
    }

    /// The matrix multiplies of which weight and data are quantized, with the data's grid.
    pub fn integer_multiplies(&self) -> impl Iterator<Item = (Multiply<'_>, Linear<'_>)> {
        self.multiplies()
            .filter(|op| op.levels().is_some())
            .filter_map(|op| Some((self.quantized(op.data)?, op)).map(|(data, op)| (op, data)))
    }

    /// The constant behind a weighted op's operand; its output channels lie on `axis` as the op sees it.
    fn weight(&self, mut value: ValueId, mut axis: Option<i64>) -> Weight<'_> {
        loop {
            if let Some(linear) = self.made_by(Kind::Dequantize, value) {
                return Weight::Levels(linear, axis);
            }
            let Some((_, node)) = self.maker(value) else {
                return Weight::Float;
            };
            let Some(input) = node.input(0) else { return Weight::Float };
            match node.op.name.as_ref() {
                "Transpose" => {
                    let rank = self.rank(input).unwrap_or(2);
                    let reversed = |axis: i64| rank - 1 - axis;
                    axis = axis.and_then(|axis| match node.ints("perm") {
                        Some(perm) => perm.get(usize::try_from(axis).ok()?).copied(),
                        None => Some(reversed(axis)),
                    });
                }
                "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => axis = None,
                _ => return Weight::Float,
            }
            value = input;
        }
    }

    /// The rank of a value, where it is known.
    #[must_use]
    pub fn rank(&self, value: ValueId) -> Option<i64> {
        let declared = self.graph[value].ty.as_ref().and_then(crate::ir::TensorType::rank);
        let rank = declared.or_else(|| self.tensor(value).map(|tensor| tensor.shape().len()))?;
        i64::try_from(rank).ok()
    }

    /// One extent of a value, where it is known.
    #[must_use]
    pub fn extent(&self, value: ValueId, axis: usize) -> Option<usize> {
        let declared = self.graph[value].ty.as_ref().and_then(|ty| ty.shape.as_ref());
        match declared {
            Some(shape) => shape.get(axis)?.known(),
            None => self.tensor(value)?.shape().get(axis).copied(),
        }
    }

    /// Have two values surely the same extents?
    #[must_use]
    pub fn same_shape(&self, a: ValueId, b: ValueId) -> bool {
        let shape = |value: ValueId| self.graph[value].ty.as_ref()?.shape.as_ref();
        let (Some(a), Some(b)) = (shape(a), shape(b)) else {
            return false;
        };
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_as(b))
    }

    /// The extents of a value, where all are known.
    #[must_use]
    pub fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        self.graph[value]
            .shape()
            .or_else(|| self.tensor(value).map(|tensor| tensor.shape().to_vec()))
    }
}

/// The domain of ONNX Runtime's own ops.
pub const MICROSOFT: &str = "com.microsoft";

/// Are all elements 0, whatever type they have?
pub fn all_zero(tensor: &Tensor) -> bool {
    match tensor.to_f64() {
        #[allow(clippy::float_cmp)]
        Some(values) => values.iter().all(|&value| value == 0.0),
        // Types of less than a byte.
        None => tensor.bytes().iter().all(|&byte| byte == 0),
    }
}

/// Have two quantizers the same scales and zero points? `None` where it is not known.
pub fn same_grid(a: &Linear, b: &Linear) -> Option<bool> {
    let scale = |linear: &Linear| linear.scale.as_ref()?.to_f64();
    let scales = if a.node.input(1) == b.node.input(1) {
        true
    } else {
        scale(a)? == scale(b)?
    };
    let zeros = match (&a.zero, &b.zero) {
        _ if a.node.input(2) == b.node.input(2) => true,
        (Some(x), Some(y)) => x.bytes() == y.bytes() || all_zero(x) && all_zero(y),
        (Some(zero), None) if b.node.input(2).is_none() => all_zero(zero),
        (None, Some(zero)) if a.node.input(2).is_none() => all_zero(zero),
        _ => return None,
    };
    Some(scales && zeros && a.axis() == b.axis() && a.block() == b.block())
}
