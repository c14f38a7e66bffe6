//! Every gradient rule of the op table against finite differences, on every sample case of its entry.
//!
//! The sample's node makes y; the loss is ⟨r, y⟩ for a fixed vector r. The rule's gradient, differentiated, legalized and written as any step
//! graph is, runs in single precision on an engine. The same loss, widened to double precision, gives central differences. Named lists hold
//! what engines cannot do, with the reasons.

use std::collections::BTreeSet;

use crate::sample_support::with_loss;
use lsqc::engine::tract::TractEngine;
use lsqc::engine::{Engine, Session, Tensors};
use lsqc::tune::dialect;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{DType, Model, Tensor};
use lsqc_passes::legalize::{Dialect, LEGALIZE};
use lsqc_passes::lower::WIDEN_TO_DOUBLE;
use lsqc_passes::onnx::{OwnOps, WriteOptions, write};
use lsqc_passes::ops::sample::Sample;
use lsqc_passes::ops::{self, Gradient, OpEntry};
use lsqc_passes::pass::{NoEvaluator, Pass, PassCx, run_quietly};
use lsqc_passes::train::DIFFERENTIATE;

/// Half the distance of a central difference. Its error is a third of its square times the third derivative; elements of samples are
/// farther apart than it, so that no maximum changes its place.
const STEP: f64 = 1e-4;

/// Of the largest gradient of an operand, or of 1. The gradient is computed in single precision, in sums of up to a few hundred products,
/// each rounded to 6e-8; a wrong rule is off by its own size.
const TOLERANCE: f64 = 2e-5;

/// The same where the loss is computed in single precision: rounded to 1e-7 of itself, which a short step would enlarge beyond measure. A
/// fourth-order difference over this step errs by a thirtieth of its fourth power times the fifth derivative. A power of two, so that
/// moving an element rounds little.
const STEP_IN_SINGLE: f64 = 1.0 / 64.0;

/// A loss of some units, rounded to 1e-7 of itself, over [`STEP_IN_SINGLE`].
const TOLERANCE_IN_SINGLE: f64 = 3e-4;

/// Ops with a sample case that no engine at hand computes in double precision, be it that it has no kernel for it or that it rounds to single
/// precision inside: there slopes are taken in single precision. An op that does without does not stay here.
const IN_SINGLE: &[&str] = &[
    "Celu",
    "ConvTranspose",
    "Erf",
    "Gelu",
    "GlobalLpPool",
    "HardSwish",
    "InstanceNormalization",
    "Mean",
    "MeanVarianceNormalization",
    "Resize",
];

/// Sample cases that the embedded engine cannot run, each with the reason; ONNX Runtime checks them. A case that it can run does not stay
/// here.
const BEYOND_TRACT: &[(&str, &str, &str)] = &[
    ("MatMul", "vectors", "no product of two vectors"),
    ("Celu", "an α of its own", "its Celu is another function where α is not 1"),
    ("Einsum", "...ij,...jk->...ik", "no extents of 1 that are broadcast"),
    (
        "GatherND",
        "elements, one twice, one from the back",
        "no indices from the back",
    ),
    ("GlobalLpPool", "Euclidean", "it averages where it should add up"),
    ("GlobalLpPool", "cubes, two axes", "it averages where it should add up"),
    ("Mean", "with a scalar", "no operands of different ranks"),
    ("Pad", "a value that is trained", "no value that is computed"),
    ("Pad", "cropped at one end", "no pads that crop"),
    ("Pad", "wrapped", "no mode wrap"),
    ("ReverseSequence", "a batch of two lengths", "no such op"),
    ("Swish", "an α of its own", "its Swish is another function where α is not 1"),
];

#[test]
fn gradients_are_the_slopes_of_their_ops() {
    let engines = crate::engine_support::engines();
    let mut in_single = BTreeSet::new();
    for engine in &engines {
        let is_tract = engine.name() == TractEngine.name();
        let mut wrong = Vec::new();
        for entry in ops::entries() {
            if !matches!(entry.gradient, Gradient::Rule(_)) {
                continue;
            }
            for sample in (entry.samples)() {
                let beyond = BEYOND_TRACT
                    .iter()
                    .any(|&(op, about, _)| (op, about) == (entry.name, sample.about));
                let mut failed = Vec::new();
                for dialect in [Dialect::default(), dialect(engine.as_ref())] {
                    match check((engine.as_ref(), dialect), &engines, entry, &sample) {
                        Ok(Precision::Double) => {}
                        Ok(Precision::Single) => drop(in_single.insert(entry.name)),
                        Err(why) => failed.push(why),
                    }
                }
                if is_tract && beyond {
                    if failed.is_empty() {
                        wrong.push(format!("{}, {}: it is no longer beyond tract", entry.name, sample.about));
                    }
                    continue;
                }
                wrong.extend(failed.iter().map(|why| format!("{}, {}: {why}", entry.name, sample.about)));
            }
        }
        assert!(wrong.is_empty(), "on {}:\n{}", engine.name(), wrong.join("\n"));
    }
    // Without ONNX Runtime its cases are not checked.
    if engines.len() > 1 {
        assert_eq!(in_single.into_iter().collect::<Vec<_>>(), IN_SINGLE);
    }
}

