//! What `quantize` would do with a model: the same passes, without data, training or output.
//!
//! Multiply-adds count the products that are summed up in Conv, ConvTranspose, Gemm and MatMul: for each element of the result (of a
//! ConvTranspose: of its input) the weights that go into it. They are those of one sample: shapes are taken at batch 1, or divided by a
//! batch that is fixed. Whether gradients reach a layer is asked of differentiation itself, over the loss that training would take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::analyze::{InputShapes, fold_of, is_quantizing_op, patterns, weighted};
use lsqc_passes::ir::{Dim, Graph, Model, Node, NodeId, Tensor, TensorType, ValueId};
use lsqc_passes::ops::{self, Gradient, Quant, Quantizer};
use lsqc_passes::pipelines;
use lsqc_passes::quantize::{self, BlockLayer, Layer, Sign, Sites};
use lsqc_passes::target::Target;
use lsqc_passes::train::{Loss, LossPlan, with_gradient};

use crate::compiler::Compiler;
use crate::config::{LossChoice, Placement, Quantization};
use crate::confirm::{self, Confirming, Shown};
use crate::data::{Dataset, FileDigest, Synthetic};
use crate::engine::{LoadOptions, TractEngine};
use crate::model_file::{self, ModelFile};
use crate::report::{
    self, BatchNormFold, Confirmation, Extent, GradientReach, InspectedLayer, InspectedProduct, Inspection, JoinLayer,
    MultiplyAdds, Note, OpCount, Port, QuantizedAlready, Tool, Unquantized,
};
use crate::run::{Plain, batch, fixed_batch, model_inputs, place, plain};
use crate::shapes;
use crate::summary;

/// What passes begin a note with where something stays in floats.
const STAYS: &str = "stays in floats: ";

