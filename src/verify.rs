//! The proof: every quantized layer of the lowered graph against the fake-quantized one, in levels.
//!
//! The lowered graph runs once, with the tensor of levels behind every quantizer as an extra output. The fake-quantized graph, cut at its
//! quantizers, then computes each layer in floats from those very levels; what it would round is rounded here and compared. A mismatch is a
//! difference of more than one level, or of one level where the value before rounding, computed in double precision, is farther than
//! [`TIE`] from a half, or than single precision is seen to lie from double there. One-level differences nearer than that are ties: float32
//! rounding, counted and shown.
//!
//! A layer with no quantizer behind it (a classifier) is compared on the grid of its int32 accumulator.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::analyze::{product, weighted};
use lsqc_passes::ir::{Graph, Model, NodeId, Tensor};
use lsqc_passes::lower::{
    CUT_AT_QUANTIZERS, Form, LEVELS_IN, LevelSite, WIDEN_TO_DOUBLE, Widening, accumulator_grid, product_unit,
};
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pipelines;

use crate::compiler::{Compiler, load, load_as_is};
use crate::data::{Batch, Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions, QdqFusion, Session, Tensors, TractEngine};
use crate::interrupt;
use crate::terminal::Terminal;

/// How near to a half, in levels, single precision may round either way: right lowerings were seen to differ within 1e-4 level of a half in
/// float64; this is twice that.
pub const TIE: f64 = 2e-4;
/// Where a layer is a long computation in floats (a normalization, a logarithm), single precision itself is farther from the true value than
/// [`TIE`]: by how much is seen between the single and the double computation, and the file's own may lie as far on the other side.
const SPREAD: f64 = 2.0;
/// However coarse the computation, more than this from a half is no tie.
const WIDEST_TIE: f64 = 0.05;
/// Samples in one batch of the proof: every level of the network is held at once.
const BATCH: usize = 16;
/// Two single-precision numbers this many units in the last place apart may stand for one accumulator: product and conversion round once
/// each, on both sides.
const ACCUMULATOR_ULPS: f32 = 4.0 * f32::EPSILON;

/// What was compared at one quantizer, or at one layer's accumulator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// The quantized value, or the layer's result.
    pub value: String,
    /// Levels compared.
    pub levels: u64,
    /// One-level differences at a half.
    pub ties: u64,
    /// Any other difference.
    pub mismatches: u64,
    /// Values that the quantizer clips.
    pub clipped: u64,
    /// Values below 0 among them, where the quantizer has no level below 0.
    pub below: u64,
    /// Sum of (v̂ − v)².
    pub squared_error: f64,
}

/// The proof of a whole network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proof {
    /// One entry for each quantizer in graph order, then one for each layer compared at its accumulator.
    pub sites: Vec<Compared>,
    /// Samples that went through.
    pub samples: usize,
}

impl Proof {
    /// The first site that does not hold.
    #[must_use]
    pub fn broken(&self) -> Option<&Compared> {
        self.sites.iter().find(|site| site.mismatches > 0)
    }

    /// Ties over all sites.
    #[must_use]
    pub fn ties(&self) -> u64 {
        self.sites.iter().map(|site| site.ties).sum()
    }

    /// Levels over all sites.
    #[must_use]
    pub fn levels(&self) -> u64 {
        self.sites.iter().map(|site| site.levels).sum()
    }
}

/// The layer that a comparison proves, in `graph` with its fake quantizers: the node that computes what the quantizer rounds, seen through
/// the clamps and the BatchNormalization that are part of it; the node itself for an accumulator; the quantizer's own name where no node
/// computes anything before it.
#[must_use]
pub fn layer_of(graph: &Graph, compared: &str) -> String {
    let Some(start) = graph.find(compared) else {
        return compared.to_owned();
    };
    let mut value = start;
    loop {
        let Some((_, node)) = graph.producer(value) else {
            return compared.to_owned();
        };
        let is_own = value == start && node.op.is_lsqc("FakeQuantize");
        let is_part = node.op.is("Relu") || node.op.is("Clip") || node.op.is("BatchNormalization");
        match node.input(0) {
            Some(input) if is_own || is_part => value = input,
            _ if node.op.is_lsqc("FakeQuantize") => return compared.to_owned(),
            _ => return node.label(graph).into_owned(),
        }
    }
}