#[test]
fn exceptions_name_sample_cases() {
    let cases: Vec<(&str, &str)> = ops::entries()
        .flat_map(|entry| (entry.samples)().into_iter().map(|sample| (entry.name, sample.about)))
        .collect();
    for (op, about, why) in BEYOND_TRACT {
        assert!(cases.contains(&(op, about)) && !why.is_empty(), "{op}, {about}");
    }
    for op in IN_SINGLE {
        assert!(cases.iter().any(|(name, _)| name == op), "{op}");
    }
}

#[test]
fn every_gradient_rule_has_samples() {
    // Kernels and spellings have tests of their own: `engine/kernels/tests.rs`, `tests/library/block_gradients.rs`, `check_gradients.py`.
    let straight_through = ["FakeQuantize"];
    for entry in ops::entries() {
        let has_rule = matches!(entry.gradient, Gradient::Rule(_));
        let excused = straight_through.contains(&entry.name);
        assert_eq!(has_rule && !excused, !(entry.samples)().is_empty(), "{}", entry.name);
    }
}

/// In what slopes are computed.
#[derive(Clone, Copy, PartialEq)]
enum Precision {
    Single,
    Double,
}

/// Compares the gradients that `engine` computes with the slopes that the first of `referees` computes that can; in which precision it could.
fn check(
    (engine, dialect): (&dyn Engine, Dialect),
    referees: &[Box<dyn Engine>],
    entry: &OpEntry,
    sample: &Sample,
) -> Result<Precision, String> {
    let (model, feeds) = with_loss(entry, sample)?;
    let mut session = load(engine, model.clone(), &[&INFER_TYPES, &DIFFERENTIATE, &LEGALIZE], dialect)?;
    let gradients = session.run(&feeds).map_err(|error| format!("{error:#}"))?;
    let mut why = "no engine computes it".to_owned();
    let precisions: &[Precision] = if IN_SINGLE.contains(&entry.name) {
        &[Precision::Double, Precision::Single]
    } else {
        &[Precision::Double]
    };
    for &precision in precisions {
        let passes: &[&'static Pass] = match precision {
            Precision::Single => &[&INFER_TYPES, &LEGALIZE],
            Precision::Double => &[&INFER_TYPES, &LEGALIZE, &WIDEN_TO_DOUBLE],
        };
        for referee in referees {
            let slopes = load(referee.as_ref(), model.clone(), passes, Dialect::default());
            match slopes.and_then(|mut slopes| compare(&gradients, slopes.as_mut(), &feeds, precision)) {
                Ok(()) => return Ok(precision),
                Err(differs) => why = differs,
            }
        }
    }
    Err(why)
}

fn compare(gradients: &Tensors, slopes: &mut dyn Session, feeds: &Tensors, precision: Precision) -> Result<(), String> {
    let given = |moved: Option<(&str, usize, f64)>| -> Tensors {
        let feed = |(name, tensor): (&String, &Tensor)| {
            let moved = moved.filter(|(of, ..)| of == name).map(|(_, index, by)| (index, by));
            (name.clone(), with_moved(tensor, moved, precision))
        };
        feeds.iter().map(feed).collect()
    };
    for (name, at) in feeds.iter().filter(|(_, at)| at.dtype() == DType::F32) {
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
                let outputs = slopes
                    .run(&given(Some((name, index, by))))
                    .map_err(|error| format!("{error:#}"))?;
                let loss = outputs.get("loss").and_then(Tensor::to_f64);
                loss.and_then(|loss| loss.first().copied())
                    .ok_or_else(|| "no loss".to_owned())
            };
            let mut across = |step: f64| Ok::<f64, String>(loss(step)? - loss(-step)?);
            let (slope, tolerance) = match precision {
                Precision::Double => (across(STEP)? / (2.0 * STEP), TOLERANCE),
                Precision::Single => {
                    let (near, far) = (across(STEP_IN_SINGLE)?, across(2.0 * STEP_IN_SINGLE)?);
                    ((8.0 * near - far) / (12.0 * STEP_IN_SINGLE), TOLERANCE_IN_SINGLE)
                }
            };
            if (value - slope).abs().partial_cmp(&(tolerance * scale)) != Some(std::cmp::Ordering::Less) {
                return Err(format!(
                    "element {index} of the gradient of {name} is {value}, the slope is {slope}"
                ));
            }
        }
    }
    Ok(())
}

/// `tensor` in a precision, with one element moved; integers stay as they are.
fn with_moved(tensor: &Tensor, moved: Option<(usize, f64)>, precision: Precision) -> Tensor {
    if tensor.dtype() != DType::F32 {
        return tensor.clone();
    }
    let mut values = tensor.to_f64().expect("samples are numbers");
    if let Some((index, by)) = moved {
        values[index] += by;
    }
    match precision {
        Precision::Double => Tensor::new(tensor.shape(), values),
        Precision::Single => Tensor::new(tensor.shape(), values.iter().map(|&value| value as f32).collect()),
    }
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
        .load(&written.model, &crate::engine_support::options(&[]))
        .map_err(|error| format!("{error:#}"))
}
