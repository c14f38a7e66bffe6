//! Random graphs of the whole op table: what the compiler makes of them computes the same, and their gradients are their slopes.
//!
//! A graph is a chain of sample cases of the op table. What one takes is made of the results so far by `Gather` and `Reshape` (the shape) and
//! `Sigmoid` (the range in which the case is smooth); some of it hangs on constants alone, so that there is something to fold. On every
//! engine at hand:
//!
//! - read ∘ write gives an equal message;
//! - simplify, upgrade to a random newer operator set, and legalize keep the results;
//! - the gradient of a weighted sum of the last results, along a random direction, is its slope by central differences in double precision.
//!
//! LSQC_RANDOM_GRAPHS says how many (100), LSQC_RANDOM_SEED from which on (0); a failure names its seed.

use std::sync::Arc;

use lsqc::compiler::{Compiler, serialize};
use lsqc::engine::tract::TractEngine;
use lsqc::engine::{Engine, Tensors};
use lsqc::tune::dialect;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Attribute, DType, Graph, Model, Op, OpsetImport, Remainder, Role, Tensor, TensorType, ValueId};
use lsqc_passes::legalize::{Dialect, LEGALIZE};
use lsqc_passes::lower::WIDEN_TO_DOUBLE;
use lsqc_passes::onnx::{NoExternalData, OwnOps, read};
use lsqc_passes::ops::sample::{Kind, Operand, Sample};
use lsqc_passes::ops::{self, Gradient, OpEntry};
use lsqc_passes::pass::Pass;
use lsqc_passes::pipelines;
use lsqc_passes::simplify::{TargetOpset, UPGRADE_OPSET};
use lsqc_passes::train::DIFFERENTIATE;

/// Operator sets of the graphs, and up to which they are raised.
const OPSETS: [i64; 3] = [17, 18, 20];
const NEWEST: i64 = 23;

/// The chain's input.
const INPUT: usize = 12;

/// Results before and after, of the largest result or of 1. Folding computes constants with another engine: single precision rounds to 6e-8,
/// over chains of up to six ops, of which some (norms, reciprocals) multiply what is off by ten and more.
const SAME: f64 = 1e-4;

/// The same of a slope, whose gradient went through twice as many ops.
const SLOPE: f64 = 2e-3;

/// Half the distance of a central difference in double precision, and a shorter one: where the two disagree a kink lies between, and there is
/// no slope to compare with.
const STEP: f64 = 1e-5;
const SHORTER: f64 = 1e-6;
const KINK: f64 = 1e-4;

/// What must be true of all graphs together, so that the test cannot pass by leaving out.
const RUN_SHARE: f64 = 0.9;
const SLOPE_SHARE: f64 = 0.5;

/// A generator of random numbers: splitmix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below n")
    }

    /// In [−1, 1].
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Sample cases that chains are made of: ops with a gradient rule and a slope, in forms that the operator set has. From 18 on the reductions
/// take their axes as an operand, and Split a number of results.
fn cases(opset: i64) -> Vec<(&'static OpEntry, Sample)> {
    let has_form = |entry: &OpEntry, sample: &Sample| {
        let old =
            sample.opset < 18 && (entry.name == "Split" || sample.attributes.iter().any(|attribute| attribute.name == "axes"));
        sample.opset <= opset && !(old && opset >= 18)
    };
    let smooth = |entry: &&OpEntry| matches!(entry.gradient, Gradient::Rule(_)) && entry.domain.is_empty();
    ops::entries()
        .filter(smooth)
        .flat_map(|entry| (entry.samples)().into_iter().map(move |sample| (entry, sample)))
        .filter(|(entry, sample)| has_form(entry, sample))
        .collect()
}

/// A graph `x` → `loss`, and what ops it has.
struct Chain {
    model: Model,
    ops: Vec<String>,
}