/// Looks at the model of `asked`; `loss` is what training would minimise. With a runtime to confirm, what it makes of the layers is compared.
///
/// # Errors
/// Bad input where the model cannot be read; usage for patterns that match nothing.
pub fn inspect(
    asked: &Quantization,
    loss: LossChoice,
    confirming: Option<&Confirming>,
    compiler: &mut Compiler,
) -> Result<Inspection> {
    let ModelFile { model, warnings, bytes } = model_file::read(&asked.model)?;
    let mut inspection = Inspection {
        schema_version: report::SCHEMA_VERSION,
        tool: Tool::this(),
        model: summary::file(&FileDigest::of(&asked.model, &bytes)),
        opset: model.opset(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
        inputs: ports(&model.graph, &fed(&model.graph)),
        outputs: ports(&model.graph, model.graph.outputs()),
        quantized_already: quantized_already(&model),
        refusal: None,
        bits: asked.bits.to_string(),
        target: asked.deployment.target.name.to_owned(),
        placement: asked.deployment.placement_word(),
        confirmation: None,
        layers: Vec::new(),
        products: Vec::new(),
        joins: Vec::new(),
        not_quantized: Vec::new(),
        batch_norms: Vec::new(),
        multiply_adds: MultiplyAdds {
            total: None,
            quantized: None,
            share: None,
            unknown_because: None,
        },
        gradients_unknown: None,
        notes: Vec::new(),
    };
    if inspection.quantized_already.is_some() {
        let because = "the model is quantized already".to_owned();
        inspection.multiply_adds.unknown_because = Some(because.clone());
        inspection.refusal = Some(because.clone());
        inspection.gradients_unknown = Some(because);
        return Ok(inspection);
    }
    let Plain { mut float, settled, .. } = plain(asked, model, compiler)?;
    inspection.warnings.extend(settled);
    let kept = match batch::freed(&float, compiler) {
        Ok(freed) => {
            inspection.warnings.extend(batch::opened(&float));
            float = freed.model;
            Ok(None)
        }
        Err(why) => why.map_or(Ok(None), |why| batch::kept(&float, &why)),
    };
    let refused = kept.map(|warning| inspection.warnings.extend(warning)).err();
    // From here on errors are findings, and findings name no paths.
    compiler.file = None;
    inspection.outputs = ports(&float.graph, float.graph.outputs());
    complete(&mut float);
    let placed = place(asked, compiler, &mut float);
    let unplaced = placed.as_ref().err().map(ToString::to_string);
    inspection.refusal = refused.map(|error| error.to_string()).or(unplaced);
    let (initial, sites) = placed.unwrap_or_else(|_| (float.clone(), Sites::default()));

    let shapes = sample_shapes(&float);
    let work = work(&float, shapes.as_ref().ok(), compiler);
    let reach = match &shapes {
        Err(why) => Err(why.clone()),
        Ok(shapes) => reached(&initial, &float, shapes, loss, compiler),
    };
    inspection.gradients_unknown = reach.as_ref().err().cloned();
    let found = Found {
        float: &float.graph,
        initial: &initial.graph,
        sites: &sites,
        placement: asked.deployment.placement,
        target: asked.deployment.target,
        work: &work,
        reach: reach.as_ref().ok(),
    };
    let blocks = sites.blocks.iter().filter_map(|layer| found.block_layer(layer));
    inspection.layers = sites
        .layers
        .iter()
        .filter_map(|layer| found.layer(layer))
        .chain(blocks)
        .collect();
    inspection.products = sites.products.iter().map(|product| found.product(product)).collect();
    if let (Some(confirming), None) = (confirming, &inspection.refusal) {
        let Shown { floats, hidden } = confirm::confirm(asked, (&float, &initial, &sites), confirming, compiler)?;
        let layers = inspection.layers.iter().map(|layer| (&layer.name, layer.integers));
        let products = inspection.products.iter().map(|product| (&product.name, product.integers));
        let differ = layers
            .chain(products)
            .filter(|(name, integers)| *integers == floats.contains(*name) && !hidden.contains(*name));
        let seen = (sites.layers.len() + sites.products.len()).saturating_sub(hidden.len());
        inspection.confirmation = Some(Confirmation {
            engine: confirming.runtime.version(),
            integer_layers: seen.saturating_sub(floats.len()) as u64,
            differ: differ.map(|(name, _)| name.clone()).collect(),
            hidden: hidden.into_iter().collect(),
        });
    }
    inspection.joins = found.joins();
    inspection.not_quantized = found.not_quantized(compiler);
    inspection.batch_norms = found.batch_norms();
    inspection.multiply_adds = found.multiply_adds(shapes.err());
    let other = compiler.notes.iter().filter(|note| !note.reason.starts_with(STAYS));
    let of_gradients = |note: &&lsqc_passes::pass::Note| note.pass != "differentiate";
    inspection.notes = other
        .filter(of_gradients)
        .map(|note| Note {
            pass: note.pass.to_owned(),
            node: Some(note.node.clone()),
            message: note.reason.clone(),
        })
        .collect();
    Ok(inspection)
}

fn fed(graph: &Graph) -> Vec<ValueId> {
    let fed = graph.inputs().iter().copied();
    fed.filter(|&input| graph[input].initial().is_none()).collect()
}

fn ports(graph: &Graph, values: &[ValueId]) -> Vec<Port> {
    let extent = |dim: &Dim| match dim {
        Dim::Known(extent) => Extent::Number(*extent as u64),
        other => Extent::Symbol(other.to_string()),
    };
    let port = |&value: &ValueId| {
        let ty = graph[value].ty.as_ref();
        Port {
            name: graph[value].name().to_owned(),
            dtype: ty.map(|ty| ty.dtype.to_string()),
            shape: ty
                .and_then(|ty| ty.shape.as_ref())
                .map(|shape| shape.iter().map(extent).collect()),
        }
    };
    values.iter().map(port).collect()
}

/// Ops that only quantized models have.
fn quantized_already(model: &Model) -> Option<QuantizedAlready> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, node) in model.graph.nodes() {
        let name = node.op.name.as_ref();
        if is_quantizing_op(name) {
            *counts.entry(name).or_default() += 1;
        }
    }
    let count = |(op, count): (&str, u64)| OpCount {
        op: op.to_owned(),
        count,
    };
    let metadata = |key: &str| {
        let found = model.metadata.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.to_string())
    };
    (!counts.is_empty()).then(|| QuantizedAlready {
        ops: counts.into_iter().map(count).collect(),
        bits: metadata("lsqc.bits"),
        placement: metadata("lsqc.placement"),
        lsqc_version: metadata("lsqc.version"),
    })
}