/// The two graphs to compare.
pub struct Pair<'a> {
    /// The fake-quantized graph: folded, snapped, with `lsqc.FakeQuantize`.
    pub fake: &'a Model,
    /// The lowered graph.
    pub lowered: &'a Model,
    /// Where the lowered graph's levels are.
    pub sites: &'a [LevelSite],
    /// How the lowered graph is written.
    pub form: Form,
}

/// A layer that is compared at its accumulator.
struct Accumulator {
    value: String,
    /// The value of one unit, for each output channel or for all.
    grid: Vec<f32>,
    /// The axis of output channels.
    axis: usize,
}

/// Proves `pair` on the first `samples` of `data`.
///
/// # Errors
/// If a pass or an engine fails. A mismatch is no error here: the caller reads [`Proof::broken`].
pub fn prove(
    compiler: &mut Compiler,
    pair: &Pair,
    data: &Arc<dyn Dataset>,
    samples: usize,
    engine: &dyn Engine,
    options: &LoadOptions,
    terminal: &Terminal,
) -> Result<Proof> {
    let accumulators = accumulators(&pair.fake.graph, pair.form);
    let pieces = pieces(compiler, pair.fake, &accumulators)?;
    let mut lowered = pair.lowered.clone();
    let wanted: Vec<_> = pair
        .sites
        .iter()
        .map(|site| &site.levels)
        .chain(accumulators.iter().map(|a| &a.value))
        .collect();
    let wanted = wanted.into_iter().map(|name| {
        lowered
            .graph
            .find(name)
            .with_context(|| format!("'{name}' is not in the lowered graph"))
    });
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    for value in wanted {
        lowered.graph.add_output(value);
    }
    let integer = LoadOptions {
        qdq_fusion: QdqFusion::Default,
        ..options.clone()
    };
    let mut lowered = load(engine, &lowered, &integer)?;
    let mut float = load_as_is(engine, &pieces, OwnOps::Refuse, options)?;
    let mut referee = Referee::new(&pieces, options.threads);

    let batches = EvalBatches::new(Arc::clone(data), BATCH, Some(samples));
    let (samples, size) = (batches.samples(), batches.size());
    let mut proof = Proof {
        samples,
        ..Proof::default()
    };
    proof.sites.extend(pair.sites.iter().map(|site| Compared {
        value: site.value.clone(),
        ..Compared::default()
    }));
    proof.sites.extend(accumulators.iter().map(|layer| Compared {
        value: layer.value.clone(),
        ..Compared::default()
    }));
    let progress = terminal.progress("prove", samples as u64);
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let real = batch.samples.len();
        let batch = batch.padded(size)?;
        let integers = lowered.run(&batch.inputs)?;
        let feeds = feeds(&pieces, &batch, &integers, pair.sites, Precision::Single)?;
        let floats = float.run(&feeds)?;
        let mut doubts: Vec<(usize, Vec<usize>)> = Vec::new();
        for (index, site) in pair.sites.iter().enumerate() {
            let source = source_of(site, &feeds, &floats)?;
            let levels = codes(site, tensor(&integers, &site.levels)?)?;
            let part = real_part(source, real, size);
            let Some(row) = proof.sites.get_mut(index) else { continue };
            let near = compare(
                row,
                site,
                source
                    .values::<f32>()
                    .context("sources are floats")?
                    .get(..part)
                    .unwrap_or(&[]),
                &levels,
            );
            if !near.is_empty() {
                doubts.push((index, near));
            }
        }
        if !doubts.is_empty() {
            let doubted = doubts.iter().filter_map(|(index, _)| pair.sites.get(*index));
            let exact = referee.values(doubted, compiler, |doubles| {
                self::feeds(doubles, &batch, &integers, pair.sites, Precision::Double)
            })?;
            for (index, near) in doubts {
                let (Some(site), Some(row)) = (pair.sites.get(index), proof.sites.get_mut(index)) else {
                    continue;
                };
                let noise = noise(site, source_of(site, &feeds, &floats)?, exact.get(&site.source));
                let tie = (SPREAD * noise).clamp(TIE, WIDEST_TIE);
                let value = |at: usize| match exact.get(&site.source).and_then(Tensor::values::<f64>) {
                    Some(values) => values.get(at).copied(),
                    // Fed levels are exact; without a referee the single-precision value must itself lie at a half.
                    None => source_of(site, &feeds, &floats)
                        .ok()?
                        .values::<f32>()?
                        .get(at)
                        .copied()
                        .map(f64::from),
                };
                for at in near {
                    let Some(value) = value(at) else { continue };
                    if distance_from_half(value / f64::from(site.step)) <= tie {
                        row.ties += 1
                    } else {
                        row.mismatches += 1
                    }
                }
            }
        }
        for (layer, row) in accumulators.iter().zip(proof.sites.iter_mut().skip(pair.sites.len())) {
            compare_accumulators(
                row,
                layer,
                tensor(&integers, &layer.value)?,
                tensor(&floats, &layer.value)?,
                (real, size),
            )?;
        }
        progress.advance(real as u64, "");
    }
    Ok(proof)
}

