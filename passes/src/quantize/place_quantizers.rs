//! Places fake quantizers for the runtime that will run the file, before training.
//!
//! Every weighted op takes a quantized weight and a quantized input. Beyond the paper, adds, concats and average pools between quantized
//! layers take 8-bit inputs, so that a runtime can compute them in integers (placement `q8`; with `shared` an add takes the levels that the
//! op beside it takes). A value is quantized once, to the most bits that any of its users asks for; a user of fewer bits takes a second
//! quantizer behind the first, because a runtime fuses an op only into one quantizer. Ops that only move values (reshapes, MaxPool) are
//! looked through: the quantizer stands before them. All inputs of a concat share one step. The rules that differ by runtime are in
//! [`crate::target`].
//!
//! Where a runtime's convolutions give levels alone, one whose result goes to ops in floats (a SiLU, a HardSwish, a Resize) has an 8-bit
//! quantizer behind it, or it would run in floats itself. Not so the last layers, nor with placement `paper`: what the network gives is not
//! made coarser than the paper has it.
//!
//! Products of two activations take quantized operands too: [`super::products`].
//! Where weights alone are quantized, [`weight_only`] places instead.
//!
//! It refuses, with a note: weighted ops whose weight is no constant float matrix or filter, layers that the user leaves float, fixed
//! transforms that the user does not name, and joins with a float neighbour.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::name_others::name_others;
use super::products::{ChosenProduct, choose_products, described, name_patterns};
use super::results::{Leaves, leaves};
use super::{Bits, EDGE_BITS, Granularity, Layer, LayerRule, QuantizePlan, Sign, Site, Sites, weight_only};
use crate::analyze::{QUANTIZED_ALREADY, Weighted, fixed_transform, is_quantizing_op, product, surely_non_negative, weighted};
use crate::ir::{DType, Graph, Model, Node, NodeId, Op, Tensor, Use, ValueId};
use crate::ops::{self, Quant, QuantRange, Quantizer};
use crate::pass::{Changed, Pass, PassCx, PassError};
use crate::target::{Placement, Requantizing, Results};

/// The pass.
pub static PLACE_QUANTIZERS: Pass = Pass {
    name: "place-quantizers",
    about: "insert fake quantizers where the target runtime will quantize",
    needs: "weights are constants; types are inferred",
    gives: "lsqc.FakeQuantize on every weight and activation that is quantized, its step still unset",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let plan: QuantizePlan = cx.get();
    let graph = &mut model.graph;
    if let Some(plan) = &plan.weight_only {
        return weight_only::place(graph, plan, cx);
    }
    let edges = edge_layers(graph);
    let layers = choose_layers(graph, &plan, &edges, cx);
    let both: HashSet<NodeId> = edges.0.union(&edges.1).copied().collect();
    let products = choose_products(graph, &plan, &both, cx);
    name_patterns(graph, cx);
    name_others(graph, cx);
    let nothing = layers.is_empty() && products.is_empty();
    if nothing && is_quantized(graph) {
        return Err(
            PassError::new("the model is quantized already, and nothing in it is left to quantize")
                .help("give the float model that it was made from"),
        );
    }
    if nothing {
        return Err(
            PassError::new("there is nothing to quantize: no Conv, Gemm or MatMul with a constant float weight").help(
                "`lsqc opt MODEL --emit text` shows the ops of the model; layers set to \"float\" in lsqc.toml are left out",
            ),
        );
    }
    let joins = choose_joins(graph, &layers, &products, plan.placement);
    let mut placer = Placer::new(graph, &layers, &products, &joins, &plan);
    placer.demand_all();
    let mut sites = placer.place();
    sites.products = described(graph, &products, |value| {
        graph[quantizer_before(graph, value)].name().to_owned()
    });
    for layer in &layers {
        let weight = quantize_weight(graph, layer, plan.granularity);
        let node = &graph[layer.op.node];
        let input = node
            .input(0)
            .map(|input| graph[quantizer_before(graph, input)].name().to_owned())
            .unwrap_or_default();
        sites.layers.push(Layer {
            name: node.label(graph).into_owned(),
            op: node.op.to_string(),
            bits: layer.bits,
            first: layer.first,
            last: layer.last,
            weight: graph[weight].name().to_owned(),
            input,
        });
    }
    cx.set(sites);
    Ok(Changed::Yes)
}

