//! Weights that oscillate are frozen: the step graph against the algorithm in plain words, on every engine; and what a user sees of it.

use std::fs;

use crate::common::{SMALL, data, folder, lsqc};
use crate::engine_support::{engines, numbers};
use lsqc::compiler::{Compiler, serialize};
use lsqc::engine::{Engine, LoadOptions, QdqFusion, Tensors};
use lsqc::tune::{self, BnMode, Gradients, StepGraph, StepPlan, freeze_threshold};
use lsqc_passes::ir::Tensor;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pipelines;
use lsqc_passes::quantize::Sites;
use lsqc_passes::text::parse;
use lsqc_passes::train::{Loss, Oscillations, names};
use serde_json::Value;

/// Two quantized layers over [16, 6]; `v` has 8 bits and is not watched.
const NETWORK: &str = "g (float[N,6] x) => (float[N,4] y)
    <float[6,8] w = normal(seed = 1, scale = 0.4), float s = {0.2}, float[8,4] v = normal(seed = 2, scale = 0.4), float t = {0.01}>
    {
      wq = lsqc.FakeQuantize <bits = 3, signed = 1> (w, s)
      h = MatMul (x, wq)
      r = Relu (h)
      vq = lsqc.FakeQuantize <bits = 8, signed = 1> (v, t)
      y = MatMul (r, vq)
    }";
const BATCH: usize = 16;
const STEPS: u64 = 60;
/// So fast that weights jump to and fro between levels.
const LEARNING_RATE: f32 = 0.3;
/// Running means in float32, over as many steps, of numbers up to 4.
const MEAN_TOLERANCE: f64 = 1e-5;

/// One element of a weight, by section 4.3 of arXiv 2203.11086.
struct Element {
    code: i32,
    direction: i32,
    frequency: f64,
    mean: f64,
    frozen: Option<i32>,
}

impl Element {
    fn new(code: i32) -> Element {
        Element {
            code,
            direction: 0,
            frequency: 0.0,
            mean: f64::from(code),
            frozen: None,
        }
    }

    /// Takes the value that the optimizer would give it; gives the one that it has.
    fn step(&mut self, free: f32, step: f32, threshold: f32) -> f32 {
        let code = self.frozen.unwrap_or_else(|| level(free, step));
        let turned = code != self.code && self.direction != 0 && (code > self.code) != (self.direction > 0);
        if code != self.code {
            self.direction = if code > self.code { 1 } else { -1 };
        }
        self.code = code;
        self.frequency = 0.99 * self.frequency + if turned { 0.01 } else { 0.0 };
        self.mean = 0.99 * self.mean + 0.01 * f64::from(code);
        if self.frozen.is_none() && self.frequency > f64::from(threshold) {
            self.code = self.mean.round_ties_even() as i32;
            self.frozen = Some(self.code);
        }
        self.frozen.map_or(free, |code| code as f32 * step)
    }
}

/// v̄ of 3 bits.
fn level(value: f32, step: f32) -> i32 {
    ((value / step).round_ties_even() as i32).clamp(-4, 3)
}

fn assemble(engine: &dyn Engine, oscillations: Oscillations) -> StepGraph {
    let mut compiler = Compiler::default();
    let mut model = parse(NETWORK).expect("it is a model");
    compiler
        .run(pipelines::SIMPLIFY, &mut model, |_| (), |_| ())
        .expect("it is simplified");
    let plan = StepPlan {
        shapes: [("x".to_owned(), vec![BATCH, 6])].into(),
        loss: Loss::CrossEntropy,
        outputs: std::collections::BTreeMap::new(),
        bn: BnMode::Frozen,
        weight_decay: None,
        oscillations,
        dialect: tune::dialect(engine),
        gradients: Gradients::Hidden,
    };
    tune::assemble(&mut compiler, &model, &model, &Sites::default(), &plan).expect("it is assembled")
}

