//! All engines take the same training steps with the fixtures: each from the graph that is spelled for it, and the embedded one also from
//! the graph in standard ops, to which kernels and blocked convolutions are held.
//!
//! With quantizers a rounding flip, amplified by batch statistics, moves a loss by percents: two engines are then compared step by step
//! from one state, on batches for which they choose the same level everywhere. Without quantizers they run side by side.

mod engine_support;
mod step_support;

use engine_support::{engines, numbers};
use lsqc::compiler::serialize;
use lsqc::engine::{Engine, LoadOptions, Tensors};
use lsqc::tune::{Gradients, StepGraph, dialect};
use lsqc_passes::ir::Role;
use lsqc_passes::legalize::Dialect;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::quantize::Sites;
use lsqc_passes::train::names;
use step_support::{Bench, options};

const FIXTURES: [&str; 2] = ["resnet20", "mobilenet"];
const STEPS: usize = 20;
/// Small, so that a batch on which all levels agree is found soon.
const STEP_BATCH: usize = 2;
/// Larger: over a handful of images batch statistics are so rough that the loss grows from step to step, and differences with it.
const RUN_BATCH: usize = 16;
const STEP_LEARNING_RATE: f32 = 0.01;
/// The rate that lsqc takes at 8 bits. At ten times as much the twentieth loss depends on the order of float sums by 1e-3 itself.
const RUN_LEARNING_RATE: f32 = 0.001;
/// Twenty steps of float32, each from the one before: differences grow with every step.
const RUN_TOLERANCE: f64 = 1e-3;
/// One step of float32 whose quantizers all choose alike: the float sums between them are what differs.
const STEP_TOLERANCE: f64 = 1e-5;
/// One batch in ten or so has a value near a half; as many failures as this allows mean that something else is wrong.
const BATCHES: usize = 10 * STEPS;

#[test]
fn without_quantizers_twenty_losses_agree() {
    for fixture in FIXTURES {
        let mut bench = Bench::new(fixture, RUN_BATCH, RUN_LEARNING_RATE);
        let float = bench.float.clone();
        let engines = engines();
        let runs: Vec<(String, Vec<f64>)> = spellings(&engines)
            .map(|(name, engine, dialect)| {
                let graph = bench.assemble(&float, &Sites::default(), Gradients::Hidden, dialect);
                (name, losses(engine, &graph, &bench))
            })
            .collect();
        let Some((first, expected)) = runs.first() else {
            unreachable!("tract is always there")
        };
        assert!(expected.iter().all(|loss| loss.is_finite()), "{fixture}: {expected:?}");
        for (name, found) in &runs {
            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            println!(
                "{fixture}: {name}: losses {found:.3?}, at most {:.1e} apart",
                apart.fold(0.0, f64::max)
            );
            for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
                let what = format!("{fixture}: loss {step} of {name} is {found}, of {first} {expected}");
                assert!((found - expected).abs() <= RUN_TOLERANCE, "{what}");
            }
        }
    }
}

#[test]
fn with_quantizers_single_steps_agree() {
    for fixture in FIXTURES {
        let mut bench = Bench::new(fixture, STEP_BATCH, STEP_LEARNING_RATE);
        let engines = engines();
        let (quantized, sites) = bench.quantized(engines.last().expect("tract is always there").as_ref());
        let graphs: Vec<StepGraph> = spellings(&engines)
            .map(|(_, _, dialect)| bench.assemble(&quantized, &sites, Gradients::Outputs, dialect))
            .collect();
        let graph = graphs.first().expect("tract is always there");
        let codes: Vec<String> = (graph.model.graph.outputs().iter())
            .filter(|&&output| matches!(graph.model.graph[output].role, Role::Code(_)))
            .map(|&output| graph.model.graph[output].name().to_owned())
            .collect();
        assert!(!codes.is_empty(), "the graph shows its levels");
        let mut sessions: Vec<_> = (spellings(&engines).zip(&graphs))
            .map(|((name, engine, _), graph)| {
                let bytes = serialize(&graph.model, OwnOps::Keep).expect("it is written");
                (name, engine.load(&bytes, &options()).expect("it loads"))
            })
            .collect();

        let (mut state, mut compared) = (graph.state.clone(), 0);
        for number in 0..BATCHES {
            let mut feeds = bench.feeds(number);
            feeds.extend(state.clone());
            let results: Vec<(&str, Tensors)> = (sessions.iter_mut())
                .map(|(name, session)| (name.as_str(), session.run(&feeds).expect("it runs")))
                .collect();
            let Some((first, expected)) = results.first() else {
                unreachable!("tract is always there")
            };
            if results
                .iter()
                .any(|(_, found)| codes.iter().any(|code| found[code] != expected[code]))
            {
                continue;
            }
            for (name, found) in &results {
                let what = format!("{fixture}: step {compared} (batch {number}) of {name} and {first}");
                assert_step(found, expected, graph, &what);
            }
            state = next_state(graph, expected);
            compared += 1;
            if compared == STEPS {
                println!("{fixture}: {} batches for {STEPS} steps", number + 1);
                break;
            }
        }
        assert_eq!(
            compared, STEPS,
            "{fixture}: the engines choose other levels on nearly every batch"
        );
    }
}

/// The embedded engine with standard ops, then each engine with its own dialect.
fn spellings(engines: &[Box<dyn Engine>]) -> impl Iterator<Item = (String, &dyn Engine, Dialect)> {
    let standard = engines.first().map(|engine| {
        let name = format!("{} in standard ops", engine.name());
        (name, engine.as_ref(), Dialect::default())
    });
    let own = engines
        .iter()
        .map(|engine| (engine.name().to_owned(), engine.as_ref(), dialect(engine.as_ref())));
    standard.into_iter().chain(own)
}

/// The loss, and every parameter, step and statistic after the step, agree.
fn assert_step(found: &Tensors, expected: &Tensors, graph: &StepGraph, what: &str) {
    let (a, b) = (numbers(found, names::LOSS)[0], numbers(expected, names::LOSS)[0]);
    assert!((a - b).abs() <= STEP_TOLERANCE, "{what}: the losses are {a} and {b}");
    for binding in graph
        .bindings
        .iter()
        .filter(|binding| !binding.current.starts_with(names::MOMENTUM))
    {
        let (a, b) = (numbers(found, &binding.next), numbers(expected, &binding.next));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let difference = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(f64::MIN_POSITIVE);
        assert!(
            difference <= STEP_TOLERANCE,
            "{what}: '{}' differs by {difference:e} of its norm",
            binding.current
        );
    }
}

fn next_state(graph: &StepGraph, results: &Tensors) -> Tensors {
    (graph.bindings.iter())
        .map(|binding| (binding.current.clone(), results[&binding.next].clone()))
        .collect()
}

fn losses(engine: &dyn Engine, graph: &StepGraph, bench: &Bench) -> Vec<f64> {
    let options = LoadOptions {
        state: graph.bindings.clone(),
        ..options()
    };
    let bytes = serialize(&graph.model, OwnOps::Keep).expect("it is written");
    let mut session = engine.load(&bytes, &options).expect("it loads");
    session.set_state(&graph.state).expect("it fits");
    (0..STEPS)
        .map(|number| numbers(&session.step(&bench.feeds(number)).expect("it steps"), names::LOSS)[0])
        .collect()
}