/// Types what inference left open, as a run does, but on noise and the embedded engine. Where that cannot be, they stay open.
fn complete(float: &mut Model) {
    const SAMPLES: usize = 3;
    let Ok(noise) = Synthetic::new(&model_inputs(float), SAMPLES, 0, 0) else {
        return;
    };
    let noise: Arc<dyn Dataset> = Arc::new(noise);
    let mut typed = float.clone();
    if shapes::complete(&mut typed, &noise, &TractEngine, &LoadOptions::plain()).is_ok() {
        *float = typed;
    }
}

/// The shape of each input for one sample, or why it is unknown.
fn sample_shapes(float: &Model) -> Result<BTreeMap<String, Vec<usize>>, String> {
    let graph = &float.graph;
    let mut shapes = BTreeMap::new();
    for input in fed(graph) {
        let name = graph[input].name();
        let dims = graph[input].ty.as_ref().and_then(|ty| ty.shape.as_ref());
        let dims = dims.ok_or_else(|| format!("the shape of input '{name}' is unknown"))?;
        let open: Vec<String> = dims
            .iter()
            .skip(1)
            .filter(|dim| dim.known().is_none())
            .map(ToString::to_string)
            .collect();
        if !open.is_empty() {
            return Err(format!(
                "input '{name}' is symbolic in more than the batch: {}",
                open.join(", ")
            ));
        }
        let batch = dims.first().map(|batch| batch.known().unwrap_or(1));
        let rest = dims.iter().skip(1).filter_map(Dim::known);
        shapes.insert(name.to_owned(), batch.into_iter().chain(rest).collect());
    }
    Ok(shapes)
}

/// The multiply-adds of each node that has some, by its name; `None` where its shape is unknown.
fn work(float: &Model, shapes: Option<&BTreeMap<String, Vec<usize>>>, compiler: &mut Compiler) -> BTreeMap<String, Option<u64>> {
    let mut fixed = float.clone();
    let known = shapes.is_some_and(|shapes| {
        let shapes = InputShapes(shapes.clone());
        compiler.run(pipelines::FIX, &mut fixed, |cx| cx.set(shapes), |_| ()).is_ok()
    });
    let batch = fixed_batch(float).map_or(1, |(_, extent)| extent as u64).max(1);
    let graph = &float.graph;
    let mut work = BTreeMap::new();
    for (_, node) in graph.nodes() {
        if !ops::is_weighted(node) && !node.op.is("ConvTranspose") {
            continue;
        }
        let shape = |value: Option<ValueId>| -> Option<Vec<u64>> {
            let value = value?;
            if let Some(tensor) = graph[value].initial() {
                return Some(tensor.shape().iter().map(|&extent| extent as u64).collect());
            }
            let value = fixed.graph.find(graph[value].name()).filter(|_| known)?;
            let shape = fixed.graph[value].ty.as_ref().and_then(TensorType::known_shape)?;
            Some(shape.into_iter().map(|extent| extent as u64).collect())
        };
        let count = products(node, &shape).map(|count| count / batch);
        work.insert(node.label(graph).into_owned(), count);
    }
    work
}

fn products(node: &Node, shape: &impl Fn(Option<ValueId>) -> Option<Vec<u64>>) -> Option<u64> {
    let size = |shape: &[u64]| shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    let (x, w, y) = (shape(node.input(0)), shape(node.input(1))?, shape(node.output(0)));
    let (elements, channels) = match node.op.name.as_ref() {
        "Conv" => (y?, *w.first()?),
        "ConvTranspose" => (x?, *w.first()?),
        "Gemm" if node.int("transB").unwrap_or(0) != 0 => (y?, *w.first()?),
        "Gemm" => (y?, *w.last()?),
        // The summed extent is the last of the first operand.
        _ => return size(&y?)?.checked_mul(*x?.last()?),
    };
    size(&elements)?.checked_mul(size(&w)?.checked_div(channels)?)
}

/// Whether a gradient reaches each stored weight, by its name.
type Reach = BTreeMap<String, GradientReach>;