fn chain(random: &mut Random) -> Result<Chain, String> {
    let opset = *random.choose(&OPSETS);
    let cases = cases(opset);
    let mut graph = Graph::new("random");
    let ty = TensorType::fixed(DType::F32, &[INPUT]);
    let x = graph.add_input("x", Some(ty), None).map_err(|error| error.to_string())?;
    graph[x].role = Role::Parameter;
    let fixed = graph.add_constant("fixed", numbers(random, INPUT));
    let mut model = Model {
        ir_version: crate::sample_support::ir_version(opset),
        opset_imports: vec![OpsetImport {
            domain: String::new(),
            version: opset,
            remainder: Remainder::new(),
        }],
        metadata: vec![],
        graph,
        functions: vec![],
        remainder: Remainder::new(),
    };
    // Values and how many elements they have. The first is the input, the second hangs on nothing.
    let (mut varying, mut folding) = (vec![(x, INPUT)], vec![(fixed, INPUT)]);
    let mut names = Vec::new();
    for _ in 0..2 + random.below(4) {
        let (entry, sample) = random.choose(&cases);
        names.push(format!("{} ({})", entry.name, sample.about));
        let of_constants = random.below(4) == 0;
        let mut inputs = Vec::new();
        for operand in &sample.inputs {
            let Some(operand) = operand else {
                inputs.push(None);
                continue;
            };
            let from_constants = of_constants || !inputs.is_empty() && random.below(2) == 0;
            let source = *random.choose(if from_constants { &folding } else { &varying });
            inputs.push(Some(operand_of(&mut model.graph, source, operand)));
        }
        let results: Vec<String> = (0..sample.results).map(|index| format!("y{index}")).collect();
        let results: Vec<&str> = results.iter().map(String::as_str).collect();
        let ys = model
            .graph
            .insert_many(Op::onnx(entry.name), &inputs, sample.attributes.clone(), &results);
        model.graph.set_outputs(ys[..sample.weighed].to_vec());
        run(&[&INFER_TYPES], &mut model, None)?;
        for &y in &ys[..sample.weighed] {
            let shape = model.graph[y].shape().ok_or("the type rule does not tell the shape")?;
            let count = shape.iter().product::<usize>();
            if count > 0 {
                if of_constants { &mut folding } else { &mut varying }.push((y, count));
            }
        }
    }
    let graph = &mut model.graph;
    let &(last, _) = varying.last().expect("the input is there");
    let shape = graph[last].shape().ok_or("no shape")?;
    let r = graph.add_constant("r", crate::sample_support::weights(&shape));
    let weighted = graph.insert(Op::onnx("Mul"), &[last, r], vec![], "weighted");
    let loss = graph.insert(
        Op::onnx("ReduceSum"),
        &[weighted],
        vec![Attribute::new("keepdims", 0)],
        "loss",
    );
    graph[loss].role = Role::Loss;
    graph.set_outputs(vec![loss]);
    run(&[&INFER_TYPES], &mut model, None)?;
    Ok(Chain { model, ops: names })
}

/// An operand like a sample's: constants as they are, else `source` in its shape and range.
fn operand_of(graph: &mut Graph, (source, count): (ValueId, usize), operand: &Operand) -> ValueId {
    if operand.kind != Kind::Varies {
        return graph.add_constant("c", operand.tensor.clone());
    }
    let shape = operand.tensor.shape();
    let wanted: usize = shape.iter().product();
    let as_ints = |numbers: Vec<usize>| Tensor::vector(numbers.into_iter().map(|n| n as i64).collect());
    let all = graph.add_constant("all", Tensor::vector(vec![-1i64]));
    let flat = graph.insert(Op::onnx("Reshape"), &[source, all], vec![], "flat");
    let indices = graph.add_constant("indices", as_ints((0..wanted).map(|index| index * 5 % count).collect()));
    let taken = graph.insert(Op::onnx("Gather"), &[flat, indices], vec![], "taken");
    let to = graph.add_constant("shape", as_ints(shape.to_vec()));
    let shaped = graph.insert(Op::onnx("Reshape"), &[taken, to], vec![], "shaped");
    // A number of its own for each element, so that no two that a maximum compares are one.
    let apart = graph.add_constant("apart", scaled(&operand.tensor, 0.3));
    let moved = graph.insert(Op::onnx("Add"), &[shaped, apart], vec![], "moved");
    let inside = graph.insert(Op::onnx("Sigmoid"), &[moved], vec![], "inside");
    let values = operand.tensor.to_f32().unwrap_or_default();
    let (lo, hi) = values
        .iter()
        .fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let width = graph.add_constant("width", Tensor::scalar(hi - lo));
    let least = graph.add_constant("least", Tensor::scalar(lo));
    let wide = graph.insert(Op::onnx("Mul"), &[inside, width], vec![], "wide");
    graph.insert(Op::onnx("Add"), &[wide, least], vec![], "ranged")
}

