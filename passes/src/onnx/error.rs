//! Why a model cannot be read or written, and what is remarkable about one that can.

use super::OPSETS;
use crate::ir::Op;

/// Why a model cannot be read. [`ReadError::help`] says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The bytes are text.
    #[error("this is {0}, not an ONNX model")]
    Text(&'static str),
    /// The bytes are something else.
    #[error("this is not an ONNX model: {0}")]
    NotAModel(String),
    /// The bytes begin as a model and end too early.
    #[error("the model is truncated: its field '{field}' goes on for {missing} bytes after the end of the file")]
    Truncated {
        /// The outermost field that is cut.
        field: &'static str,
        /// How many bytes are missing at least.
        missing: u64,
    },
    /// Graphs in graphs in graphs.
    #[error("the model's graphs are nested too deeply")]
    TooDeep,
    /// There is no graph.
    #[error("the model has no graph")]
    NoGraph,
    /// The main graph has no output.
    #[error("graph '{graph}' has no output")]
    NoOutput {
        /// The graph's name.
        graph: String,
    },
    /// A node takes what nothing makes.
    #[error("node '{node}' takes '{name}', which nothing defines")]
    Undefined {
        /// The node.
        node: String,
        /// The name that it takes.
        name: String,
    },
    /// An output is what nothing makes.
    #[error("graph '{graph}' gives the output '{name}', which nothing defines")]
    UndefinedOutput {
        /// The graph's name.
        graph: String,
        /// The output's name.
        name: String,
    },
    /// Two things have one name.
    #[error("the name '{name}' is defined twice: by {first} and by {second}")]
    Duplicate {
        /// The name.
        name: String,
        /// What defines it.
        first: String,
        /// What else defines it.
        second: String,
    },
    /// Something must have a name and has none.
    #[error("{0} has no name")]
    Unnamed(String),
    /// Nodes that need each other's results.
    #[error("{}", cycle(nodes))]
    Cycle {
        /// The nodes, each before one that takes its result; the last before the first.
        nodes: Vec<String>,
    },
    /// A tensor's dimensions, type and data do not go together.
    #[error("{tensor}: {problem}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// An element type that the schema does not know.
    #[error("{what} has {}", element_type(*code))]
    ElementType {
        /// The tensor or value.
        what: String,
        /// The number.
        code: i32,
    },
    /// Data outside the file that cannot be had.
    #[error("{tensor} lies outside the model's file, in '{location}': {reason}")]
    External {
        /// The tensor.
        tensor: String,
        /// The file that the model names.
        location: String,
        /// Why not.
        reason: String,
    },
    /// An operator set that lsqc does not know.
    #[error("the model uses opset {version}; lsqc knows {} to {}", OPSETS.start(), OPSETS.end())]
    Opset {
        /// The version.
        version: i64,
    },
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            ReadError::Empty | ReadError::Truncated { .. } => "copy, download or export the file again",
            ReadError::Text("a Git LFS pointer") => "run `git lfs pull` to get the file that it stands for",
            ReadError::Text(_) => "download the model file itself, not the page or the listing around it",
            ReadError::NotAModel(_) | ReadError::NoGraph => "give a file that holds a serialised ONNX ModelProto",
            ReadError::TooDeep => "flatten the graphs inside If, Loop and Scan nodes",
            ReadError::NoOutput { .. } => "export the model with at least one output",
            ReadError::Undefined { .. } | ReadError::UndefinedOutput { .. } => {
                "the model is damaged: export it again, or run onnx.checker on what made it"
            }
            ReadError::Duplicate { .. } => "rename one of the two: every name may be defined once",
            ReadError::Unnamed(_) => "give it a name: nothing can refer to it",
            ReadError::Cycle { .. } => "cut the cycle: ONNX graphs are acyclic (repetition is a Loop or Scan node)",
            ReadError::Tensor { .. } | ReadError::ElementType { .. } => {
                "the tensor is damaged, or written by a newer tool: export the model again"
            }
            ReadError::External { .. } => "put the model's data files beside it, as they were when it was exported",
            ReadError::Opset { version } if version > OPSETS.end() => "export the model with an older opset (17 to 25)",
            ReadError::Opset { .. } => "convert the model with onnx.version_converter, or export it with a newer opset",
        }
    }
}

/// Something remarkable about a model that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Fields that the schema does not know; they are not kept.
    #[error("field {number} of {message} is not in ONNX's schema (IR version 14) and is not kept; it is there {}", times(*count))]
    UnknownField {
        /// The message type.
        message: &'static str,
        /// The field's number.
        number: u32,
        /// How often it was met.
        count: usize,
    },
    /// Nodes were not in order.
    #[error("node '{node}' of graph '{graph}' stood before a node whose result it takes; the nodes were sorted")]
    Reordered {
        /// The graph's name.
        graph: String,
        /// The first such node.
        node: String,
    },
    /// The opset is not one that lsqc knows.
    #[error("the model uses opset {version}; lsqc knows {} to {}", OPSETS.start(), OPSETS.end())]
    Opset {
        /// The version.
        version: i64,
    },
}

fn cycle(nodes: &[String]) -> String {
    match nodes {
        [node] => format!("the node '{node}' takes its own result"),
        _ => format!("the nodes '{}' form a cycle", nodes.join("' -> '")),
    }
}

fn element_type(code: i32) -> String {
    match code {
        0 => "no element type".to_owned(),
        _ => format!("the element type number {code}, which ONNX does not define"),
    }
}

fn times(count: usize) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

/// Why a model cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// An op that only lsqc knows would reach a file.
    #[error("node '{node}' is still the internal op {op}, which no runtime knows: a pass should have spelled it in ONNX ops")]
    OwnOp {
        /// The node.
        node: String,
        /// The op.
        op: Op,
    },
    /// More bytes than a message may have, even with its tensors in another file.
    #[error("the model takes {size} bytes without its large tensors; a protobuf message may have {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}