fn tensor<'t>(tensors: &'t Tensors, name: &str) -> Result<&'t Tensor> {
    tensors.get(name).with_context(|| format!("'{name}' was not computed"))
}

/// Computes values before rounding in double precision, on the embedded engine: all ops where it has them in doubles, else the sums alone.
/// Where it has neither, the single-precision values judge.
struct Referee<'a> {
    pieces: &'a Model,
    threads: usize,
    /// What was asked for so far: the graph computes that and nothing else, so that no other part of the network can refuse it.
    sources: BTreeSet<String>,
    loaded: Option<(Model, Box<dyn Session>)>,
    widenings: &'static [Widening],
}

impl<'a> Referee<'a> {
    fn new(pieces: &'a Model, threads: usize) -> Referee<'a> {
        Referee {
            pieces,
            threads,
            sources: BTreeSet::new(),
            loaded: None,
            widenings: &[Widening::Whole, Widening::Sums],
        }
    }

    /// The values that the quantizers of `sites` round, by name; fewer where no engine computes them.
    fn values<'s>(
        &mut self,
        sites: impl Iterator<Item = &'s LevelSite>,
        compiler: &mut Compiler,
        feeds: impl Fn(&Model) -> Result<Tensors>,
    ) -> Result<Tensors> {
        for site in sites {
            if self.sources.insert(site.source.clone()) {
                self.loaded = None;
            }
        }
        while let Some((&widening, narrower)) = self.widenings.split_first() {
            let tried = match &mut self.loaded {
                Some((doubles, session)) => session.run(&feeds(doubles)?),
                None => self.load(widening, compiler).and_then(|(doubles, mut session)| {
                    let values = session.run(&feeds(&doubles)?)?;
                    self.loaded = Some((doubles, session));
                    Ok(values)
                }),
            };
            match tried {
                Ok(values) => return Ok(values),
                Err(_) => (self.loaded, self.widenings) = (None, narrower),
            }
        }
        Ok(Tensors::new())
    }

    fn load(&self, widening: Widening, compiler: &mut Compiler) -> Result<(Model, Box<dyn Session>)> {
        let mut doubles = self.pieces.clone();
        let wanted = self.sources.iter().filter_map(|source| doubles.graph.find(source));
        let wanted: Vec<_> = wanted.filter(|&value| doubles.graph[value].producer().is_some()).collect();
        anyhow::ensure!(!wanted.is_empty(), "nothing is computed");
        doubles.graph.set_outputs(wanted);
        compiler.run(pipelines::CLEAN, &mut doubles, |_| (), |_| ())?;
        compiler.run(&[&WIDEN_TO_DOUBLE], &mut doubles, |cx| cx.set(widening), |_| ())?;
        let options = LoadOptions {
            threads: self.threads,
            ..LoadOptions::plain()
        };
        let session = load_as_is(&TractEngine, &doubles, OwnOps::Refuse, &options)?;
        Ok((doubles, session))
    }
}

/// The fake-quantized graph cut into layers.
fn pieces(compiler: &mut Compiler, fake: &Model, accumulators: &[Accumulator]) -> Result<Model> {
    let mut pieces = fake.clone();
    pieces.graph.set_outputs(Vec::new());
    for layer in accumulators {
        if let Some(value) = pieces.graph.find(&layer.value) {
            pieces.graph.add_output(value);
        }
    }
    if pieces.graph.outputs().is_empty() {
        // The graph must have an output until the cut adds its own.
        pieces.graph.set_outputs(fake.graph.outputs().to_vec());
    }
    compiler.run(&[&CUT_AT_QUANTIZERS], &mut pieces, |_| (), |_| ())?;
    compiler.run(pipelines::SPELL, &mut pieces, |_| (), |_| ())?;
    Ok(pieces)
}

