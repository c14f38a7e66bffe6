//! The loss of each kind of output in numbers, against its formula in double precision: on the embedded engine, student and teacher both fed.

use lsqc::compiler::{Compiler, serialize};
use lsqc::engine::{Engine, LoadOptions, Tensors, TractEngine};
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Tensor;
use lsqc_passes::legalize::LEGALIZE;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::text::parse;
use lsqc_passes::train::{ATTACH_LOSS, Loss, LossPlan, OutputKind, OutputLoss, Variance};

/// Single precision over some tens of numbers of about 1.
const ROUNDING: f64 = 1e-5;
const ROWS: usize = 4;
const COLUMNS: usize = 3;

/// The student's numbers and the teacher's: the large ones would overflow an exponential.
fn numbers() -> [Vec<f32>; 2] {
    let student = vec![0.5, -1.0, 2.0, 0.0, 0.25, -0.5, 120.0, -3.0, 1.0, 1.5, -2.0, 0.125];
    let teacher = vec![0.25, -1.5, 1.0, 0.0, 0.5, 0.5, 118.0, -2.0, 0.0, 1.0, -1.0, -0.25];
    [student, teacher]
}

/// The loss of outputs that end in `op`, each of the student's from `x` and of the teacher's from `t`.
fn loss(op: &str, outputs: &[(&str, OutputLoss)]) -> f64 {
    let names: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
    let text = |from: &str| {
        let body: Vec<String> = names.iter().map(|name| format!("{name} = {op} ({from})")).collect();
        format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>
            g (float[{ROWS},{COLUMNS}] x, float[{ROWS},{COLUMNS}] t) => (float[{ROWS},{COLUMNS}] {}) {{ {} }}",
            names.join(&format!(", float[{ROWS},{COLUMNS}] ")),
            body.join("  ")
        )
    };
    let plan = LossPlan {
        loss: Loss::Distillation,
        teacher: Some(parse(&text("t")).unwrap()),
        outputs: outputs
            .iter()
            .map(|(name, loss)| ((*name).to_owned(), loss.clone()))
            .collect(),
    };
    let mut model = parse(&text("x")).unwrap();
    let passes = [&INFER_TYPES, &ATTACH_LOSS, &LEGALIZE];
    Compiler::default()
        .run(&passes, &mut model, |cx| cx.set(plan), |_| ())
        .unwrap();
    let mut session = TractEngine
        .load(&serialize(&model, OwnOps::Refuse).unwrap(), &LoadOptions::plain())
        .unwrap();
    let [x, t] = numbers().map(|values| Tensor::new(&[ROWS, COLUMNS], values));
    let given = session
        .run(&Tensors::from([("x".to_owned(), x), ("t".to_owned(), t)]))
        .unwrap();
    given["loss"].to_f64().unwrap()[0]
}

fn expected(each: impl Fn(&[f64], &[f64]) -> f64, rows: usize) -> f64 {
    let [s, t] = numbers().map(|values| values.into_iter().map(f64::from).collect::<Vec<f64>>());
    let all = s.chunks_exact(rows).zip(t.chunks_exact(rows));
    all.map(|(s, t)| each(s, t)).sum::<f64>() / (s.len() / rows) as f64
}

fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < ROUNDING * expected.abs().max(1.0),
        "{found} {expected}"
    );
}

fn divergence(s: &[f64], t: &[f64]) -> f64 {
    let log_p = |z: &[f64]| {
        let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = z.iter().map(|z| (z - most).exp()).sum();
        z.iter().map(|z| z - most - sum.ln()).collect::<Vec<f64>>()
    };
    log_p(t).iter().zip(log_p(s)).map(|(t, s)| t.exp() * (t - s)).sum()
}

#[test]
fn classes_before_and_without_a_softmax() {
    let classes = OutputLoss::of(OutputKind::Classes);
    near(loss("Softmax", &[("y", classes.clone())]), expected(divergence, COLUMNS));
    near(loss("Identity", &[("y", classes)]), expected(divergence, COLUMNS));
}

#[test]
fn probabilities_before_a_sigmoid() {
    let bernoulli = |s: &[f64], t: &[f64]| {
        // log σ(z) = −log(1 + e^−z), for z of either sign.
        let log = |z: f64| z.min(0.0) - (-z.abs()).exp().ln_1p();
        let (s, t) = (s[0], t[0]);
        log(t).exp() * (log(t) - log(s)) + log(-t).exp() * (log(-t) - log(-s))
    };
    near(
        loss("Sigmoid", &[("y", OutputLoss::of(OutputKind::Probabilities))]),
        expected(bernoulli, 1),
    );
}

#[test]
fn values_over_their_variance() {
    let each = Variance {
        axis: Some(1),
        values: vec![0.5, 1.0, 4.0],
    };
    let weighed = |s: &[f64], t: &[f64]| {
        let terms = s.iter().zip(t).zip([0.5, 1.0, 4.0]);
        terms.map(|((s, t), var)| (s - t).powi(2) / var).sum::<f64>() / COLUMNS as f64
    };
    let values = OutputLoss {
        variance: each,
        ..OutputLoss::of(OutputKind::Values)
    };
    near(loss("Identity", &[("y", values)]), expected(weighed, COLUMNS));
}

#[test]
fn cosines_of_rows() {
    let apart = |s: &[f64], t: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        1.0 - dot(s, t) / (dot(s, s) * dot(t, t)).sqrt()
    };
    near(
        loss("Identity", &[("y", OutputLoss::of(OutputKind::Cosine))]),
        expected(apart, COLUMNS),
    );
}

/// Several outputs are weighed, and the weights add up to 1; what is ignored has no part in it.
#[test]
fn outputs_are_weighed() {
    let [classes, cosine] = [OutputKind::Classes, OutputKind::Cosine].map(OutputLoss::of);
    let alone = [classes.clone(), cosine.clone()].map(|output| loss("Identity", &[("y", output)]));
    let heavy = OutputLoss { weight: 3.0, ..cosine };
    let ignored = OutputLoss::of(OutputKind::Ignored);
    let both = loss("Identity", &[("y", classes), ("z", heavy), ("n", ignored)]);
    near(both, 0.25 * alone[0] + 0.75 * alone[1]);
}

/// A student that is its teacher has no loss, of whatever kind, and however large its numbers.
#[test]
fn equal_outputs_have_no_loss() {
    for (op, kind) in [
        ("Softmax", OutputKind::Classes),
        ("Sigmoid", OutputKind::Probabilities),
        ("Identity", OutputKind::Values),
        ("Identity", OutputKind::Cosine),
    ] {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>
            g (float[{ROWS},{COLUMNS}] x) => (float[{ROWS},{COLUMNS}] y) {{ y = {op} (x) }}"
        );
        let model = parse(&text).unwrap();
        let plan = LossPlan {
            loss: Loss::Distillation,
            teacher: Some(model.clone()),
            outputs: [("y".to_owned(), OutputLoss::of(kind))].into(),
        };
        let mut with = model;
        Compiler::default()
            .run(&[&INFER_TYPES, &ATTACH_LOSS, &LEGALIZE], &mut with, |cx| cx.set(plan), |_| ())
            .unwrap();
        let mut session = TractEngine
            .load(&serialize(&with, OwnOps::Refuse).unwrap(), &LoadOptions::plain())
            .unwrap();
        let [x, _] = numbers();
        let x = Tensor::new(&[ROWS, COLUMNS], x);
        let given = session.run(&Tensors::from([("x".to_owned(), x)])).unwrap();
        near(given["loss"].to_f64().unwrap()[0], 0.0);
    }
}