/// Has another tool, or lsqc itself, quantized the model or a part of it?
fn is_quantized(graph: &Graph) -> bool {
    graph
        .node_ids()
        .any(|id| is_quantizing_op(&graph[id].op.name) || weighted(graph, id) == Err(Some(QUANTIZED_ALREADY)))
}

struct Chosen {
    op: Weighted,
    bits: Bits,
    first: bool,
    last: bool,
}

/// The weighted ops that are quantized. First and last layers have 8 bits, unless the user says otherwise of one by name.
fn choose_layers(
    graph: &Graph,
    plan: &QuantizePlan,
    (firsts, lasts): &(HashSet<NodeId>, HashSet<NodeId>),
    cx: &mut PassCx,
) -> Vec<Chosen> {
    let mut chosen = Vec::new();
    for id in graph.node_ids() {
        let op = match weighted(graph, id) {
            Ok(op) => op,
            Err(None) => continue,
            // A product of two activations, which has its own word.
            Err(Some(_)) if product(graph, id) != Err(None) => continue,
            Err(Some(why)) => {
                cx.note(graph, id, format!("stays in floats: {why}"));
                continue;
            }
        };
        let (first, last) = (firsts.contains(&id), lasts.contains(&id));
        let edge = Bits {
            weight: EDGE_BITS,
            activation: EDGE_BITS,
            sign: plan.bits.sign.filter(|_| plan.bits.activation == EDGE_BITS),
        };
        let default = if first || last { edge } else { plan.bits };
        let rule = (plan.rule)(&graph[id].label(graph));
        let fixed = fixed_transform(graph, &op).filter(|_| rule.is_none());
        match (rule, fixed) {
            (Some(LayerRule::Float), _) => cx.note(graph, id, "stays in floats: the configuration says so"),
            (_, Some(what)) => cx.note(graph, id, format!("stays in floats: its weight is {what}")),
            (rule, None) => {
                let bits = match rule {
                    Some(LayerRule::Quantize(bits)) => bits,
                    _ => default,
                };
                let bits = limited(bits, plan, |most| {
                    cx.note(graph, id, format!("its weight takes {most} bits: sums of more leave 16 bits"));
                });
                chosen.push(Chosen { op, bits, first, last });
            }
        }
    }
    chosen
}

/// The bits of a layer within what the runtime's sums hold; `said` hears of a weight that takes fewer.
fn limited(bits: Bits, plan: &QuantizePlan, said: impl FnOnce(u32)) -> Bits {
    let Some(limit) = &plan.most_weight_bits else { return bits };
    let signs = match bits.sign {
        Some(sign) => vec![sign],
        None => vec![Sign::Signed, Sign::Unsigned],
    };
    let ranges = signs.into_iter().map(|sign| QuantRange {
        bits: bits.activation,
        signed: sign == Sign::Signed,
    });
    let most = ranges.map(|range| limit(range)).min().unwrap_or(EDGE_BITS);
    if most >= bits.weight {
        return bits;
    }
    said(most);
    Bits { weight: most, ..bits }
}

/// Weighted ops with no weighted op before them on some path from an input, and those with none after them on some path to an output. Fixed
/// transforms are no layers here: what takes a spectrum is the first.
pub(super) fn edge_layers(graph: &Graph) -> (HashSet<NodeId>, HashSet<NodeId>) {
    let is_fixed = |id: NodeId| weighted(graph, id).is_ok_and(|op| fixed_transform(graph, &op).is_some());
    let is_weighted = |id: NodeId| matches!(ops::quant(&graph[id]), Quant::Weighted { .. }) && !is_fixed(id);
    let (mut firsts, mut lasts) = (HashSet::new(), HashSet::new());
    let mut fresh: HashSet<ValueId> = graph
        .inputs()
        .iter()
        .copied()
        .filter(|&input| graph[input].initial().is_none())
        .collect();
    for (id, node) in graph.nodes() {
        if !node.inputs().iter().flatten().any(|input| fresh.contains(input)) {
            continue;
        }
        if is_weighted(id) {
            firsts.insert(id);
        } else {
            fresh.extend(node.outputs().iter().flatten());
        }
    }
    let mut open: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    for (id, node) in graph.nodes().rev() {
        if !node.outputs().iter().flatten().any(|output| open.contains(output)) {
            continue;
        }
        if is_weighted(id) {
            lasts.insert(id);
        } else {
            open.extend(node.inputs().iter().flatten());
        }
    }
    (firsts, lasts)
}