fn scaled(tensor: &Tensor, by: f32) -> Tensor {
    let values = tensor.to_f32().unwrap_or_default();
    Tensor::new(tensor.shape(), values.into_iter().map(|v| v * by).collect())
}

#[allow(clippy::cast_possible_truncation)]
fn numbers(random: &mut Random, count: usize) -> Tensor {
    Tensor::vector((0..count).map(|_| random.unit() as f32).collect())
}

fn run(passes: &[&'static Pass], model: &mut Model, setting: Option<Setting>) -> Result<(), String> {
    let prepare = |cx: &mut lsqc_passes::pass::PassCx| match setting {
        Some(Setting::Opset(version)) => cx.set(TargetOpset(version)),
        Some(Setting::Dialect(dialect)) => cx.set(Arc::unwrap_or_clone(dialect)),
        None => {}
    };
    let done = Compiler::default().run(passes, model, prepare, |_| ());
    done.map_err(|error| format!("{error:#}"))
}

/// What a pass is told.
enum Setting {
    Opset(i64),
    Dialect(Arc<Dialect>),
}

fn outputs(engine: &dyn Engine, model: &Model, feeds: &Tensors) -> Result<Tensors, String> {
    let bytes = serialize(model, OwnOps::Keep).map_err(|error| format!("{error:#}"))?;
    let session = engine.load(&bytes, &crate::engine_support::options(&[]));
    session
        .and_then(|mut session| session.run(feeds))
        .map_err(|error| format!("{error:#}"))
}

fn number(outputs: &Tensors, name: &str) -> f64 {
    outputs[name].to_f64().expect("numbers")[0]
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}

/// What was found of a chain on one engine.
#[derive(Default)]
struct Found {
    ran: bool,
    slope: bool,
}

fn check(chain: &Chain, random: &mut Random, engine: &dyn Engine, referees: &[Box<dyn Engine>]) -> Result<Found, String> {
    let at = numbers(random, INPUT);
    let feeds = crate::engine_support::tensors([("x", at.clone())]);
    let Ok(before) = outputs(engine, &chain.model, &feeds) else {
        // What an engine lacks of single ops, tests/library/gradients.rs lists.
        return Ok(Found::default());
    };
    let before = number(&before, "loss");
    let same = |what: &str, model: &Model| {
        let after = number(
            &outputs(engine, model, &feeds).map_err(|why| format!("{what}: {why}"))?,
            "loss",
        );
        if near(before, after, SAME) {
            Ok(())
        } else {
            Err(format!("{what}: {before} became {after}"))
        }
    };
    let mut simple = chain.model.clone();
    run(pipelines::SIMPLIFY, &mut simple, None).map_err(|why| format!("simplify: {why}"))?;
    same("simplify", &simple)?;
    let version =
        simple.opset() + i64::try_from(random.below(1 + usize::try_from(NEWEST - simple.opset()).unwrap_or(0))).unwrap_or(0);
    let mut newer = simple.clone();
    // The table refuses by name what changed its meaning.
    if run(&[&UPGRADE_OPSET], &mut newer, Some(Setting::Opset(version))).is_ok() {
        // An engine may lack the newer form.
        match same(&format!("upgrade to {version}"), &newer) {
            Err(why) if why.contains("became") => return Err(why),
            _ => {}
        }
    }
    let slope = check_slope(&simple, random, (engine, &at), referees)?;
    Ok(Found { ran: true, slope })
}

/// Whether there was a slope to compare with.
fn check_slope(
    model: &Model,
    random: &mut Random,
    (engine, at): (&dyn Engine, &Tensor),
    referees: &[Box<dyn Engine>],
) -> Result<bool, String> {
    let feeds = crate::engine_support::tensors([("x", at.clone())]);
    let mut differentiated = model.clone();
    let own = Setting::Dialect(Arc::new(dialect(engine)));
    run(&[&INFER_TYPES, &DIFFERENTIATE, &LEGALIZE], &mut differentiated, Some(own)).map_err(|why| format!("gradient: {why}"))?;
    let with_gradient = match outputs(engine, &differentiated, &feeds) {
        Ok(outputs) => outputs,
        // As above.
        Err(_) if engine.name() == TractEngine.name() => return Ok(false),
        Err(why) => return Err(format!("gradient: {why}")),
    };
    // None where a constant condition chooses other branches: the slope is 0 then.
    let gradient = with_gradient
        .get("grad/x")
        .and_then(Tensor::to_f64)
        .unwrap_or_else(|| vec![0.0; INPUT]);
    let direction: Vec<f64> = (0..INPUT).map(|_| random.unit()).collect();
    let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
    let mut wide = model.clone();
    run(&[&INFER_TYPES, &LEGALIZE, &WIDEN_TO_DOUBLE], &mut wide, None).map_err(|why| format!("double: {why}"))?;
    let start = at.to_f64().expect("numbers");
    let slope = |referee: &dyn Engine, step: f64| -> Option<f64> {
        let loss = |by: f64| {
            let moved: Vec<f64> = start.iter().zip(&direction).map(|(x, d)| x + by * d).collect();
            let outputs = outputs(
                referee,
                &wide,
                &crate::engine_support::tensors([("x", Tensor::vector(moved))]),
            )
            .ok()?;
            Some(number(&outputs, "loss"))
        };
        Some((loss(step)? - loss(-step)?) / (2.0 * step))
    };
    let scale = gradient.iter().fold(1.0f64, |most, g| most.max(g.abs()));
    for referee in referees {
        let (Some(far), Some(close)) = (slope(referee.as_ref(), STEP), slope(referee.as_ref(), SHORTER)) else {
            continue;
        };
        // Some ops round to single precision inside on some engines; a difference over so short a step then says nothing.
        if !near(far / scale, close / scale, KINK) {
            continue;
        }
        return if near(along / scale, far / scale, SLOPE) {
            Ok(true)
        } else {
            Err(format!("the gradient along a direction is {along}, the slope {far}"))
        };
    }
    Ok(false)
}

fn read_writes(chain: &Chain) -> Result<(), String> {
    let first = serialize(&chain.model, OwnOps::Refuse).map_err(|error| format!("{error:#}"))?;
    let (model, _) = read(first.clone().into(), &NoExternalData).map_err(|error| error.to_string())?;
    let second = serialize(&model, OwnOps::Refuse).map_err(|error| format!("{error:#}"))?;
    if first == second {
        Ok(())
    } else {
        Err("read ∘ write changed it".to_owned())
    }
}

#[test]
fn random_graphs_keep_their_results_and_have_right_gradients() {
    let setting = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (count, first) = (setting("LSQC_RANDOM_GRAPHS", 100), setting("LSQC_RANDOM_SEED", 0));
    let engines = crate::engine_support::engines();
    let mut wrong = Vec::new();
    let mut tally: Vec<(u64, u64)> = vec![(0, 0); engines.len()];
    for seed in first..first + count {
        let mut random = Random(seed);
        let chain = match chain(&mut random) {
            Ok(chain) => chain,
            Err(why) => {
                wrong.push(format!("seed {seed}: {why}"));
                continue;
            }
        };
        let ops = chain.ops.join(" → ");
        if let Err(why) = read_writes(&chain) {
            wrong.push(format!("seed {seed}, {ops}: {why}"));
        }
        for (engine, (ran, slopes)) in engines.iter().zip(&mut tally) {
            match check(&chain, &mut Random(!seed), engine.as_ref(), &engines) {
                Ok(found) => {
                    *ran += u64::from(found.ran);
                    *slopes += u64::from(found.slope);
                }
                Err(why) => wrong.push(format!("seed {seed} on {}, {ops}: {why}", engine.name())),
            }
        }
    }
    for (engine, (ran, slopes)) in engines.iter().zip(&tally) {
        println!("{}: {ran} of {count} ran, {slopes} slopes compared", engine.name());
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    let &(ran, slopes) = tally.last().expect("tract is always there");
    if engines.len() > 1 {
        let least = |share: f64| (count as f64 * share) as u64;
        assert!(
            ran >= least(RUN_SHARE) && slopes >= least(SLOPE_SHARE),
            "{ran} ran and {slopes} slopes of {count}: too few"
        );
    }
}
