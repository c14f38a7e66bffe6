//! The proof where weights alone are quantized, in blocks. Products are computed in floats, so there are no levels of activations to compare. Three
//! things are held instead:
//!
//! - **weights**: what the bytes of the lowered file stand for equals v̂ of the fake-quantized graph, bit for bit;
//! - **results**: of each layer, from the very input that it has in the lowered graph, within the bound on single-precision sums. For K products
//!   summed in any order |y − x·v̂| ≤ γ·(|x|·|v̂| + |b|), γ = n·u/(1 − n·u), u = 2⁻²⁴ (Higham, *Accuracy and Stability of Numerical Algorithms*,
//!   section 3.1); n = K + [`BESIDE`]. Both sides are such sums, so they may be 2γ apart. A runtime that rounds activations to 8 bits is
//!   several times farther off;
//! - **outputs**: of the whole network, within [`OUTPUTS`] of the largest value. All that is not a layer is the same float ops on both sides, so
//!   this finds what a layer's own comparison cannot: one that is wired wrongly.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Attribute, DType, Graph, Model, Op, Tensor, ValueId};
use lsqc_passes::lower::{BAKE_WEIGHTS, BlockSite, Order, UNPACK_BLOCKS};
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pipelines;

use crate::compiler::{Compiler, load, load_as_is};
use crate::data::{Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions, QdqFusion, Tensors};
use crate::interrupt;
use crate::terminal::Terminal;

/// Roundings beside the K products and their sums: the bias's, and, where a kernel multiplies the sum of a block by its step, that of the step and
/// of the weight that is multiplied before.
const BESIDE: f64 = 4.0;
/// The unit roundoff of single precision.
const ROUNDOFF: f64 = 5.960_464_477_539_063e-8;
/// What two runs of one float network may differ by, in parts of an output's largest value: rounding differences of 1e-7 that many layers enlarge.
/// A layer that is wired wrongly is off by its own size.
pub const OUTPUTS: f64 = 1e-3;
/// Samples in one batch of the proof.
const BATCH: usize = 16;

/// What was compared at one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComparedBlocks {
    /// The layer.
    pub layer: String,
    /// Weights compared.
    pub weights: u64,
    /// Weights that differ.
    pub different: u64,
    /// Results compared.
    pub results: u64,
    /// Results beyond the bound.
    pub beyond: u64,
    /// The largest difference of a result, in parts of its bound.
    pub largest: f64,
}

/// The proof of a whole network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockProof {
    /// One entry for each layer, in graph order.
    pub layers: Vec<ComparedBlocks>,
    /// The largest difference of an output, in parts of that output's largest value.
    pub outputs: f64,
    /// Samples that went through.
    pub samples: usize,
}

impl BlockProof {
    /// What does not hold, in words.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        let broken = |layer: &&ComparedBlocks| layer.different + layer.beyond > 0;
        if let Some(of) = self.layers.iter().find(broken) {
            return Some(format!(
                "at '{}' {} of {} weights differ, and {} of {} results are beyond the bound of single-precision sums",
                of.layer, of.different, of.weights, of.beyond, of.results
            ));
        }
        // Not a number is beyond everything.
        if self.outputs <= OUTPUTS {
            return None;
        }
        Some(format!(
            "an output differs by {:.1e} of its largest value, more than {OUTPUTS:.0e}",
            self.outputs
        ))
    }
}

/// The two graphs to compare.
pub struct BlockPair<'a> {
    /// The fake-quantized graph, with `lsqc.FakeQuantize` on weights alone.
    pub fake: &'a Model,
    /// The lowered graph.
    pub lowered: &'a Model,
    /// Where the lowered graph's blocks are.
    pub sites: &'a [BlockSite],
}

