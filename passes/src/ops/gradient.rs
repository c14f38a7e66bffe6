//! What gradient rules are given. The engine of differentiation, not the rules, owns accumulation, summing back over broadcast axes,
//! pruning and naming.

use super::build::Build;
use crate::ir::{Node, NodeId, ValueId};

/// How gradients flow back through an op.
#[derive(Clone, Copy)]
pub enum Gradient {
    /// By this rule.
    Rule(GradientRule),
    /// None do: the result does not depend on the operands almost everywhere, or is no float.
    Zero,
    /// None do, for this reason: what lies behind the op is not trained.
    Unsupported(&'static str),
}

/// Adds the nodes that compute the gradients of a node's operands, through [`GradCx::give`].
pub type GradientRule = fn(&mut GradCx) -> Result<(), String>;

/// What a gradient rule sees: a node of a graph in which every type is fixed, and the gradients of its results.
pub struct GradCx<'a> {
    /// Adds typed nodes.
    pub build: Build<'a>,
    /// The node, as it was.
    pub node: Node,
    /// Its id.
    pub id: NodeId,
    dy: Vec<Option<ValueId>>,
    wanted: Vec<bool>,
    given: Vec<Option<ValueId>>,
}

impl<'a> GradCx<'a> {
    /// A context for `id`, whose results have gradients `dy` and whose operands want them where `wanted` says so.
    #[must_use]
    pub fn new(build: Build<'a>, id: NodeId, dy: Vec<Option<ValueId>>, wanted: Vec<bool>) -> GradCx<'a> {
        let node = build.graph[id].clone();
        let given = vec![None; wanted.len()];
        GradCx {
            build,
            node,
            id,
            dy,
            wanted,
            given,
        }
    }

    /// The gradients that the rule gave, an entry for each operand.
    #[must_use]
    pub fn into_given(self) -> Vec<Option<ValueId>> {
        self.given
    }

    /// Operand `index`.
    ///
    /// # Errors
    /// If it is left out.
    pub fn x(&self, index: usize) -> Result<ValueId, String> {
        self.node.input(index).ok_or_else(|| format!("operand {index} is missing"))
    }

    /// Result `index`.
    ///
    /// # Errors
    /// If it is left out.
    pub fn y(&self, index: usize) -> Result<ValueId, String> {
        self.node.output(index).ok_or_else(|| format!("result {index} is missing"))
    }

    /// The gradient of result 0.
    ///
    /// # Errors
    /// If there is none.
    pub fn dy(&self) -> Result<ValueId, String> {
        self.dy
            .first()
            .copied()
            .flatten()
            .ok_or_else(|| "the first result has no gradient".to_owned())
    }

    /// The gradient of result `index`, if there is one.
    #[must_use]
    pub fn dy_of(&self, index: usize) -> Option<ValueId> {
        self.dy.get(index).copied().flatten()
    }

    /// The shape of operand `index`.
    ///
    /// # Errors
    /// If it is not fixed.
    pub fn x_shape(&self, index: usize) -> Result<Vec<usize>, String> {
        self.build.shape(self.x(index)?)
    }

    /// The shape of result 0.
    ///
    /// # Errors
    /// If it is not fixed.
    pub fn y_shape(&self) -> Result<Vec<usize>, String> {
        self.build.shape(self.y(0)?)
    }

    /// Does operand `index` want a gradient?
    #[must_use]
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// Gives the gradient of operand `index`. It may have the shape of the result where the operand was broadcast.
    pub fn give(&mut self, index: usize, gradient: ValueId) {
        if let Some(slot) = self.given.get_mut(index) {
            *slot = Some(gradient);
        }
    }

    /// Gives operand `index`, if it wants one, the gradient that `make` adds.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn give_with(
        &mut self,
        index: usize,
        make: impl FnOnce(&mut Build<'a>) -> Result<ValueId, String>,
    ) -> Result<(), String> {
        if self.wants(index) {
            let gradient = make(&mut self.build)?;
            self.give(index, gradient);
        }
        Ok(())
    }
}