/// Adds, concats and average pools that can be computed in integers: some input comes from a quantized layer or another join, and every
/// use of the result, seen through clamps and moves, is a quantized layer or another join.
fn choose_joins(graph: &Graph, layers: &[Chosen], products: &[ChosenProduct], placement: Placement) -> HashSet<NodeId> {
    if placement == Placement::Paper {
        return HashSet::new();
    }
    let quantized = Quantized {
        layers: layers.iter().map(|layer| layer.op.node).collect(),
        products: products.iter().map(|product| product.node).collect(),
    };
    let is_data = |value: &ValueId| graph[*value].initial().is_none();
    let is_float = |value: &ValueId| graph[*value].ty.as_ref().is_some_and(|ty| ty.dtype == DType::F32);
    let candidate = |id: NodeId| {
        let node = &graph[id];
        matches!(ops::quant(node), Quant::Joins | Quant::Inputs)
            && node.inputs().iter().flatten().all(|v| is_data(v) && is_float(v))
    };
    let mut joins: HashSet<NodeId> = graph.node_ids().filter(|&id| candidate(id)).collect();
    loop {
        let good = |id: &NodeId| {
            let node = &graph[*id];
            let from = node
                .inputs()
                .iter()
                .flatten()
                .any(|&input| comes_from(graph, input, &quantized, &joins));
            let result = node.output(0);
            from && result.is_some_and(|result| goes_to(graph, result, &quantized, &joins))
        };
        let kept: HashSet<NodeId> = joins.iter().copied().filter(good).collect();
        if kept.len() == joins.len() {
            return kept;
        }
        joins = kept;
    }
}

/// Ops that take quantized operands whatever is around them.
struct Quantized {
    /// With a weight: they quantize operand 0.
    layers: HashSet<NodeId>,
    /// Of two activations: they quantize both.
    products: HashSet<NodeId>,
}

impl Quantized {
    fn takes(&self, node: NodeId, index: usize) -> bool {
        self.products.contains(&node) || index == 0 && self.layers.contains(&node)
    }
}

fn comes_from(graph: &Graph, mut value: ValueId, quantized: &Quantized, joins: &HashSet<NodeId>) -> bool {
    loop {
        let Some((id, node)) = graph.producer(value) else {
            return false;
        };
        if quantized.takes(id, 0) || joins.contains(&id) {
            return true;
        }
        let passes = matches!(ops::quant(node), Quant::Transparent | Quant::Clamp) || node.op.is("BatchNormalization");
        let Some(input) = node.input(0).filter(|_| passes) else {
            return false;
        };
        value = input;
    }
}

fn goes_to(graph: &Graph, value: ValueId, quantized: &Quantized, joins: &HashSet<NodeId>) -> bool {
    let mut pending = vec![value];
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop() {
        if graph.outputs().contains(&value) || graph[value].uses().is_empty() {
            return false;
        }
        for used in graph[value].uses() {
            let node = &graph[used.node];
            if used.is_capture() {
                return false;
            }
            if quantized.takes(used.node, used.index) || joins.contains(&used.node) {
                continue;
            }
            match (ops::quant(node), node.output(0)) {
                (Quant::Transparent | Quant::Clamp, Some(output)) if used.index == 0 => {
                    if seen.insert(output) {
                        pending.push(output);
                    }
                }
                _ => return false,
            }
        }
    }
    true
}

/// A place where a quantized value is taken: operand `1` of node `0`.
type Edge = (NodeId, usize);

/// Who asks for a value at some bits.
#[derive(Clone, Default)]
struct Demand {
    edges: BTreeSet<Edge>,
    /// Is a layer among them, rather than joins alone?
    by_layer: bool,
    /// The sign that a user asks for; a sign holds what none does.
    sign: Option<Sign>,
}

