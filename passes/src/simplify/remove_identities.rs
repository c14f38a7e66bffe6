//! Removes nodes that hand an operand on unchanged: Identity, Dropout outside training, Cast to the type at hand, Transpose by the identity,
//! shape ops that surely keep the shape, Pad by nothing, Slice of all, Concat, Sum, Max, Min and Mean of one, + 0, − 0, · 1, / 1.
//!
//! "Surely" is what the type rule says of the operands, with equal names for equal dimensions; declared shapes of results are not
//! believed. Left alone: a node that connects an input or a constant to an output, because the output needs a maker of its name.

use std::collections::HashMap;

use crate::analyze::{self, Inferred};
use crate::ir::{Dim, Graph, Model, Node, NodeId, Tensor, ValueId};
use crate::ops::picks::Picks;
use crate::ops::{self, InferCx};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static REMOVE_IDENTITIES: Pass = Pass {
    name: "remove-identities",
    about: "remove nodes that hand an operand on unchanged",
    needs: "any graph",
    gives: "no such node but at outputs that need a maker",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let inferred = analyze::infer(model)?;
    let opset = model.opset();
    let graph = &mut model.graph;
    let mut removed = Vec::new();
    for id in graph.node_list() {
        let kept = match kept_operand(&Site::new(graph, &inferred, id, opset)) {
            Verdict::Passes(operand) => operand,
            Verdict::Computes => continue,
            Verdict::Declined(why) => {
                cx.note(graph, id, why);
                continue;
            }
        };
        let (Some(operand), Some(result)) = (graph[id].input(kept), graph[id].output(0)) else {
            continue;
        };
        let needs_maker = graph.outputs().contains(&result);
        if needs_maker && (graph[operand].producer().is_none() || graph.outputs().contains(&operand)) {
            continue;
        }
        graph.replace(result, operand);
        removed.push(id);
    }
    Ok(Changed::from(graph.remove_nodes(&removed) > 0))
}

/// What a node does.
enum Verdict {
    /// Its first result is this operand.
    Passes(usize),
    /// Something else.
    Computes,
    /// It would be an identity, but for this.
    Declined(&'static str),
}

impl From<bool> for Verdict {
    fn from(passes: bool) -> Verdict {
        if passes { Verdict::Passes(0) } else { Verdict::Computes }
    }
}

struct Site<'a> {
    graph: &'a Graph,
    dims: &'a HashMap<ValueId, Vec<Dim>>,
    id: NodeId,
    node: &'a Node,
    opset: i64,
}

impl<'a> Site<'a> {
    fn new(graph: &'a Graph, inferred: &'a Inferred, id: NodeId, opset: i64) -> Site<'a> {
        Site {
            graph,
            dims: &inferred.dims,
            id,
            node: &graph[id],
            opset,
        }
    }

    fn shape(&self, operand: usize) -> Option<&'a [Dim]> {
        let graph: &'a Graph = self.graph;
        graph[self.node.input(operand)?].ty.as_ref()?.shape.as_deref()
    }

    /// Has the result surely the type of this operand?
    fn keeps_type(&self, operand: usize) -> bool {
        let cx = InferCx::new(self.graph, self.id, self.dims, self.opset);
        let result = ops::lookup(&self.node.op).and_then(|entry| (entry.infer)(&cx).ok()?.into_iter().next()?);
        let (Some(result), Some(operand)) = (result, cx.ty(operand)) else {
            return false;
        };
        let (Some(new), Some(old)) = (&result.shape, &operand.shape) else {
            return false;
        };
        result.dtype == operand.dtype && new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new.same_as(old))
    }

    /// Is this operand a constant of which every element is `value`?
    fn is_all(&self, operand: usize, value: f64) -> bool {
        let tensor = self.graph.constant_input(self.id, operand);
        #[allow(clippy::float_cmp)]
        tensor
            .and_then(Tensor::to_f64)
            .is_some_and(|values| values.iter().all(|&v| v == value))
    }

    /// Is operand `neutral` all `value`, and has the result the type of operand `kept`?
    fn is_neutral(&self, kept: usize, neutral: usize, value: f64) -> bool {
        self.keeps_type(kept) && self.is_all(neutral, value)
    }
}

fn kept_operand(site: &Site) -> Verdict {
    let node = site.node;
    if !node.op.in_default_domain() {
        return Verdict::Computes;
    }
    match node.op.name.as_ref() {
        "Identity" => Verdict::Passes(0),
        "Dropout" => dropout(site),
        "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" => site.keeps_type(0).into(),
        "Transpose" => node
            .ints("perm")
            .is_some_and(|perm| (0..).zip(perm).all(|(axis, &from)| axis == from))
            .into(),
        "Pad" => pads_nothing(site).into(),
        "Slice" => takes_all(site).into(),
        "Concat" | "Sum" | "Max" | "Min" | "Mean" => (node.inputs().len() == 1).into(),
        "Add" if site.is_neutral(0, 1, 0.0) => Verdict::Passes(0),
        "Add" if site.is_neutral(1, 0, 0.0) => Verdict::Passes(1),
        "Sub" => site.is_neutral(0, 1, 0.0).into(),
        "Mul" if site.is_neutral(0, 1, 1.0) => Verdict::Passes(0),
        "Mul" if site.is_neutral(1, 0, 1.0) => Verdict::Passes(1),
        "Div" => site.is_neutral(0, 1, 1.0).into(),
        _ => Verdict::Computes,
    }
}

fn dropout(site: &Site) -> Verdict {
    let trains = site.node.input(2).is_some() && !site.is_all(2, 0.0);
    let mask = site.node.output(1);
    let mask_used = mask.is_some_and(|mask| !site.graph[mask].uses().is_empty() || site.graph.outputs().contains(&mask));
    match (trains, mask_used) {
        (true, _) => Verdict::Declined("it may train: its mode is not the constant false"),
        (_, true) => Verdict::Declined("its mask is used"),
        _ => Verdict::Passes(0),
    }
}

fn pads_nothing(site: &Site) -> bool {
    match site.node.ints("pads") {
        Some(pads) => pads.iter().all(|&pad| pad == 0),
        None => site.is_all(1, 0.0),
    }
}

fn takes_all(site: &Site) -> bool {
    let Some(shape) = site.shape(0) else { return false };
    let ints = |operand: usize| site.graph.constant_input(site.id, operand)?.to_i64();
    let Ok(Some(picks)) = Picks::of(site.node, ints, shape.len()) else {
        return false;
    };
    (0..).zip(shape).all(|(axis, dim)| match (picks.on(axis), dim) {
        (None, _) => true,
        (Some(pick), Dim::Known(extent)) => pick.span(*extent).is_all_of(*extent),
        (Some(pick), _) => pick.takes_all(),
    })
}
