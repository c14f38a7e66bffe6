//! Values: what flows along the edges, who makes it, who uses it and what part it plays.

use super::attributes::{Literal, Remainder};
use super::node::NodeId;
use super::tensor::Tensor;
use super::types::TensorType;

/// Names a value of one graph; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(super) u32);

impl ValueId {
    /// The id as an index, for dense tables beside a graph.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What makes a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Def {
    /// The caller, who may leave it out where there is a default (ONNX: an input with an initializer of the same name).
    Input(Option<Literal>),
    /// The model.
    Constant(Literal),
    /// Result `1` of node `0`.
    Node(NodeId, usize),
    /// An enclosing graph: its value of this id. Only in a graph that is an attribute.
    Captured(ValueId),
}

/// One place where a value is used: operand `index` of `node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The node.
    pub node: NodeId,
    /// Which of its operands, or `usize::MAX` where one of its subgraphs captures the value.
    pub index: usize,
}

impl Use {
    /// Does a subgraph of the node capture the value, rather than the node itself take it?
    #[must_use]
    pub fn is_capture(&self) -> bool {
        self.index == usize::MAX
    }
}

/// The part that an input or output of a training-step graph plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// None: the graph is not a step graph, or the value is inside it.
    #[default]
    Plain,
    /// A batch of one of the model's inputs.
    Batch,
    /// The batch's class labels, int64 `[N]`.
    Label,
    /// A trained parameter.
    Parameter,
    /// The step size s of a quantizer, float scalar.
    Step,
    /// The momentum of a parameter or step.
    Momentum(ValueId),
    /// A BatchNorm's running mean.
    RunningMean,
    /// A BatchNorm's running variance.
    RunningVariance,
    /// The learning rate, float scalar.
    LearningRate,
    /// What is kept of the oscillations of a parameter, a number for each of its elements.
    Oscillation(Oscillation, ValueId),
    /// The frequency of oscillations above which an element is frozen, float scalar.
    FreezeThreshold,
    /// The loss, float scalar.
    Loss,
    /// The value of an input after this step.
    Next(ValueId),
    /// The gradient of the loss with respect to an input.
    Gradient(ValueId),
    /// A quantizer's integer code v̄; the value is its step.
    Code(ValueId),
}

/// What is kept of the oscillations of each element of a quantized weight (arXiv 2203.11086).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oscillation {
    /// Its integer code v̄.
    LastCode,
    /// The sign of the last change of v̄; 0 before the first.
    LastDirection,
    /// How often v̄ turns back: a running mean over steps, 0 to 1.
    Frequency,
    /// The running mean of v̄.
    MeanCode,
    /// 1 where it is frozen, else 0.
    Frozen,
}

impl Oscillation {
    /// All of them.
    pub const ALL: [Oscillation; 5] = [
        Oscillation::LastCode,
        Oscillation::LastDirection,
        Oscillation::Frequency,
        Oscillation::MeanCode,
        Oscillation::Frozen,
    ];

    /// Its word in `step.json`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Oscillation::LastCode => "last_code",
            Oscillation::LastDirection => "last_direction",
            Oscillation::Frequency => "frequency",
            Oscillation::MeanCode => "mean_code",
            Oscillation::Frozen => "frozen",
        }
    }

    /// The name of the input that holds it for the parameter of this name.
    #[must_use]
    pub fn input(self, parameter: &str) -> String {
        format!("{}/{parameter}", self.word())
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its type, where it is known.
    pub ty: Option<TensorType>,
    /// The part it plays in a step graph.
    pub role: Role,
    /// Its place in the source's `value_info`; `None` where it is not listed there.
    pub listed: Option<u32>,
    /// What the source's lists of inputs, outputs and `value_info` say of it, encoded.
    pub remainder: Remainder,
    pub(super) name: String,
    pub(super) def: Def,
    pub(super) uses: Vec<Use>,
}

impl Value {
    /// The name, unique in the graph.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What makes it.
    #[must_use]
    pub fn def(&self) -> &Def {
        &self.def
    }

    /// The node that makes it, if one does.
    #[must_use]
    pub fn producer(&self) -> Option<NodeId> {
        match self.def {
            Def::Node(node, _) => Some(node),
            _ => None,
        }
    }

    /// Who uses it, in no special order; a node that takes it twice is there twice.
    #[must_use]
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// The elements, if it is a constant.
    #[must_use]
    pub fn constant(&self) -> Option<&Tensor> {
        match &self.def {
            Def::Constant(literal) => Some(&literal.tensor),
            _ => None,
        }
    }

    /// The elements that the model gives: of a constant, or an input's default.
    #[must_use]
    pub fn initial(&self) -> Option<&Tensor> {
        match &self.def {
            Def::Constant(literal) | Def::Input(Some(literal)) => Some(&literal.tensor),
            _ => None,
        }
    }

    /// The shape, if the type is known with every extent a number.
    #[must_use]
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.ty.as_ref()?.known_shape()
    }
}
