//! Initial step sizes.

use super::{PAPER_BITS, StepInit};
use crate::ops::QuantRange;

/// The initial step for `values` by `init`; `None` where they are all zero, or so small that no normal number is a step for them.
#[must_use]
pub fn initial(values: &[f32], range: QuantRange, init: StepInit) -> Option<f32> {
    match init {
        StepInit::ByBits if range.bits <= PAPER_BITS => lsq(values, range),
        StepInit::Lsq => lsq(values, range),
        StepInit::ByBits | StepInit::MinMse => min_mse(values, range),
    }
}

/// s = 2·mean|v|/√Q_P (arXiv 1902.08153, section 2.1).
#[must_use]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
pub fn lsq(values: &[f32], range: QuantRange) -> Option<f32> {
    let mean = values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len().max(1) as f64;
    let step = (2.0 * mean / f64::from(range.q_p()).sqrt()) as f32;
    step.is_normal().then_some(step)
}

/// The step of the least mean squared error: a coarse scan of 2 % steps down from the one that clips nothing, then a fine one around the
/// best.
#[must_use]
pub fn min_mse(values: &[f32], range: QuantRange) -> Option<f32> {
    const COARSE: f32 = 0.98;
    const FINE: f32 = 1.002;
    // At 2 bits the best step clips at a few tenths of the largest value; a hundredth is beyond any use.
    const SMALLEST: f32 = 0.01;
    let (lo, hi) = range.bounds();
    let largest = values.iter().fold(0.0f32, |most, &v| {
        most.max(if v < 0.0 && lo < 0.0 { v / lo } else { v.max(0.0) / hi })
    });
    // Below the normal numbers a product with 0.98 or 1.002 may be the number itself, and the scans would not end.
    if !(largest.is_finite() && (largest * SMALLEST * COARSE).is_normal()) {
        return None;
    }
    let coarse = std::iter::successors(Some(largest), |step| Some(step * COARSE)).take_while(|&step| step > largest * SMALLEST);
    let best = least(coarse, values, range)?;
    let fine = std::iter::successors(Some(best * COARSE), |step| Some(step * FINE)).take_while(|&step| step < best / COARSE);
    least(std::iter::once(best).chain(fine), values, range)
}

fn least(steps: impl Iterator<Item = f32>, values: &[f32], range: QuantRange) -> Option<f32> {
    let scored = steps.map(|step| (mean_squared_error(values, step, range), step));
    scored.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step)
}

/// Mean of (v̂ − v)².
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn mean_squared_error(values: &[f32], step: f32, range: QuantRange) -> f64 {
    /// Sums side by side, so that they vectorise.
    const LANES: usize = 16;
    // Added and taken away again it leaves the nearest integer, half to even, of anything this side of 2²²; codes are under 2⁸.
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³
    let (lo, hi) = range.bounds();
    let square = |v: f32| {
        let error = ((v / step).max(lo).min(hi) + ROUND - ROUND) * step - v;
        error * error
    };
    // Sums of a few thousand singles lose nothing that matters; their total is kept in double.
    let chunks = values.chunks(4096).map(|chunk| {
        let mut sums = [0.0f32; LANES];
        let (whole, rest) = chunk.as_chunks::<LANES>();
        for values in whole {
            for (sum, &v) in sums.iter_mut().zip(values) {
                *sum += square(v);
            }
        }
        for (sum, &v) in sums.iter_mut().zip(rest) {
            *sum += square(v);
        }
        sums.iter().map(|&sum| f64::from(sum)).sum::<f64>()
    });
    chunks.sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED_3: QuantRange = QuantRange { bits: 3, signed: true };

    #[test]
    fn lsq_is_the_papers_formula() {
        let step = lsq(&[1.0, -2.0, 3.0], SIGNED_3);
        assert_eq!(step, Some((2.0 * 2.0 / 3f64.sqrt()) as f32));
    }

    #[test]
    fn many_bits_start_where_the_error_is_least() {
        let values: Vec<f32> = (1..500).map(|i| (i as f32 * 0.7).sin()).collect();
        let by_bits = |bits| initial(&values, QuantRange { bits, signed: true }, StepInit::ByBits);
        assert_eq!(by_bits(4), lsq(&values, QuantRange { bits: 4, signed: true }));
        assert_eq!(by_bits(5), min_mse(&values, QuantRange { bits: 5, signed: true }));
    }

    #[test]
    fn the_error_is_its_definition() {
        // Halves among them, which go to even, and values beyond both bounds.
        let values: Vec<f32> = (-50..50).map(|i| i as f32 * 0.25).collect();
        let squares = values.iter().map(|&v| {
            let error = v.clamp(-4.0, 3.0).round_ties_even() - v;
            f64::from(error) * f64::from(error)
        });
        let expected = squares.sum::<f64>() / values.len() as f64;
        // Quarters and their squares are exact in single precision.
        assert_eq!(mean_squared_error(&values, 1.0, SIGNED_3), expected);
    }

    #[test]
    fn zeros_have_no_step() {
        assert_eq!(lsq(&[0.0; 4], SIGNED_3), None);
        assert_eq!(min_mse(&[0.0; 4], SIGNED_3), None);
        assert_eq!(min_mse(&[], SIGNED_3), None);
    }

    #[test]
    fn numbers_below_the_normal_ones_have_no_step() {
        let tiny = [1e-42, -3e-41, 2e-40];
        assert_eq!((lsq(&tiny, SIGNED_3), min_mse(&tiny, SIGNED_3)), (None, None));
        let step = min_mse(&[1e-35, -3e-35, 2e-35], SIGNED_3).unwrap();
        assert!(step.is_normal() && step < 3e-35, "{step:e}");
    }

    #[test]
    fn min_mse_finds_a_grid_that_holds_the_values() {
        let values: Vec<f32> = (-4..4).map(|level| level as f32 * 0.37).collect();
        let step = min_mse(&values, SIGNED_3).unwrap();
        assert!((step - 0.37).abs() < 0.37 * 0.002, "{step}");
    }

    #[test]
    fn min_mse_beats_the_papers_step() {
        let values: Vec<f32> = (1..2000).map(|i| ((i as f32 * 0.7).sin() * 3.0).powi(3)).collect();
        let [best, paper] =
            [min_mse(&values, SIGNED_3), lsq(&values, SIGNED_3)].map(|step| mean_squared_error(&values, step.unwrap(), SIGNED_3));
        assert!(best <= paper);
    }
}