/// Proves `pair` on the first `samples` of `data`.
///
/// # Errors
/// If a pass or an engine fails. What differs is no error here: the caller reads [`BlockProof::broken`].
pub fn prove(
    compiler: &mut Compiler,
    pair: &BlockPair,
    data: &Arc<dyn Dataset>,
    samples: usize,
    engine: &dyn Engine,
    options: &LoadOptions,
    terminal: &Terminal,
) -> Result<BlockProof> {
    let (mut baked, mut spread) = (pair.fake.clone(), pair.lowered.clone());
    compiler.run(&[&BAKE_WEIGHTS], &mut baked, |_| (), |_| ())?;
    compiler.run(&[&UNPACK_BLOCKS], &mut spread, |_| (), |_| ())?;
    let layers = pair
        .sites
        .iter()
        .map(|site| Reference::of(&baked.graph, site))
        .collect::<Result<Vec<_>>>()?;
    let mut proof = BlockProof::default();
    for (site, layer) in pair.sites.iter().zip(&layers) {
        let stored = weight_of(&spread.graph, &site.product)?;
        let stored = if site.order == Order::Same && site.axis == 1 {
            transposed(stored)
        } else {
            stored.clone()
        };
        proof.layers.push(ComparedBlocks {
            layer: site.layer.clone(),
            weights: layer.weight.len() as u64,
            different: differences(&layer.weight, &stored),
            ..ComparedBlocks::default()
        });
    }

    let outputs: Vec<String> = float_outputs(&pair.fake.graph);
    let mut lowered = pair.lowered.clone();
    for site in pair.sites {
        for name in [&site.input, &site.result] {
            let value = lowered
                .graph
                .find(name)
                .with_context(|| format!("'{name}' is not in the lowered graph"))?;
            // An input is known as it is fed.
            if !lowered.graph.inputs().contains(&value) {
                lowered.graph.add_output(value);
            }
        }
    }
    let deployed = LoadOptions {
        qdq_fusion: QdqFusion::Default,
        ..options.clone()
    };
    let mut lowered = load(engine, &lowered, &deployed)?;
    let mut fake = pair.fake.clone();
    compiler.run(pipelines::SPELL, &mut fake, |_| (), |_| ())?;
    let mut fake = load_as_is(engine, &fake, OwnOps::Refuse, options)?;
    let mut reference = load_as_is(engine, &reference(pair.fake, &layers)?, OwnOps::Refuse, options)?;

    let batches = EvalBatches::new(Arc::clone(data), BATCH, Some(samples));
    let (samples, size) = (batches.samples(), batches.size());
    proof.samples = samples;
    let progress = terminal.progress("prove", samples as u64);
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let real = Real {
            samples: batch.samples.len(),
            of: size,
        };
        let batch = batch.padded(real.of)?;
        let found = lowered.run(&batch.inputs)?;
        let value = |name: &str| {
            found
                .get(name)
                .or_else(|| batch.inputs.get(name))
                .with_context(|| format!("'{name}' was not computed"))
        };
        let mut feeds = Tensors::new();
        for layer in &layers {
            feeds.insert(fed(&layer.input), value(&layer.input)?.clone());
        }
        let expected = reference.run(&feeds)?;
        for (index, (layer, row)) in layers.iter().zip(&mut proof.layers).enumerate() {
            let of = |name: String| expected.get(&name).with_context(|| format!("'{name}' was not computed"));
            let sides = (value(&layer.result)?, of(result(index))?, of(magnitude(index))?);
            compare(row, sides, layer.gamma(), real)?;
        }
        let whole = fake.run(&batch.inputs)?;
        for name in &outputs {
            let expected = whole.get(name).with_context(|| format!("'{name}' was not computed"))?;
            proof.outputs = worst(proof.outputs, relative(value(name)?, expected, real));
        }
        progress.advance(real.samples as u64, "");
    }
    Ok(proof)
}

/// One layer of the fake-quantized graph: y = x·v̂ + b.
struct Reference {
    input: String,
    result: String,
    /// v̂, `[K, N]`.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Reference {
    fn of(baked: &Graph, site: &BlockSite) -> Result<Reference> {
        let weight = weight_of(baked, &site.result)?;
        let node = baked.find(&site.result).and_then(|result| baked.producer(result));
        let (_, node) = node.with_context(|| format!("nothing makes '{}'", site.result))?;
        let bias = node
            .input(2)
            .map(|bias| baked[bias].constant().cloned().context("a bias is constant"));
        Ok(Reference {
            input: site.input.clone(),
            result: site.result.clone(),
            weight: if site.axis == 1 { transposed(weight) } else { weight.clone() },
            bias: bias.transpose()?,
        })
    }

    /// 2γ, for both sides.
    #[allow(clippy::cast_precision_loss)]
    fn gamma(&self) -> f64 {
        let inputs = self.weight.shape().first().copied().unwrap_or(0);
        let n = (inputs as f64 + BESIDE) * ROUNDOFF;
        2.0 * n / (1.0 - n).max(f64::EPSILON)
    }
}

/// The constant weight of the product that makes `value`.
fn weight_of<'g>(graph: &'g Graph, value: &str) -> Result<&'g Tensor> {
    let product = graph.find(value).and_then(|value| graph[value].producer());
    let product = product.with_context(|| format!("nothing makes '{value}'"))?;
    graph
        .constant_input(product, 1)
        .with_context(|| format!("the weight before '{value}' is not constant"))
}

/// A matrix of floats with its axes exchanged.
fn transposed(matrix: &Tensor) -> Tensor {
    let (&[rows, columns], Some(values)) = (matrix.shape(), matrix.values::<f32>()) else {
        return matrix.clone();
    };
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    Tensor::new(&[columns, rows], places.filter_map(|at| values.get(at).copied()).collect())
}

