//! How near the outputs of one network are to those of another, output by output, whatever they mean.
//!
//! With r the reference's values and x the other's, over all samples: the mean over samples of the cosine r·x/(|r|·|x|); the signal-to-noise
//! ratio 10·log₁₀(Σ r² / Σ (x − r)²) in dB; the relative error Σ|x − r| / Σ|r|; the largest |x − r|. Where an axis holds classes, also the
//! share of positions with the same arg-max, and of samples with the same one at every position: of `[N, T, C]` positions are the N·T rows
//! and a sample is a whole sequence. Integers are compared for being equal, position by position and sample by sample.
//!
//! Numbers that are not finite make a difference infinite and are left out of nothing: the figures are then not to be had.

use lsqc_passes::ir::Tensor;

use crate::report;

/// What was seen of one output so far.
#[derive(Clone, Debug, Default)]
pub struct Fidelity {
    floats: Option<Floats>,
    same: Option<Same>,
    largest: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Floats {
    /// Σ r².
    signal: f64,
    /// Σ (x − r)².
    noise: f64,
    /// Σ |r|.
    size: f64,
    /// Σ |x − r|.
    error: f64,
    cosines: f64,
    samples: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Same {
    positions: u64,
    of_positions: u64,
    samples: u64,
    of_samples: u64,
}

/// The samples of a batch that count: the first `real` of `size`.
#[derive(Clone, Copy, Debug)]
pub struct Real {
    /// Samples that are none of the padding.
    pub real: usize,
    /// All of them.
    pub size: usize,
}

impl Fidelity {
    /// Adds a batch of the reference's output and of the other's, of the same shape; `classes` is the axis of classes, if it has one. False
    /// where they are no numbers.
    #[must_use]
    pub fn add(&mut self, reference: &Tensor, other: &Tensor, batch: Real, classes: Option<usize>) -> bool {
        let (Some(r), Some(x)) = (reference.to_f64(), other.to_f64()) else {
            return false;
        };
        let shape = reference.shape();
        // What has no batch axis is one sample of its own.
        let samples = if shape.first() == Some(&batch.size) { batch.size } else { 1 };
        let each = r.len().checked_div(samples).unwrap_or(0);
        if each == 0 || x.len() != r.len() {
            return true;
        }
        let is_float = reference.dtype().is_float();
        let inside = shape
            .get(usize::from(samples > 1 || shape.first() == Some(&batch.size))..)
            .unwrap_or(&[]);
        let axis = classes
            .filter(|_| is_float)
            .and_then(|axis| axis.checked_sub(shape.len() - inside.len()));
        for (r, x) in r.chunks_exact(each).zip(x.chunks_exact(each)).take(batch.real.min(samples)) {
            let differences = r.iter().zip(x).map(|(r, x)| (x - r).abs());
            self.largest = differences.fold(
                self.largest,
                |most, next| {
                    if next.is_nan() { f64::INFINITY } else { most.max(next) }
                },
            );
            if is_float {
                self.floats.get_or_insert_default().add(r, x);
            }
            let positions = match axis {
                Some(axis) => Some((arg_max(r, inside, axis), arg_max(x, inside, axis))),
                None if is_float => None,
                None => Some((r.to_vec(), x.to_vec())),
            };
            if let Some((r, x)) = positions {
                self.same.get_or_insert_default().add(&r, &x);
            }
        }
        true
    }

    /// The largest difference of any value; `None` if one is not finite.
    #[must_use]
    pub fn largest_difference(&self) -> Option<f64> {
        Some(self.largest).filter(|most| most.is_finite())
    }

    /// The report's words.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn report(&self) -> report::Fidelity {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let share = |part: u64, of: u64| finite(part as f64 / of as f64);
        let floats = self.floats.unwrap_or_default();
        report::Fidelity {
            cosine: finite(floats.cosines / floats.samples as f64),
            snr_db: finite(10.0 * (floats.signal / floats.noise).log10()),
            relative_error: finite(floats.error / floats.size),
            largest_difference: self.largest_difference(),
            same_positions: self.same.and_then(|same| share(same.positions, same.of_positions)),
            same_samples: self.same.and_then(|same| share(same.samples, same.of_samples)),
        }
    }
}

impl Floats {
    #[allow(clippy::float_cmp)]
    fn add(&mut self, r: &[f64], x: &[f64]) {
        let (mut dot, mut of_r, mut of_x) = (0.0, 0.0, 0.0);
        for (r, x) in r.iter().zip(x) {
            dot += r * x;
            of_r += r * r;
            of_x += x * x;
            self.noise += (x - r) * (x - r);
            self.size += r.abs();
            self.error += (x - r).abs();
        }
        self.signal += of_r;
        self.samples += 1;
        // Two samples of nothing but zeros point the same way.
        let both_zero = of_r == 0.0 && of_x == 0.0;
        let lengths = (of_r * of_x).sqrt();
        self.cosines += match (both_zero, lengths > 0.0) {
            (true, _) => 1.0,
            (false, true) => dot / lengths,
            (false, false) if dot.is_nan() => f64::NAN,
            (false, false) => 0.0,
        };
    }
}

impl Same {
    #[allow(clippy::float_cmp)]
    fn add(&mut self, r: &[f64], x: &[f64]) {
        let same = r.iter().zip(x).filter(|(r, x)| r == x).count() as u64;
        let all = r.len() as u64;
        self.positions += same;
        self.of_positions += all;
        self.samples += u64::from(same == all);
        self.of_samples += 1;
    }
}

/// The place of the largest value along `axis`, the first of equals, at every other position of `shape`.
#[allow(clippy::cast_precision_loss)]
fn arg_max(values: &[f64], shape: &[usize], axis: usize) -> Vec<f64> {
    let extent = shape.get(axis).copied().unwrap_or(1).max(1);
    let inner: usize = shape.iter().skip(axis + 1).product::<usize>().max(1);
    let mut places = Vec::with_capacity(values.len() / extent);
    for block in values.chunks_exact(extent * inner) {
        for at in 0..inner {
            let along = block.iter().skip(at).step_by(inner).enumerate();
            let best = along.fold(
                (0, f64::NEG_INFINITY),
                |best, (place, &value)| {
                    if value > best.1 { (place, value) } else { best }
                },
            );
            places.push(best.0 as f64);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values are given to that.
    const DIGITS: f64 = 1e-9;

    fn of(shape: &[usize], r: &[f32], x: &[f32], real: usize, classes: Option<usize>) -> report::Fidelity {
        let mut fidelity = Fidelity::default();
        let size = shape[0];
        let tensor = |values: &[f32]| Tensor::new(shape, values.to_vec());
        assert!(fidelity.add(&tensor(r), &tensor(x), Real { real, size }, classes));
        fidelity.report()
    }

    fn near(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < DIGITS, "{found:?} {expected}");
    }

    #[test]
    fn by_hand() {
        let found = of(&[2, 2], &[3.0, 4.0, 1.0, 0.0], &[4.0, 3.0, 1.0, 1.0], 2, None);
        near(found.cosine, f64::midpoint(24.0 / 25.0, 0.5f64.sqrt()));
        near(found.snr_db, 10.0 * (26.0f64 / 3.0).log10());
        near(found.relative_error, 3.0 / 8.0);
        near(found.largest_difference, 1.0);
        assert_eq!((found.same_positions, found.same_samples), (None, None));
        // The second sample is padding.
        near(
            of(&[2, 2], &[3.0, 4.0, 1.0, 0.0], &[4.0, 3.0, 1.0, 1.0], 1, None).relative_error,
            2.0 / 7.0,
        );
    }

    #[test]
    fn equal_outputs_have_no_noise() {
        let found = of(&[1, 2], &[0.0, 0.0], &[0.0, 0.0], 1, None);
        assert_eq!((found.cosine, found.snr_db, found.relative_error), (Some(1.0), None, None));
        let found = of(&[1, 2], &[1.0, 2.0], &[1.0, f32::NAN], 1, None);
        assert_eq!((found.cosine, found.largest_difference), (None, None));
    }

    #[test]
    fn sequences_are_compared_by_position_and_whole() {
        // [N, T, C]: the second sequence differs at one of its two positions.
        let r = [1.0, 2.0, 5.0, 0.0, 1.0, 2.0, 5.0, 0.0];
        let x = [1.0, 3.0, 4.0, 0.0, 3.0, 2.0, 5.0, 0.0];
        let found = of(&[2, 2, 2], &r, &x, 2, Some(2));
        assert_eq!((found.same_positions, found.same_samples), (Some(0.75), Some(0.5)));
        // Along the other axis, as [N, C, T], every arg-max is the same.
        let found = of(&[2, 2, 2], &r, &x, 2, Some(1));
        assert_eq!((found.same_positions, found.same_samples), (Some(1.0), Some(1.0)));
        assert_eq!(arg_max(&[1.0, 9.0, 5.0, 0.0, 7.0, 7.0], &[3, 2], 0), [2.0, 0.0]);
    }

    #[test]
    fn integers_are_equal_or_not() {
        let mut fidelity = Fidelity::default();
        let tensor = |values: &[i64]| Tensor::new(&[2, 2], values.to_vec());
        let batch = Real { real: 2, size: 2 };
        assert!(fidelity.add(&tensor(&[1, 2, 3, 4]), &tensor(&[1, 2, 3, 9]), batch, None));
        let found = fidelity.report();
        assert_eq!((found.cosine, found.snr_db, found.relative_error), (None, None, None));
        assert_eq!((found.same_positions, found.same_samples), (Some(0.75), Some(0.5)));
        assert_eq!(found.largest_difference, Some(5.0));
    }
}