fn feeds(step: u64) -> Tensors {
    let at = |index: usize| (index as f32 * 0.37 + step as f32 * 1.7).sin() * 1.5;
    let labels = (0..BATCH)
        .map(|sample| ((sample * 7 + step as usize * 3) % 4) as i64)
        .collect();
    Tensors::from([
        (
            "x".to_owned(),
            Tensor::new(&[BATCH, 6], (0..BATCH * 6).map(at).collect::<Vec<f32>>()),
        ),
        (names::LABEL.to_owned(), Tensor::vector::<i64>(labels)),
        (names::LEARNING_RATE.to_owned(), Tensor::scalar(LEARNING_RATE)),
        (
            names::FREEZE_THRESHOLD.to_owned(),
            Tensor::scalar(freeze_threshold(step, STEPS)),
        ),
    ])
}

fn floats(state: &Tensors, name: &str) -> Vec<f32> {
    state[name].to_f32().expect("it is numeric")
}

#[test]
fn the_step_graph_does_what_the_algorithm_says() {
    for engine in engines() {
        let graph = assemble(engine.as_ref(), Oscillations::Frozen);
        let options = LoadOptions {
            state: graph.bindings.clone(),
            qdq_fusion: QdqFusion::Off,
            ..LoadOptions::plain()
        };
        let bytes = serialize(&graph.model, OwnOps::Keep).expect("it is written");
        let mut session = engine.load(&bytes, &options).expect("it loads");
        session.set_state(&graph.state).expect("it fits");
        let (mut state, first) = (graph.state.clone(), floats(&graph.state, "s")[0]);
        let mut elements: Vec<Element> = floats(&state, "w").iter().map(|&w| Element::new(level(w, first))).collect();
        let mut turns = 0;
        for step in 0..STEPS {
            let what = format!("{} step {step}", engine.name());
            session.step(&feeds(step)).expect("it steps");
            let next = session.state().expect("it is set");
            let size = floats(&next, "s")[0];
            let velocity = floats(&next, "momentum/w");
            let weights = floats(&next, "w");
            for (at, (element, old)) in elements.iter_mut().zip(floats(&state, "w")).enumerate() {
                let (held, before) = (element.frozen, element.frequency);
                let expected = element.step(old - velocity[at] * LEARNING_RATE, size, freeze_threshold(step, STEPS));
                turns += usize::from(element.frequency > before);
                assert_eq!(weights[at], expected, "{what}: weight {at}");
                let now = |name: &str| numbers(&next, name)[at];
                assert_eq!(now("last_code/w"), f64::from(element.code), "{what}: code {at}");
                assert_eq!(
                    now("last_direction/w"),
                    f64::from(element.direction),
                    "{what}: direction {at}"
                );
                assert_eq!(now("frozen/w") == 1.0, element.frozen.is_some(), "{what}: frozen {at}");
                for (name, mean) in [("frequency/w", element.frequency), ("mean_code/w", element.mean)] {
                    assert!(
                        (now(name) - mean).abs() <= MEAN_TOLERANCE,
                        "{what}: {name} {at} is {}, not {mean}",
                        now(name)
                    );
                }
                // What the quantizer makes of the weight in the next step.
                assert_eq!(level(weights[at], size), element.code, "{what}: level {at}");
                if held.is_some() {
                    assert_eq!(held, Some(element.code), "{what}: a frozen code {at} changed");
                }
            }
            state = next;
        }
        let frozen = elements.iter().filter(|element| element.frozen.is_some()).count();
        println!(
            "{}: {turns} oscillations, {frozen} of {} frozen",
            engine.name(),
            elements.len()
        );
        assert!(turns > frozen && frozen > 4 && frozen < elements.len() - 4);
        assert_ne!(floats(&state, "s")[0], first, "the step is trained");
        let counted = &tune::oscillations(&state)["w"];
        assert_eq!((counted.elements, counted.frozen), (48, frozen as u64));
        assert_eq!(tune::oscillations(&state).len(), 1, "8 bits are not watched");
    }
}