impl Demand {
    fn merge(&mut self, other: Demand) {
        self.edges.extend(other.edges);
        self.by_layer |= other.by_layer;
        self.sign = match (self.sign, other.sign) {
            (Some(Sign::Signed), _) | (_, Some(Sign::Signed)) => Some(Sign::Signed),
            (sign, None) | (None, sign) => sign,
            (Some(Sign::Unsigned), Some(Sign::Unsigned)) => Some(Sign::Unsigned),
        };
    }
}

struct Placer<'a> {
    graph: &'a mut Graph,
    layers: &'a [Chosen],
    products: &'a [ChosenProduct],
    joins: &'a HashSet<NodeId>,
    placement: Placement,
    requantizing: Requantizing,
    results: Results,
    quantized: HashMap<NodeId, u32>,
    /// For each value to quantize: the bits that are asked for, and by whom.
    demands: BTreeMap<ValueId, BTreeMap<u32, Demand>>,
    /// Values whose quantizers share a step, by concat.
    concats: BTreeMap<ValueId, NodeId>,
}

impl<'a> Placer<'a> {
    fn new(
        graph: &'a mut Graph,
        layers: &'a [Chosen],
        products: &'a [ChosenProduct],
        joins: &'a HashSet<NodeId>,
        plan: &QuantizePlan,
    ) -> Placer<'a> {
        let quantized = layers.iter().map(|layer| (layer.op.node, layer.bits.activation)).collect();
        Placer {
            graph,
            layers,
            products,
            joins,
            placement: plan.placement,
            requantizing: plan.requantizing,
            results: plan.results,
            quantized,
            demands: BTreeMap::new(),
            concats: BTreeMap::new(),
        }
    }

    fn demand_all(&mut self) {
        for layer in self.layers {
            let demand = Demand {
                edges: BTreeSet::new(),
                by_layer: true,
                sign: layer.bits.sign,
            };
            self.demand((layer.op.node, 0), layer.bits.activation, demand);
        }
        for product in self.products {
            for index in 0..2 {
                let demand = Demand {
                    edges: BTreeSet::new(),
                    by_layer: true,
                    sign: product.sign,
                };
                self.demand((product.node, index), product.bits, demand);
            }
        }
        let joins: Vec<NodeId> = self.graph.node_ids().filter(|id| self.joins.contains(id)).collect();
        for &join in &joins {
            let is_concat = self.graph[join].op.is("Concat");
            let in_floats = self.in_floats(join);
            for index in 0..self.graph[join].inputs().len() {
                if in_floats == Some(index) {
                    continue;
                }
                let Some(root) = self.demand_join((join, index)) else {
                    continue;
                };
                if is_concat {
                    self.concats.entry(root).or_insert(join);
                }
            }
        }
        if self.results == Results::OneQuantizer && self.placement != Placement::Paper {
            self.demand_results();
        }
    }

    /// Asks for 8 bits where ops in floats take what a convolution gives; of their own, quantized ops have asked before.
    fn demand_results(&mut self) {
        for layer in self.layers.iter().filter(|layer| !layer.last) {
            let Leaves::Value(value) = leaves(self.graph, layer.op.node) else {
                continue;
            };
            let uses = self.graph[value].uses();
            if uses.iter().any(Use::is_capture) {
                continue;
            }
            let asked = self.demands.get(&value);
            let is_asked = |edge: &Edge| asked.is_some_and(|asked| asked.values().any(|demand| demand.edges.contains(edge)));
            let others: BTreeSet<Edge> = uses
                .iter()
                .map(|used| (used.node, used.index))
                .filter(|edge| !is_asked(edge))
                .collect();
            if others.is_empty() {
                continue;
            }
            let demand = Demand {
                edges: others,
                ..Demand::default()
            };
            self.demands
                .entry(value)
                .or_default()
                .entry(EDGE_BITS)
                .or_default()
                .merge(demand);
        }
    }

    /// Asks for `bits` on what `edge` takes; gives the value that is quantized for it.
    fn demand(&mut self, edge: Edge, bits: u32, mut demand: Demand) -> Option<ValueId> {
        let (edge, root) = self.root(edge)?;
        demand.edges.insert(edge);
        self.demands.entry(root).or_default().entry(bits).or_default().merge(demand);
        Some(root)
    }

    fn demand_join(&mut self, edge: Edge) -> Option<ValueId> {
        let (_, root) = self.root(edge)?;
        let is_add = self.graph[edge.0].op.is("Add");
        let beside = self.demands.get(&root).and_then(|asked| asked.keys().next_back().copied());
        let bits = match (self.placement, beside) {
            (Placement::Shared, Some(bits)) if is_add => bits,
            _ => EDGE_BITS,
        };
        self.demand(edge, bits, Demand::default())
    }

    /// With [`Placement::Shortcut`], the operand of an Add that stays in floats: the first that a layer makes for it alone. Of two such the
    /// second is the shortcut, as in a residual block with a convolution on its shortcut.
    fn in_floats(&self, join: NodeId) -> Option<usize> {
        let node = &self.graph[join];
        if self.placement != Placement::Shortcut || !node.op.is("Add") {
            return None;
        }
        (0..node.inputs().len()).find(|&index| node.input(index).is_some_and(|value| self.is_made_for_one(value)))
    }

    /// Is the value the result of a quantized layer, seen through its BatchNormalization, and taken once?
    fn is_made_for_one(&self, mut value: ValueId) -> bool {
        loop {
            let Some((id, node)) = self.graph.producer(value) else {
                return false;
            };
            if self.graph.only_use(value).is_none() {
                return false;
            }
            if self.quantized.contains_key(&id) {
                return true;
            }
            let Some(input) = node.input(0).filter(|_| node.op.is("BatchNormalization")) else {
                return false;
            };
            value = input;
        }
    }

    /// What is asked for one value, the most bits first: one demand for each quantizer.
    fn in_order(&self, asked: BTreeMap<u32, Demand>) -> Vec<(u32, Demand)> {
        if self.requantizing == Requantizing::Chained {
            return asked.into_iter().rev().collect();
        }
        let of_layers = asked
            .iter()
            .filter(|(_, demand)| demand.by_layer)
            .map(|(&bits, _)| bits)
            .max();
        let bits = of_layers.or_else(|| asked.keys().max().copied());
        let mut all = Demand::default();
        asked.into_values().for_each(|demand| all.merge(demand));
        bits.map(|bits| (bits, all)).into_iter().collect()
    }

    /// Looks through ops that only move values, as long as all that they give is taken by quantized ops.
    fn root(&self, edge: Edge) -> Option<(Edge, ValueId)> {
        let (mut edge, mut value) = (edge, self.graph[edge.0].input(edge.1)?);
        let looks_through = self.placement != Placement::Paper;
        loop {
            if !looks_through {
                break;
            }
            let Some((id, node)) = self.graph.producer(value) else { break };
            let Some(input) = node.input(0) else { break };
            if ops::quant(node) != Quant::Transparent || self.graph[input].initial().is_some() || !self.all_quantized(value) {
                break;
            }
            (edge, value) = ((id, 0), input);
        }
        if self.graph[value].initial().is_some() {
            return None;
        }
        Some((edge, value))
    }

    fn all_quantized(&self, value: ValueId) -> bool {
        let taken = |used: &Use| {
            let is_layer = used.index == 0 && self.quantized.contains_key(&used.node)
                || self.products.iter().any(|product| product.node == used.node);
            let node = &self.graph[used.node];
            let moved = ops::quant(node) == Quant::Transparent && used.index == 0;
            !used.is_capture()
                && (is_layer || self.joins.contains(&used.node) || moved && node.output(0).is_some_and(|v| self.all_quantized(v)))
        };
        !self.graph.outputs().contains(&value) && self.graph[value].uses().iter().all(taken)
    }

    fn place(mut self) -> Sites {
        let mut sites = Sites::default();
        let mut shared: HashMap<NodeId, (ValueId, String, u32)> = HashMap::new();
        let demands = std::mem::take(&mut self.demands);
        let made: HashMap<ValueId, usize> = self
            .graph
            .node_ids()
            .enumerate()
            .flat_map(|(at, id)| self.graph[id].outputs().iter().flatten().map(move |&v| (v, at)))
            .collect();
        let mut roots: Vec<(ValueId, BTreeMap<u32, Demand>)> = demands.into_iter().collect();
        roots.sort_by_key(|(root, _)| made.get(root).map_or(0, |at| at + 1));
        for (root, asked) in roots {
            let source = self.graph[root].name().to_owned();
            let non_negative = surely_non_negative(self.graph, root);
            let mut last = root;
            for (rank, (bits, demand)) in self.in_order(asked).into_iter().enumerate() {
                let of_concat = if rank == 0 { self.concats.get(&root).copied() } else { None };
                let group = of_concat
                    .and_then(|concat| shared.get(&concat).cloned())
                    .filter(|(_, _, of)| *of == bits);
                let (value, step) = self.quantizer(last, &source, bits, group.as_ref().map(|(step, ..)| *step));
                let name = self.graph[value].name().to_owned();
                if let (Some(concat), None) = (of_concat, &group) {
                    shared.insert(concat, (step, name.clone(), bits));
                }
                for (node, index) in demand.edges {
                    self.graph.set_input(node, index, Some(value));
                }
                let shares = group.map(|(_, with, _)| with);
                sites.activations.push(Site {
                    value: name,
                    source: source.clone(),
                    bits,
                    non_negative,
                    asked: demand.sign,
                    shares,
                });
                if self.placement != Placement::Paper {
                    last = value;
                }
            }
        }
        sites
    }

    fn quantizer(&mut self, input: ValueId, source: &str, bits: u32, step: Option<ValueId>) -> (ValueId, ValueId) {
        let base = format!("{source}/q{bits}");
        let step = step.unwrap_or_else(|| self.graph.add_constant(&format!("{base}/step"), Tensor::scalar(f32::NAN)));
        let range = QuantRange { bits, signed: true };
        (fake_quantize(self.graph, input, step, quantizer_of(range, None), &base), step)
    }
}