/// Quantized layers that no quantizer follows.
fn accumulators(graph: &Graph, form: Form) -> Vec<Accumulator> {
    let mut followed: HashSet<NodeId> = HashSet::new();
    for (id, node) in graph.nodes().rev() {
        let is_quantizer = node.op.is_lsqc("FakeQuantize");
        let before_quantizer = node
            .outputs()
            .iter()
            .flatten()
            .any(|&y| graph[y].uses().iter().any(|used| followed.contains(&used.node)));
        if is_quantizer || before_quantizer {
            followed.insert(id);
        }
    }
    let mut layers = Vec::new();
    for (id, node) in graph.nodes() {
        let behind = node
            .outputs()
            .iter()
            .flatten()
            .any(|&y| graph[y].uses().iter().any(|used| followed.contains(&used.node)));
        let (false, Some(y)) = (behind, node.output(0)) else {
            continue;
        };
        let grid = match weighted(graph, id) {
            Ok(op) => accumulator_grid(graph, op, form),
            Err(_) if product(graph, id).is_ok() => product_unit(graph, id).map(|unit| vec![unit]),
            Err(_) => None,
        };
        let Some(grid) = grid else { continue };
        let axis = if node.op.is("Conv") {
            1
        } else {
            graph[y].ty.as_ref().and_then(lsqc_passes::ir::TensorType::rank).unwrap_or(2) - 1
        };
        layers.push(Accumulator {
            value: graph[y].name().to_owned(),
            grid,
            axis,
        });
    }
    layers
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Single,
    Double,
}

/// What the cut graph takes: the batch, and for every quantized value (q − z)·s.
fn feeds(pieces: &Model, batch: &Batch, integers: &Tensors, sites: &[LevelSite], precision: Precision) -> Result<Tensors> {
    let names: BTreeSet<&str> = pieces
        .graph
        .inputs()
        .iter()
        .map(|&input| pieces.graph[input].name())
        .collect();
    let mut feeds: Tensors = BTreeMap::new();
    for (name, value) in &batch.inputs {
        if names.contains(name.as_str()) {
            let widened = || {
                value
                    .values::<f32>()
                    .map(|v| Tensor::new(value.shape(), v.iter().map(|&v| f64::from(v)).collect()))
            };
            let fed = if precision == Precision::Double { widened() } else { None };
            feeds.insert(name.clone(), fed.unwrap_or_else(|| value.clone()));
        }
    }
    for site in sites {
        let name = format!("{LEVELS_IN}{}", site.value);
        if !names.contains(name.as_str()) {
            continue;
        }
        let levels = tensor(integers, &site.levels)?;
        let codes = codes(site, levels)?;
        let fed = match precision {
            Precision::Single => Tensor::new(
                levels.shape(),
                codes.iter().map(|&code| f32::from(code) * site.step).collect(),
            ),
            Precision::Double => Tensor::new(
                levels.shape(),
                codes.iter().map(|&code| f64::from(code) * f64::from(site.step)).collect(),
            ),
        };
        feeds.insert(name, fed);
    }
    Ok(feeds)
}

/// The levels of a quantizer without their zero point.
fn codes(site: &LevelSite, levels: &Tensor) -> Result<Vec<i16>> {
    let zero = i16::try_from(site.zero_point).context("a zero point is a byte")?;
    if let Some(levels) = levels.values::<u8>() {
        return Ok(levels.iter().map(|&level| i16::from(level) - zero).collect());
    }
    let levels = levels.values::<i8>().context("levels are bytes")?;
    Ok(levels.iter().map(|&level| i16::from(level) - zero).collect())
}

/// The float value that a quantizer rounds: computed by the cut graph, or fed to it.
fn source_of<'t>(site: &LevelSite, feeds: &'t Tensors, computed: &'t Tensors) -> Result<&'t Tensor> {
    let fed = || {
        feeds
            .get(&site.source)
            .or_else(|| feeds.get(&format!("{LEVELS_IN}{}", site.source)))
    };
    computed
        .get(&site.source)
        .or_else(fed)
        .with_context(|| format!("'{}' was not computed", site.source))
}