/// Elements that are not the same bits.
fn differences(a: &Tensor, b: &Tensor) -> u64 {
    let (Some(a_values), Some(b_values), true) = (a.values::<f32>(), b.values::<f32>(), a.shape() == b.shape()) else {
        return a.len().max(b.len()) as u64;
    };
    let pairs = a_values.iter().zip(b_values.iter());
    pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count() as u64
}

fn fed(value: &str) -> String {
    format!("taken/{value}")
}

fn result(layer: usize) -> String {
    format!("result/{layer}")
}

fn magnitude(layer: usize) -> String {
    format!("magnitude/{layer}")
}

/// A graph that takes what each layer takes, and gives x·v̂ + b and |x|·|v̂| + |b| of each.
fn reference(fake: &Model, layers: &[Reference]) -> Result<Model> {
    let mut graph = Graph::new("reference");
    let mut inputs: BTreeMap<String, ValueId> = BTreeMap::new();
    let mut outputs = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let x = if let Some(&x) = inputs.get(&layer.input) {
            x
        } else {
            let ty = fake.graph.find(&layer.input).and_then(|value| fake.graph[value].ty.clone());
            let x = graph.add_input(&fed(&layer.input), ty, None)?;
            inputs.insert(layer.input.clone(), x);
            x
        };
        let magnitudes = graph.insert(Op::onnx("Abs"), &[x], no_attributes(), "magnitudes");
        for (operand, base, sizes) in [(x, result(index), false), (magnitudes, magnitude(index), true)] {
            let of = |tensor: &Tensor| if sizes { absolute(tensor) } else { tensor.clone() };
            let weight = graph.add_constant("weight", of(&layer.weight));
            let mut y = graph.insert(Op::onnx("MatMul"), &[operand, weight], no_attributes(), "product");
            if let Some(bias) = &layer.bias {
                let bias = graph.add_constant("bias", of(bias));
                y = graph.insert(Op::onnx("Add"), &[y, bias], no_attributes(), "sum");
            }
            graph.rename(y, &base);
            outputs.push(y);
        }
    }
    graph.set_outputs(outputs);
    Ok(Model { graph, ..fake.clone() })
}

fn no_attributes() -> Vec<Attribute> {
    Vec::new()
}

fn absolute(tensor: &Tensor) -> Tensor {
    let values = tensor.to_f32().unwrap_or_default();
    Tensor::new(tensor.shape(), values.iter().map(|value| value.abs()).collect())
}

/// The outputs that are floats.
fn float_outputs(graph: &Graph) -> Vec<String> {
    let outputs = graph.outputs().iter();
    let floats = outputs.filter(|&&output| graph[output].ty.as_ref().is_none_or(|ty| ty.dtype == DType::F32));
    floats.map(|&output| graph[output].name().to_owned()).collect()
}

/// How many samples of a batch are real; the others fill it up.
#[derive(Clone, Copy)]
struct Real {
    samples: usize,
    of: usize,
}

impl Real {
    /// The elements that belong to real samples; all, where samples do not lie one after another.
    fn part(self, tensor: &Tensor) -> usize {
        let batch = self.of.max(1);
        if tensor.len().is_multiple_of(batch) {
            tensor.len() / batch * self.samples.min(batch)
        } else {
            tensor.len()
        }
    }
}

fn compare(row: &mut ComparedBlocks, sides: (&Tensor, &Tensor, &Tensor), gamma: f64, real: Real) -> Result<()> {
    let (found, expected, magnitude) = sides;
    let floats = |tensor: &Tensor| tensor.to_f32().context("results are floats");
    let part = real.part(found);
    let (found, expected, magnitude) = (floats(found)?, floats(expected)?, floats(magnitude)?);
    anyhow::ensure!(
        found.len() == expected.len() && found.len() == magnitude.len(),
        "the result of '{}' has another shape",
        row.layer
    );
    for ((&a, &b), &size) in found.iter().zip(&expected).zip(&magnitude).take(part) {
        // Below the smallest normal number rounding errors are absolute.
        let allowed = gamma * f64::from(size) + f64::from(f32::MIN_POSITIVE);
        let share = (f64::from(a) - f64::from(b)).abs() / allowed;
        row.largest = worst(row.largest, share);
        row.beyond += u64::from(!share.le(&1.0));
    }
    row.results += part as u64;
    Ok(())
}

/// The larger one; what is not a number is larger than all.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The largest difference in parts of the largest value.
fn relative(found: &Tensor, expected: &Tensor, real: Real) -> f64 {
    let part = real.part(expected);
    let (Some(a), Some(b)) = (found.to_f32(), expected.to_f32()) else {
        return 0.0;
    };
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let pairs = || a.iter().zip(&b).take(part).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let size = pairs().map(|(_, b)| b.abs()).fold(0.0, worst);
    let difference = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, worst);
    if difference == 0.0 {
        0.0
    } else {
        difference / size.max(f64::from(f32::MIN_POSITIVE))
    }
}
