//! Which weights are known to be computed and not trained.

use lsqc_passes::analyze::{fixed_transform, weighted};
use lsqc_passes::text;

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