/// The quantized value that a layer takes, before the ops that only move it.
fn quantizer_before(graph: &Graph, mut value: ValueId) -> ValueId {
    while let Some((_, node)) = graph.producer(value) {
        let moved = node.input(0).filter(|_| ops::quant(node) == Quant::Transparent);
        let Some(input) = moved else { break };
        value = input;
    }
    value
}

/// Adds a fake quantizer named after its result.
pub(super) fn fake_quantize(graph: &mut Graph, x: ValueId, step: ValueId, quantizer: Quantizer, base: &str) -> ValueId {
    let value = graph.insert(Op::lsqc("FakeQuantize"), &[x, step], quantizer.attributes(), base);
    graph[value].ty = graph[x].ty.clone();
    if let Some(node) = graph[value].producer() {
        graph[node].name = graph[value].name().to_owned();
    }
    value
}

/// A quantizer whose gradient scale is not set yet.
fn quantizer_of(range: QuantRange, axis: Option<i64>) -> Quantizer {
    Quantizer {
        range,
        axis,
        block: None,
        gain: 1.0,
    }
}

/// The quantized weight of a layer; layers that share a weight and its bits share the quantizer.
fn quantize_weight(graph: &mut Graph, layer: &Chosen, granularity: Granularity) -> ValueId {
    let Weighted {
        node,
        weight,
        weight_index,
        axis,
        ..
    } = layer.op;
    let range = QuantRange {
        bits: layer.bits.weight,
        signed: true,
    };
    let channels = match granularity {
        Granularity::PerTensor => None,
        Granularity::PerChannel => graph[weight].initial().and_then(|tensor| tensor.shape().get(axis).copied()),
    };
    let axis = channels.and(i64::try_from(axis).ok());
    let base = format!("{}/q{}", graph[weight].name(), layer.bits.weight);
    let present = graph.find(&base).filter(|&value| {
        // Another layer may have its output channels on another axis of the same weight.
        let of = |node: &Node| node.op.is_lsqc("FakeQuantize") && node.int("axis") == axis;
        graph.producer(value).is_some_and(|(_, node)| of(node))
    });
    let quantized = present.unwrap_or_else(|| {
        let unset = Tensor::full(channels.as_slice(), f32::NAN);
        let step = graph.add_constant(&format!("{base}/step"), unset);
        fake_quantize(graph, weight, step, quantizer_of(range, axis), &base)
    });
    graph.set_input(node, weight_index, Some(quantized));
    quantized
}