/// The number of elements that belong to the first `real` of `size` samples.
fn real_part(tensor: &Tensor, real: usize, size: usize) -> usize {
    if real == size {
        tensor.len()
    } else {
        tensor.len() / size.max(1) * real
    }
}

/// Rounds `values` as the fake quantizer does and compares with `codes`, the levels without their zero point; gives the positions of one-level differences.
fn compare(row: &mut Compared, site: &LevelSite, values: &[f32], codes: &[i16]) -> Vec<usize> {
    let (lo, hi) = (site.range.0 - site.zero_point, site.range.1 - site.zero_point);
    #[allow(clippy::cast_precision_loss)]
    let (least, most) = (lo as f32, hi as f32);
    let mut near = Vec::new();
    let mut error = 0.0f64;
    for (at, (&value, &code)) in values.iter().zip(codes).enumerate() {
        let ratio = value / site.step;
        let rounded = ratio.clamp(least, most).round_ties_even();
        row.clipped += u64::from(ratio < least || ratio > most);
        row.below += u64::from(ratio < least && lo == 0);
        error += f64::from(rounded * site.step - value).powi(2);
        // NaN rounds to nothing, and equals no level.
        #[allow(clippy::cast_possible_truncation)]
        let difference = if rounded.is_nan() {
            i32::MAX
        } else {
            (rounded as i32 - i32::from(code)).abs()
        };
        match difference {
            0 => {}
            1 => near.push(at),
            _ => row.mismatches += 1,
        }
    }
    row.levels += values.len() as u64;
    row.squared_error += error;
    near
}

/// The most that single precision lies from double, in levels; 0 where there is no double.
fn noise(site: &LevelSite, single: &Tensor, double: Option<&Tensor>) -> f64 {
    let (Some(singles), Some(doubles)) = (single.values::<f32>(), double.and_then(Tensor::values::<f64>)) else {
        return 0.0;
    };
    let apart = singles
        .iter()
        .zip(doubles.iter())
        .map(|(&single, double)| (f64::from(single) - double).abs());
    apart.fold(0.0, f64::max) / f64::from(site.step)
}

fn distance_from_half(level: f64) -> f64 {
    (level - level.floor() - 0.5).abs()
}

fn compare_accumulators(
    row: &mut Compared,
    layer: &Accumulator,
    integer: &Tensor,
    float: &Tensor,
    (real, size): (usize, usize),
) -> Result<()> {
    let (a, b) = (
        integer.to_f32().context("results are floats")?,
        float.to_f32().context("results are floats")?,
    );
    let inner: usize = integer.shape().iter().skip(layer.axis + 1).product();
    let part = real_part(integer, real, size);
    for (at, (&x, &y)) in a.iter().zip(&b).take(part).enumerate() {
        let channel = (at / inner.max(1)) % layer.grid.len().max(1);
        let grid = layer.grid.get(channel).copied().unwrap_or(0.0);
        let allowed = (0.5 * grid).max(ACCUMULATOR_ULPS * x.abs().max(y.abs()));
        row.mismatches += u64::from((x - y).abs() > allowed || x.is_nan() || y.is_nan());
    }
    row.levels += part as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> LevelSite {
        LevelSite {
            value: "v".into(),
            source: "s".into(),
            levels: "l".into(),
            step: 0.37,
            zero_point: 128,
            range: (124, 131),
        }
    }

    #[test]
    fn equal_levels_are_no_difference() {
        let mut row = Compared::default();
        let near = compare(&mut row, &site(), &[0.0, 0.37, -0.74, 9.0, -9.0], &[0, 1, -2, 3, -4]);
        assert!(near.is_empty());
        assert_eq!((row.levels, row.mismatches, row.clipped), (5, 0, 2));
    }

    #[test]
    fn one_level_is_a_doubt_and_two_are_a_mismatch() {
        let mut row = Compared::default();
        let near = compare(&mut row, &site(), &[0.37, 0.37, f32::NAN], &[0, -1, 0]);
        assert_eq!(near, [0]);
        assert_eq!(row.mismatches, 2);
    }

    #[test]
    fn halves_are_near_and_others_not() {
        assert!(distance_from_half(2.500_1) <= TIE);
        assert!(distance_from_half(-2.499_9) <= TIE);
        assert!(distance_from_half(2.51) > TIE);
    }
}