#[test]
fn where_they_are_left_alone_the_step_has_no_trace_of_it() {
    for engine in engines() {
        let graph = assemble(engine.as_ref(), Oscillations::Left);
        let state: Vec<&str> = graph.state.keys().map(String::as_str).collect();
        assert_eq!(
            state,
            ["momentum/s", "momentum/t", "momentum/v", "momentum/w", "s", "t", "v", "w"]
        );
        assert!(graph.model.graph.find(names::FREEZE_THRESHOLD).is_none());
    }
}

/// Runs `quantize` on the small net with `flags` and this lsqc.toml; gives the report, and what `step.json` says.
fn quantize(toml: &str, flags: &str) -> (Value, String, String) {
    let files = folder(&[
        ("model.onnxtxt", SMALL.as_bytes()),
        ("data.npz", &data("x", &[3, 8, 8], 64)),
        ("lsqc.toml", toml.as_bytes()),
    ]);
    let line = format!(
        "quantize model.onnxtxt --data data.npz --engine tract --threads 1 --steps 40 --batch 8 --lr 0.2 --emit-step step \
         -o out.onnx {flags}"
    );
    let output = lsqc(files.path(), &line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{line}\n{said}");
    let read = |name: &str| fs::read_to_string(files.path().join(name)).expect("it was written");
    let report = serde_json::from_str(&read("out.report.json")).expect("it is JSON");
    (report, read("step/step.json"), said)
}

#[test]
fn the_report_says_how_many_oscillate() {
    let toml = "[quantize]\nlayers = { \"conv\" = \"w2a4\", \"fc\" = \"w3a4\" }\n";
    let (report, step, said) = quantize(toml, "--freeze-oscillating");
    let all = &report["training"]["oscillating"];
    assert_eq!(report["settings"]["freeze_oscillating"], true);
    assert_eq!(all["weights"], 6 * 3 * 3 * 3 + 4 * 6);
    assert!(
        all["frozen"].as_f64().expect("a share") > 0.0 && all["share"].as_f64().expect("a share") > 0.0,
        "{all}"
    );
    let layers = report["layers"].as_array().expect("a list");
    let weights: Vec<&Value> = layers.iter().map(|layer| &layer["oscillating"]["weights"]).collect();
    assert_eq!(weights[..2], [&Value::from(162), &Value::from(24)]);
    assert!(said.contains("of 186 weights of few bits, "), "{said}");
    for role in [
        "freeze_threshold",
        "last_code",
        "last_direction",
        "frequency",
        "mean_code",
        "frozen",
    ] {
        assert!(step.contains(&format!("\"role\": \"{role}\"")), "{role}\n{step}");
    }
}

#[test]
fn without_the_flag_it_says_nothing() {
    let (report, step, said) = quantize("[quantize]\nlayers = { \"*\" = \"w2a4\" }\n", "");
    assert_eq!(report["settings"]["freeze_oscillating"], false);
    assert_eq!(report["training"]["oscillating"], Value::Null);
    assert_eq!(report["layers"][0]["oscillating"], Value::Null);
    assert!(!step.contains("freeze_threshold") && !said.contains("oscillate"), "{said}");
}

#[test]
fn nothing_to_watch_is_a_warning() {
    let (report, step, said) = quantize("[train]\nfreeze_oscillating = true\n", "--bits 3");
    // The first and the last layer are all there is, and they take 8 bits.
    assert_eq!(report["training"]["oscillating"], Value::Null);
    let warning = "--freeze-oscillating has nothing to watch: no trained weight has 4 bits or less";
    assert!(said.contains(warning), "{said}");
    assert!(report["warnings"].to_string().contains(warning));
    assert!(
        report["notes"]
            .to_string()
            .contains("oscillations of its weight are left alone: it has 8 bits")
    );
    assert!(!step.contains("freeze_threshold"));
}
