//! The schedule by which oscillating weights are frozen, and how many oscillate at the end (arXiv 2203.11086).
//!
//! The threshold on the frequency falls along a cosine over the whole of training, θ = θ₁ + (θ₀ − θ₁)/2 · (1 + cos(π·t/T)): at first only
//! weights that turn back every few steps are frozen, at the end nearly all that turn back at all. θ₀ = 0.04 and θ₁ = 0.01 are those
//! of the paper's experiments.

use std::collections::BTreeMap;

use lsqc_passes::ir::{self, Tensor};

use super::train::cosine;
use crate::engine::Tensors;

/// θ₀.
const FIRST_THRESHOLD: f64 = 0.04;
/// θ₁.
const LAST_THRESHOLD: f32 = 0.01;
/// A weight oscillates if its frequency is above this, as the paper counts.
const OSCILLATES: f32 = 0.005;

/// The threshold at step `step` of `steps`.
#[must_use]
pub fn freeze_threshold(step: u64, steps: u64) -> f32 {
    LAST_THRESHOLD + cosine(FIRST_THRESHOLD - f64::from(LAST_THRESHOLD), step, steps)
}

/// What became of a weight's elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oscillation {
    /// How many it has.
    pub elements: u64,
    /// How many still oscillate.
    pub oscillating: u64,
    /// How many are frozen.
    pub frozen: u64,
}

/// Counts what the state of a step graph says of each weight that it watches, by the name of the weight.
#[must_use]
pub fn oscillations(state: &Tensors) -> BTreeMap<String, Oscillation> {
    let prefix = ir::Oscillation::Frequency.input("");
    let counted = state.iter().filter_map(|(input, frequency)| {
        let weight = input.strip_prefix(&prefix)?;
        let frozen = state.get(&ir::Oscillation::Frozen.input(weight))?;
        let count = |tensor: &Tensor, above: f32| Some(tensor.to_f32()?.iter().filter(|&&value| value > above).count() as u64);
        let oscillation = Oscillation {
            elements: frequency.len() as u64,
            oscillating: count(frequency, OSCILLATES)?,
            frozen: count(frozen, 0.0)?,
        };
        Some((weight.to_owned(), oscillation))
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_falls_from_the_first_to_the_last() {
        assert_eq!(freeze_threshold(0, 100), 0.04);
        assert!((freeze_threshold(50, 100) - 0.025).abs() < 1e-7);
        assert!(freeze_threshold(99, 100) > LAST_THRESHOLD);
        assert!((1..100).all(|step| freeze_threshold(step, 100) < freeze_threshold(step - 1, 100)));
    }

    #[test]
    fn elements_are_counted() {
        let state = Tensors::from([
            ("w".to_owned(), Tensor::vector(vec![1.0f32; 4])),
            ("frequency/w".to_owned(), Tensor::vector(vec![0.0f32, 0.005, 0.0051, 0.5])),
            ("frozen/w".to_owned(), Tensor::vector(vec![0.0f32, 0.0, 0.0, 1.0])),
        ]);
        let expected = Oscillation {
            elements: 4,
            oscillating: 2,
            frozen: 1,
        };
        assert_eq!(oscillations(&state), BTreeMap::from([("w".to_owned(), expected)]));
    }
}