fn reached(
    initial: &Model,
    float: &Model,
    shapes: &BTreeMap<String, Vec<usize>>,
    loss: LossChoice,
    compiler: &mut Compiler,
) -> Result<Reach, String> {
    let mut fix = |model: &Model| -> Result<Model> {
        let mut model = model.clone();
        let shapes = InputShapes(shapes.clone());
        compiler.run(pipelines::FIX, &mut model, |cx| cx.set(shapes), |_| ())?;
        Ok(model)
    };
    let said = |error: anyhow::Error| error.to_string();
    let (mut model, teacher) = (fix(initial).map_err(said)?, fix(float).map_err(said)?);
    let forward = model.graph.clone();
    // Distillation takes every output, and with labels beside it no other.
    let loss = if loss == LossChoice::Ce {
        Loss::CrossEntropy
    } else {
        Loss::Distillation
    };
    let plan = LossPlan {
        loss,
        teacher: Some(teacher),
        outputs: BTreeMap::new(),
    };
    compiler
        .run(pipelines::GRADIENTS, &mut model, |cx| cx.set(plan), |_| ())
        .map_err(said)?;
    let graph = &model.graph;
    let has = with_gradient(graph);
    let mut reach = Reach::new();
    for id in forward.node_ids() {
        let Ok(op) = weighted(&forward, id) else { continue };
        let name = forward[op.weight].name();
        let reaches = has.contains(name);
        let reason = (!reaches).then(|| barrier(&forward, id));
        reach.insert(name.to_owned(), GradientReach { reaches, reason });
    }
    Ok(reach)
}

/// What stops gradients between the outputs and this node.
fn barrier(graph: &Graph, from: NodeId) -> String {
    let mut pending = vec![from];
    let mut seen = BTreeSet::from([from]);
    let (mut stops, mut flat) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = pending.pop() {
        let node = &graph[id];
        let at = || format!("{} ({})", node.label(graph), node.op);
        match ops::lookup(&node.op).map(|entry| entry.gradient) {
            Some(Gradient::Unsupported(why)) => stops.insert(format!("gradients stop at {}: {why}", at())),
            None => stops.insert(format!("gradients stop at {}: lsqc does not know this op", at())),
            Some(Gradient::Zero) => flat.insert(format!("the gradient of {} is 0", at())),
            Some(Gradient::Rule(_)) => {
                let uses = node.outputs().iter().flatten().flat_map(|&output| graph[output].uses());
                pending.extend(uses.map(|used| used.node).filter(|&next| seen.insert(next)));
                continue;
            }
        };
    }
    let why: Vec<String> = if stops.is_empty() { flat } else { stops }.into_iter().collect();
    if why.is_empty() {
        return "no output that training looks at depends on it".to_owned();
    }
    why.join("; ")
}

/// What was found out, to be put into words.
struct Found<'a> {
    float: &'a Graph,
    initial: &'a Graph,
    sites: &'a Sites,
    placement: Placement,
    target: &'static Target,
    work: &'a BTreeMap<String, Option<u64>>,
    reach: Option<&'a Reach>,
}

