//! Sample cases of an op: on these the generic check compares its gradient with finite differences, and engines with each other.

use crate::ir::{Attribute, Tensor};

/// One node with operands.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What is special about the case.
    pub about: &'static str,
    /// The operands; `None` where an optional one is left out.
    pub inputs: Vec<Option<Operand>>,
    /// The attributes.
    pub attributes: Vec<Attribute>,
    /// How many results the node has.
    pub results: usize,
    /// How many of them, from the first on, the loss depends on.
    pub weighed: usize,
    /// The version of the default operator set.
    pub opset: i64,
}

/// The operator set of a case that does not ask for another.
const USUAL_OPSET: i64 = 17;

/// One operand of a sample.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The elements.
    pub tensor: Tensor,
    /// How the graph has it.
    pub kind: Kind,
}

/// How the graph of a sample has an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As an input, with respect to which the gradient is checked.
    Varies,
    /// As an input that has no gradient.
    Fed,
    /// As a constant.
    Constant,
}

impl Sample {
    /// A case without operands yet, of one result.
    #[must_use]
    pub fn new(about: &'static str) -> Sample {
        Sample {
            about,
            inputs: vec![],
            attributes: vec![],
            results: 1,
            weighed: 1,
            opset: USUAL_OPSET,
        }
    }

    /// Adds an operand of this shape whose gradient is checked: distinct values spread over [-1, 1], none near zero, none near another.
    #[must_use]
    pub fn x(self, shape: &[usize]) -> Sample {
        self.x_in(shape, -1.0, 1.0)
    }

    /// The same, spread over [lo, hi].
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn x_in(mut self, shape: &[usize], lo: f32, hi: f32) -> Sample {
        let count: usize = shape.iter().product();
        // Multiples of an irrational number, modulo 1, are spread evenly and differ from each other.
        let salt = self.inputs.len() as f64 * 0.317;
        let values = (0..count).map(|i| {
            let t = ((i as f64 + 1.0).mul_add(0.618_033_988_749_894_9, salt)).fract() as f32;
            lo + (hi - lo) * t
        });
        self.inputs.push(Some(Operand {
            tensor: Tensor::new(shape, values.collect()),
            kind: Kind::Varies,
        }));
        self
    }

    /// Adds an operand with these elements whose gradient is checked.
    #[must_use]
    pub fn values(mut self, tensor: Tensor) -> Sample {
        self.inputs.push(Some(Operand {
            tensor,
            kind: Kind::Varies,
        }));
        self
    }

    /// Adds a constant operand.
    #[must_use]
    pub fn constant(mut self, tensor: Tensor) -> Sample {
        self.inputs.push(Some(Operand {
            tensor,
            kind: Kind::Constant,
        }));
        self
    }

    /// Adds an operand that is fed but has no gradient, as computed indices are.
    #[must_use]
    pub fn fed(mut self, tensor: Tensor) -> Sample {
        self.inputs.push(Some(Operand { tensor, kind: Kind::Fed }));
        self
    }

    /// Leaves an optional operand out.
    #[must_use]
    pub fn none(mut self) -> Sample {
        self.inputs.push(None);
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attr(mut self, name: &str, value: impl Into<crate::ir::Attr>) -> Sample {
        self.attributes.push(Attribute::new(name, value));
        self
    }

    /// Sets the number of results, of which the loss depends on the first.
    #[must_use]
    pub fn results(self, results: usize) -> Sample {
        Sample { results, ..self }
    }

    /// Sets the number of results, all of which the loss depends on.
    #[must_use]
    pub fn weighed(self, results: usize) -> Sample {
        Sample {
            results,
            weighed: results,
            ..self
        }
    }

    /// Asks for another operator set than 17: the first that has the op, or the form of it that the case is about.
    #[must_use]
    pub fn opset(self, opset: i64) -> Sample {
        Sample { opset, ..self }
    }
}
