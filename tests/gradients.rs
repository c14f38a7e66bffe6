//! Every gradient rule of the op table against finite differences, on every sample case of its entry.
//!
//! The sample's node makes y; the loss is ⟨r, y⟩ for a fixed vector r. The rule's gradient, differentiated, legalized and written as any step
//! graph is, runs in single precision on an engine. The same loss, widened to double precision, gives central differences.

mod engine_support;
mod sample_support;

use lsqc::engine::tract::TractEngine;
use lsqc::engine::{Engine, Session, Tensors};
use lsqc::tune::dialect;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::legalize::{Dialect, LEGALIZE};
use lsqc_passes::lower::WIDEN_TO_DOUBLE;
use lsqc_passes::onnx::{OwnOps, WriteOptions, write};
use lsqc_passes::ops::sample::Sample;
use lsqc_passes::ops::{self, Gradient, OpEntry};
use lsqc_passes::pass::{NoEvaluator, Pass, PassCx, run_quietly};
use lsqc_passes::train::DIFFERENTIATE;
use sample_support::with_loss;

/// Half the distance of a central difference. Its error is a third of its square times the third derivative; elements of samples are
/// farther apart than it, so that no maximum changes its place.
const STEP: f64 = 1e-4;

/// Of the largest gradient of an operand, or of 1. The gradient is computed in single precision, in sums of up to a few hundred products,
/// each rounded to 6e-8; a wrong rule is off by its own size.
const TOLERANCE: f64 = 2e-5;

/// Sample cases that the embedded engine cannot run as they stand: a product of two vectors; Gemm's α and β in double precision;
/// BatchNormalization whose parameters are inputs. ONNX Runtime checks them.
const BEYOND_TRACT: &[(&str, &str)] = &[
    ("MatMul", "vectors"),
    ("Gemm", "both transposed, scaled"),
    ("BatchNormalization", "images"),
    ("BatchNormalization", "rows"),
];

#[test]
fn gradients_are_the_slopes_of_their_ops() {
    let engines = engine_support::engines();
    for engine in &engines {
        let beyond = if engine.name() == TractEngine.name() {
            BEYOND_TRACT
        } else {
            &[]
        };
        let mut wrong = Vec::new();
        for entry in ops::entries() {
            if !matches!(entry.gradient, Gradient::Rule(_)) {
                continue;
            }
            for sample in (entry.samples)() {
                for dialect in [Dialect::default(), dialect(engine.as_ref())] {
                    if let Err(why) = check((engine.as_ref(), dialect), &engines, entry, &sample)
                        && !beyond.contains(&(entry.name, sample.about))
                    {
                        wrong.push(format!("{}, {}: {why}", entry.name, sample.about));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "on {}:\n{}", engine.name(), wrong.join("\n"));
    }
}

#[test]
fn every_gradient_rule_has_samples() {
    let straight_through = ["FakeQuantize"];
    for entry in ops::entries() {
        let has_rule = matches!(entry.gradient, Gradient::Rule(_));
        let excused = straight_through.contains(&entry.name);
        assert_eq!(has_rule && !excused, !(entry.samples)().is_empty(), "{}", entry.name);
    }
}

/// Compares the gradients that `engine` computes with the slopes that the first of `referees` computes that can.
fn check(
    (engine, dialect): (&dyn Engine, Dialect),
    referees: &[Box<dyn Engine>],
    entry: &OpEntry,
    sample: &Sample,
) -> Result<(), String> {
    let (model, feeds) = with_loss(entry, sample)?;
    let mut session = load(engine, model.clone(), &[&INFER_TYPES, &DIFFERENTIATE, &LEGALIZE], dialect)?;
    let gradients = session.run(&feeds).map_err(|error| format!("{error:#}"))?;
    let mut outcome = Err("no engine computes it in double precision".to_owned());
    for referee in referees {
        let slopes = load(
            referee.as_ref(),
            model.clone(),
            &[&INFER_TYPES, &LEGALIZE, &WIDEN_TO_DOUBLE],
            Dialect::default(),
        );
        outcome = slopes.and_then(|mut slopes| compare(&gradients, slopes.as_mut(), &feeds));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn compare(gradients: &Tensors, slopes: &mut dyn Session, feeds: &Tensors) -> Result<(), String> {
    let feeds: Tensors = feeds
        .iter()
        .map(|(name, tensor)| (name.clone(), doubles(tensor, None)))
        .collect();
    for (name, at) in &feeds {
        let gradient = gradients
            .get(&format!("grad/{name}"))
            .ok_or_else(|| format!("no gradient of {name}"))?;
        if gradient.shape() != at.shape() {
            return Err(format!(
                "the gradient of {name} has shape {:?}, not {:?}",
                gradient.shape(),
                at.shape()
            ));
        }
        let gradient = gradient.to_f64().ok_or("a gradient is a number")?;
        let scale = gradient.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        for (index, value) in gradient.iter().enumerate() {
            let mut loss = |by: f64| -> Result<f64, String> {
                let mut moved = feeds.clone();
                moved.insert(name.clone(), doubles(at, Some((index, by))));
                let outputs = slopes.run(&moved).map_err(|error| format!("{error:#}"))?;
                let loss = outputs.get("loss").and_then(Tensor::to_f64);
                loss.and_then(|loss| loss.first().copied())
                    .ok_or_else(|| "no loss".to_owned())
            };
            let slope = (loss(STEP)? - loss(-STEP)?) / (2.0 * STEP);
            if (value - slope).abs().partial_cmp(&(TOLERANCE * scale)) != Some(std::cmp::Ordering::Less) {
                return Err(format!(
                    "element {index} of the gradient of {name} is {value}, the slope is {slope}"
                ));
            }
        }
    }
    Ok(())
}

/// `tensor` in double precision, with one element moved.
fn doubles(tensor: &Tensor, moved: Option<(usize, f64)>) -> Tensor {
    let mut values = tensor.to_f64().expect("samples are numbers");
    if let Some((index, by)) = moved {
        values[index] += by;
    }
    Tensor::new(tensor.shape(), values)
}

fn load(engine: &dyn Engine, mut model: Model, passes: &[&'static Pass], dialect: Dialect) -> Result<Box<dyn Session>, String> {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(dialect);
    run_quietly(passes, &mut model, &mut cx).map_err(|error| error.to_string())?;
    let options = WriteOptions {
        own_ops: OwnOps::Keep,
        ..WriteOptions::default()
    };
    let written = write(&model, &options).map_err(|error| error.to_string())?;
    engine
        .load(&written.model, &engine_support::options(&[]))
        .map_err(|error| format!("{error:#}"))
}