impl Found<'_> {
    fn is_quantized(&self, name: &str) -> bool {
        let mut quantized = self.sites.weights().map(|(layer, ..)| layer);
        quantized.any(|layer| layer == name) || self.sites.products.iter().any(|product| product.name == name)
    }

    /// Are its weight and its input quantized, so that a BatchNormalization folds into it?
    fn takes_levels(&self, name: &str) -> bool {
        self.sites.layers.iter().any(|layer| layer.name == name)
    }

    fn gradient(&self, id: NodeId) -> Option<GradientReach> {
        let op = weighted(self.float, id).ok()?;
        self.reach?.get(self.float[op.weight].name()).cloned()
    }

    fn layer(&self, layer: &Layer) -> Option<InspectedLayer> {
        let float_reason = self.float_reason(&layer.name);
        Some(InspectedLayer {
            op: layer.op.clone(),
            weight_bits: byte(layer.bits.weight),
            activation_bits: Some(byte(layer.bits.activation)),
            first: layer.first,
            last: layer.last,
            integers: float_reason.is_none(),
            float_reason,
            ..self.measured(&layer.name)?
        })
    }

    fn block_layer(&self, layer: &BlockLayer) -> Option<InspectedLayer> {
        Some(InspectedLayer {
            op: layer.op.clone(),
            weight_bits: byte(layer.bits),
            block: Some(layer.block as u64),
            first: layer.first,
            last: layer.last,
            float_reason: Some("weights alone are quantized: its input and its sums are floats".to_owned()),
            ..self.measured(&layer.name)?
        })
    }

    /// What the float network says of a layer; nothing is said of bits.
    fn measured(&self, name: &str) -> Option<InspectedLayer> {
        let id = self.float.node_ids().find(|&id| self.float[id].label(self.float) == name)?;
        let op = weighted(self.float, id).ok()?;
        let stored = |value: ValueId| self.float[value].initial();
        let weight = stored(op.weight)?;
        let bias = op.bias_index.and_then(|index| stored(self.float[id].input(index)?));
        Some(InspectedLayer {
            name: name.to_owned(),
            op: String::new(),
            weight_bits: 0,
            activation_bits: None,
            block: None,
            first: false,
            last: false,
            weight_shape: weight.shape().iter().map(|&extent| extent as u64).collect(),
            parameters: (weight.len() + bias.map_or(0, Tensor::len)) as u64,
            multiply_adds: self.work.get(name).copied().flatten(),
            gradient: self.gradient(id),
            integers: false,
            float_reason: None,
        })
    }

    fn product(&self, product: &quantize::Product) -> InspectedProduct {
        let float_reason = self.float_reason(&product.name).or_else(|| self.unsigned_second(product));
        InspectedProduct {
            name: product.name.clone(),
            op: product.op.clone(),
            bits: u8::try_from(product.bits).unwrap_or(u8::MAX),
            multiply_adds: self.work.get(&product.name).copied().flatten(),
            integers: float_reason.is_none(),
            float_reason,
        }
    }

    /// Why the target computes a quantized layer in floats.
    fn float_reason(&self, layer: &str) -> Option<String> {
        let mut placed = self.initial.nodes().filter(|(_, node)| node.label(self.initial) == layer);
        placed
            .next()
            .and_then(|(id, _)| quantize::fits(self.initial, id, self.target).err())
    }

    /// Why the target computes a product in floats whose second operand is to have no sign.
    fn unsigned_second(&self, product: &quantize::Product) -> Option<String> {
        let mut sites = self.sites.activations.iter();
        let second = sites.find(|site| site.value == product.inputs[1])?;
        let wide = second.asked == Some(Sign::Unsigned) && second.bits > self.target.widest_unsigned_second;
        wide.then(|| {
            format!(
                "{} bits without a sign are asked for, which {} does not take in integers as a second operand",
                second.bits, self.target.title
            )
        })
    }

    /// The bits of a join's inputs where all of them are quantized; looked at behind ops that only move values.
    fn join_bits(&self, node: &Node) -> Option<u8> {
        let graph = self.initial;
        let mut most = 0;
        for &input in node.inputs().iter().flatten() {
            let mut value = input;
            let (_, quantizer) = loop {
                let (id, before) = graph.producer(value)?;
                if ops::quant(before) != Quant::Transparent {
                    break (id, before);
                }
                value = before.input(0)?;
            };
            if !quantizer.op.is_lsqc("FakeQuantize") {
                return None;
            }
            most = most.max(Quantizer::of(quantizer).ok()?.range.bits);
        }
        u8::try_from(most).ok().filter(|&bits| bits > 0)
    }

    fn joins(&self) -> Vec<JoinLayer> {
        let joins = self.initial.nodes().filter(|(_, node)| may_join(node));
        joins
            .filter_map(|(_, node)| {
                Some(JoinLayer {
                    name: node.label(self.initial).into_owned(),
                    op: node.op.to_string(),
                    bits: self.join_bits(node)?,
                })
            })
            .collect()
    }

    /// Ops that compute floats and stay there. Those that move or clamp values go with what is around them.
    fn not_quantized(&self, compiler: &Compiler) -> Vec<Unquantized> {
        let joined: BTreeSet<String> = self.joins().into_iter().map(|join| join.name).collect();
        let mut sites = Vec::new();
        // Of a function that is spelled in several ops the last one stands for all.
        let inner: BTreeSet<NodeId> = patterns(self.float)
            .into_iter()
            .flat_map(|pattern| pattern.nodes.into_iter().filter(move |&node| node != pattern.last))
            .collect();
        for (id, node) in self.float.nodes() {
            if inner.contains(&id) {
                continue;
            }
            let name = node.label(self.float).into_owned();
            let float = node.outputs().iter().flatten().any(|&output| {
                let ty = self.float[output].ty.as_ref();
                ty.is_none_or(|ty| ty.dtype.is_float())
            });
            let noted = || {
                let of_node = compiler.notes.iter().filter(|note| note.node == name);
                let reason = of_node.filter_map(|note| note.reason.strip_prefix(STAYS)).next();
                reason.map(str::to_owned)
            };
            let table = || match ops::lookup(&node.op) {
                Some(_) => "it is computed in floats (docs/ops.md)".to_owned(),
                None => "lsqc does not know this op".to_owned(),
            };
            let reason = match ops::quant(node) {
                Quant::Transparent | Quant::Clamp => continue,
                _ if !float => continue,
                Quant::Weighted { .. } if self.is_quantized(&name) => continue,
                Quant::Weighted { .. } => noted().unwrap_or_else(table),
                _ if node.op.is("BatchNormalization") => match self.norm(id) {
                    Ok(_) => continue,
                    Err(why) => why,
                },
                Quant::Joins | Quant::Inputs if joined.contains(&name) || self.is_bias(node) => continue,
                Quant::Joins if noted().is_some() => noted().unwrap_or_else(table),
                Quant::Joins if self.constant_operand(node) => "one of its operands is a constant".to_owned(),
                Quant::Joins | Quant::Inputs if !self.sites.blocks.is_empty() => "weights alone are quantized".to_owned(),
                Quant::Joins | Quant::Inputs if self.placement == Placement::Paper => {
                    "the placement \"paper\" leaves it in floats".to_owned()
                }
                Quant::Joins | Quant::Inputs => "what it takes or what takes it is in floats".to_owned(),
                Quant::Float => noted().unwrap_or_else(table),
            };
            sites.push(Unquantized {
                multiply_adds: self.work.get(&name).copied().flatten(),
                gradient: self.gradient(id),
                op: node.op.to_string(),
                name,
                reason,
            });
        }
        sites
    }

    fn constant_operand(&self, node: &Node) -> bool {
        node.inputs()
            .iter()
            .flatten()
            .any(|&input| self.float[input].initial().is_some())
    }

    /// Does it add a constant to the result of a quantized layer? Then it is that layer's bias.
    fn is_bias(&self, node: &Node) -> bool {
        let of_layer = |&input: &ValueId| {
            let before = self.float.producer(input);
            before.is_some_and(|(_, before)| self.is_quantized(&before.label(self.float)))
        };
        node.op.is("Add") && self.constant_operand(node) && node.inputs().iter().flatten().any(of_layer)
    }

    /// The layer that a BatchNormalization folds into, or why it stays.
    fn norm(&self, id: NodeId) -> Result<String, String> {
        let fold = fold_of(self.float, id)?;
        let layer = self.float[fold.op.node].label(self.float).into_owned();
        if self.takes_levels(&layer) {
            Ok(layer)
        } else if self.is_quantized(&layer) {
            Err("weights alone are quantized: the op before it is computed in floats".to_owned())
        } else {
            Err("the op before it stays in floats".to_owned())
        }
    }

    fn batch_norms(&self) -> Vec<BatchNormFold> {
        let norms = self.float.nodes().filter(|(_, node)| node.op.is("BatchNormalization"));
        norms
            .map(|(id, node)| {
                let fold = self.norm(id);
                BatchNormFold {
                    name: node.label(self.float).into_owned(),
                    reason: fold.as_ref().err().cloned(),
                    folds_into: fold.ok(),
                }
            })
            .collect()
    }

    #[allow(clippy::cast_precision_loss)]
    fn multiply_adds(&self, unknown: Option<String>) -> MultiplyAdds {
        let sum = |wanted: &dyn Fn(&str) -> bool| {
            let counts = self.work.iter().filter(|(name, _)| wanted(name)).map(|(_, count)| *count);
            counts.sum::<Option<u64>>()
        };
        let (total, quantized) = (sum(&|_| true), sum(&|name| self.is_quantized(name)));
        let open = self.work.iter().find(|(_, count)| count.is_none());
        let because = open.map(|(name, _)| unknown.unwrap_or_else(|| format!("a shape of '{name}' is unknown")));
        let share = total.zip(quantized).filter(|(total, _)| *total > 0);
        MultiplyAdds {
            total,
            quantized,
            share: share.map(|(total, quantized)| quantized as f64 / total as f64),
            unknown_because: because,
        }
    }
}

fn byte(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

/// Could the node be computed on quantized inputs?
fn may_join(node: &Node) -> bool {
    matches!(ops::quant(node), Quant::Joins | Quant::Inputs)
}
