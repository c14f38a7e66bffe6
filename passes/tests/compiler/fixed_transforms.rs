//! Which weights are known to be computed and not trained.

use std::sync::Arc;

use crate::common::{nodes, notes, run_in};
use lsqc_passes::analyze::{INFER_TYPES, fixed_transform, weighted};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::quantize::{PLACE_QUANTIZERS, QuantizePlan, WeightOnlyPlan};
use lsqc_passes::target::Tail;
use lsqc_passes::text;
use lsqc_passes::train::CHOOSE_PARAMETERS;

/// What a convolution of one input channel with these rows is taken for.
fn of_rows(rows: &[Vec<f32>]) -> Option<&'static str> {
    let (count, length) = (rows.len(), rows[0].len());
    let values: Vec<String> = rows.concat().iter().map(ToString::to_string).collect();
    let weight = format!("float[{count},1,{length}] w = {{{}}}", values.join(", "));
    let graph = format!("g (float[N,1,L] x) => (float[N,{count},M] y) <{weight}> {{ y = Conv (x, w) }}");
    let graph = text::parse_graph(&graph).unwrap();
    let id = graph.node_ids().next().unwrap();
    fixed_transform(&graph, &weighted(&graph, id).unwrap())
}

fn hann(length: usize, at: usize) -> f64 {
    let turn = 2.0 * std::f64::consts::PI * at as f64 / length as f64;
    0.5 - 0.5 * turn.cos()
}

/// Cosines, then sines.
#[allow(clippy::cast_possible_truncation)]
fn fourier(length: usize, window: impl Fn(usize) -> f64) -> Vec<Vec<f32>> {
    let part = |frequency: usize, phase: f64| {
        let value = |at: usize| {
            let turn = 2.0 * std::f64::consts::PI * (frequency * at) as f64 / length as f64;
            (window(at) * (turn - phase).cos()) as f32
        };
        (0..length).map(value).collect()
    };
    let cosines = (0..=length / 2).map(|frequency| part(frequency, 0.0));
    // That of frequency 0 is nothing, that of half a turn nearly so.
    let sines = (0..=length / 2).map(|frequency| part(frequency, std::f64::consts::FRAC_PI_2));
    cosines.chain(sines).collect()
}

#[test]
fn fourier_transforms_are_known_with_and_without_a_window() {
    for length in [64, 100, 256] {
        assert!(of_rows(&fourier(length, |_| 1.0)).unwrap().contains("Fourier"), "{length}");
        assert!(
            of_rows(&fourier(length, |at| hann(length, at))).unwrap().contains("Fourier"),
            "{length}"
        );
    }
}

#[test]
fn what_may_be_trained_is_not() {
    let noise = |seed: u32| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5) as f32
        };
        (0..64).map(|_| next()).collect::<Vec<f32>>()
    };
    let random: Vec<Vec<f32>> = (0..16).map(|row| noise(row + 1)).collect();
    assert_eq!(of_rows(&random), None);
    // One row that was trained.
    let mut rows = fourier(64, |at| hann(64, at));
    rows[7].clone_from(&random[0]);
    assert_eq!(of_rows(&rows), None);
    // Smooth rows of about the same low frequencies.
    let low = |row: usize| (0..64).map(|at| (hann(64, at) * (1.0 + 0.1 * row as f64)) as f32).collect();
    assert_eq!(of_rows(&(0..16).map(low).collect::<Vec<Vec<f32>>>()), None);
    // Too short for a spectrum.
    assert_eq!(of_rows(&fourier(32, |_| 1.0)), None);
    assert_eq!(of_rows(&[noise(1)]), None);
    assert_eq!(of_rows(&[vec![0.0; 64]]), None);
}

#[test]
fn a_designed_filter_is_known_by_its_symmetry() {
    let filter: Vec<f32> = (0..64).map(|at| hann(63, at) as f32).collect();
    let mirrored: Vec<f32> = (0..64).map(|at| filter[at.min(63 - at)]).collect();
    assert!(of_rows(&[mirrored]).unwrap().contains("symmetric"));
}

/// A matrix that is a Fourier transform, and one that is not.
fn products() -> String {
    let rows = fourier(64, |_| 1.0);
    let values: Vec<String> = (0..64)
        .flat_map(|at| rows.iter().map(move |row| row[at].to_string()))
        .collect();
    let count = rows.len();
    format!(
        "g (float[N,64] x) => (float[N,3] y)
        <float[64,{count}] bank = {{{}}}, float[{count},3] w = normal(seed = 1)>
        {{ [spectrum] s = MatMul (x, bank)  [layer] y = MatMul (s, w) }}",
        values.join(", ")
    )
}

#[test]
fn they_are_not_trained() {
    let model = run_in(
        &[&INFER_TYPES, &CHOOSE_PARAMETERS],
        &mut PassCx::new(&NoEvaluator),
        &products(),
    )
    .unwrap();
    let graph = &model.graph;
    let trained: Vec<&str> = graph.inputs().iter().map(|&input| graph[input].name()).collect();
    assert_eq!(trained, ["x", "w"]);
}

#[test]
fn their_weights_alone_are_not_quantized_either() {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(QuantizePlan {
        weight_only: Some(WeightOnlyPlan {
            bits: 4,
            block: 32,
            tail: Tail::Short,
            rule: Arc::new(|_| None),
        }),
        ..QuantizePlan::default()
    });
    let model = run_in(&[&INFER_TYPES, &PLACE_QUANTIZERS], &mut cx, &products()).unwrap();
    assert!(nodes(&model).contains("s = MatMul (x, bank)"), "{}", nodes(&model));
    assert!(
        notes(&cx).starts_with("spectrum (MatMul): stays in floats: its weight is a Fourier transform"),
        "{}",
        notes(&cx)
    );
}
