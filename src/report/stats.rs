//! Metrics and their uncertainty.
//!
//! A share of n samples gets Wilson's interval: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). The drop between two models on the
//! same samples is paired: with b samples that only the first has right and c that only the second has, the estimate is (b − c)/n, and
//! the interval is Agresti and Min's (2005): Wald's, after half a sample is added to each cell of the 2 × 2 table, so that it has a width
//! even where the models never differ. z = 1.96 (95 %).

use serde::{Deserialize, Serialize};

use super::outputs::ModelOutput;

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a share, each bound 0 to 1; `None` without samples.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn wilson(right: u64, samples: u64) -> Option<[f64; 2]> {
    if samples == 0 {
        return None;
    }
    let n = samples as f64;
    let p = right as f64 / n;
    let center = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some([((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0)])
}

/// Points lost from a first model to a second one on the same samples, and the paired 95 % interval of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Drop {
    /// Points (percent of all samples) of top-1 that were lost; below 0: gained.
    pub points: f64,
    /// The 95 % interval, in points.
    pub interval: [f64; 2],
    /// Samples that only the first model has right.
    pub lost: u64,
    /// Samples that only the second model has right.
    pub gained: u64,
}

/// The drop where `lost` samples are right only in the first model and `gained` only in the second; `None` without samples.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn paired_drop(lost: u64, gained: u64, samples: u64) -> Option<Drop> {
    if samples == 0 {
        return None;
    }
    let (b, c, n) = (lost as f64, gained as f64, samples as f64);
    let adjusted = n + 2.0;
    let discordant = b + c + 1.0;
    let center = (b - c) / adjusted;
    let half = Z * (discordant - (b - c).powi(2) / adjusted).max(0.0).sqrt() / adjusted;
    Some(Drop {
        points: 100.0 * (b - c) / n,
        interval: [100.0 * (center - half), 100.0 * (center + half)],
        lost,
        gained,
    })
}

/// The drop from a first to a second model, by what each made of the same samples; `None` without any.
#[must_use]
pub fn drop_of(before: &[Outcome], after: &[Outcome]) -> Option<Drop> {
    let count = |won: &dyn Fn(&Outcome, &Outcome) -> bool| before.iter().zip(after).filter(|(a, b)| won(a, b)).count() as u64;
    let lost = count(&|a, b| a.is_right() && !b.is_right());
    let gained = count(&|a, b| !a.is_right() && b.is_right());
    paired_drop(lost, gained, before.len() as u64)
}

/// What one model made of one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Classes with a higher score than the label's, or an equal one and a lower number: 0 is a right top-1.
    pub rank: usize,
    /// The cross-entropy, in nats.
    pub loss: f64,
}

impl Outcome {
    /// Of scores before softmax and the right class; `None` if there is no such class or a score is not a number.
    #[must_use]
    pub fn of(logits: &[f32], label: usize) -> Option<Outcome> {
        let own = f64::from(*logits.get(label)?);
        if logits.iter().any(|value| value.is_nan()) {
            return None;
        }
        let highest = logits
            .iter()
            .fold(f64::NEG_INFINITY, |highest, &value| highest.max(value.into()));
        let sum: f64 = logits.iter().map(|&value| (f64::from(value) - highest).exp()).sum();
        let ahead = |&(class, value): &(usize, f64)| value > own || (value == own && class < label);
        Some(Outcome {
            rank: logits.iter().map(|&value| f64::from(value)).enumerate().filter(ahead).count(),
            loss: highest + sum.ln() - own,
        })
    }

    /// Is the class with the highest score the right one?
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.rank == 0
    }
}

/// How well one model does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metric {
    /// Samples that it was measured on.
    pub samples: u64,
    /// The share of samples whose first class is right, 0 to 1.
    pub top1: f64,
    /// Wilson's 95 % interval of top1.
    pub top1_interval: [f64; 2],
    /// The share of samples whose right class is among the first five, 0 to 1.
    pub top5: f64,
    /// The mean cross-entropy, in nats; null if it is not finite.
    pub loss: Option<f64>,
}

impl Metric {
    /// Over outcomes; `None` without any.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn of(outcomes: &[Outcome]) -> Option<Metric> {
        let below = |rank: usize| outcomes.iter().filter(|outcome| outcome.rank < rank).count();
        let samples = outcomes.len() as u64;
        let n = samples as f64;
        let right = below(1) as u64;
        Some(Metric {
            samples,
            top1: right as f64 / n,
            top1_interval: wilson(right, samples)?,
            top5: below(5) as f64 / n,
            loss: Some(outcomes.iter().map(|outcome| outcome.loss).sum::<f64>() / n).filter(|loss| loss.is_finite()),
        })
    }
}

/// How far two models agree on the same samples, labels or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Agreement {
    /// Samples that were compared.
    pub samples: u64,
    /// Samples for which both have the same first class; null for models without an output `[N, classes]`.
    pub same_top1: Option<u64>,
    /// The largest difference of any output value; null if it is not finite.
    pub largest_difference: Option<f64>,
}

/// How well the models do on the test data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// The float model; null without labels.
    pub float: Option<Metric>,
    /// The trained model with quantizers simulated in float; null without labels.
    pub fake_quantized: Option<Metric>,
    /// The integer model; null without labels.
    pub lowered: Option<Metric>,
    /// What is lost from the float to the integer model; null without labels.
    pub drop: Option<Drop>,
    /// The float and the integer model.
    pub float_lowered: Agreement,
    /// The fake-quantized and the integer model.
    pub fake_quantized_lowered: Agreement,
    /// Every output: how it was trained, and how near it came to the float model's.
    pub outputs: Vec<ModelOutput>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values are given to four digits.
    const DIGITS: f64 = 5e-5;

    fn close(found: [f64; 2], expected: [f64; 2]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < DIGITS);
        assert!(near, "{found:?} {expected:?}");
    }

    #[test]
    fn wilson_known_values() {
        // Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        close(wilson(81, 263).unwrap(), [0.2553, 0.3662]);
        close(wilson(15, 148).unwrap(), [0.0624, 0.1605]);
        close(wilson(0, 20).unwrap(), [0.0, 0.1611]);
        close(wilson(1, 29).unwrap(), [0.0061, 0.1718]);
        close(wilson(20, 20).unwrap(), [1.0 - 0.1611, 1.0]);
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn paired_by_hand() {
        let drop = paired_drop(30, 10, 1000).unwrap();
        assert_eq!((drop.points, drop.lost, drop.gained), (2.0, 30, 10));
        // 20/1002 ± 1.959964 · √(41 − 400/1002) / 1002, in points.
        let half = 1.959_964 * (41.0f64 - 400.0 / 1002.0).sqrt() / 10.02;
        close(drop.interval, [1.996_008 - half, 1.996_008 + half]);
    }

    #[test]
    fn paired_has_a_width_where_nothing_differs() {
        let drop = paired_drop(0, 0, 100).unwrap();
        assert!(drop.points == 0.0 && drop.interval[0] < 0.0 && drop.interval[1] > 0.0);
        let (gain, loss) = (paired_drop(3, 9, 50).unwrap(), paired_drop(9, 3, 50).unwrap());
        assert_eq!(gain.interval, [-loss.interval[1], -loss.interval[0]]);
        assert_eq!(paired_drop(0, 0, 0), None);
    }

    #[test]
    fn outcomes() {
        let outcome = Outcome::of(&[0.0, 2.0, 2.0, 1.0], 2).unwrap();
        assert_eq!(outcome.rank, 1);
        let sum = 1.0 + 2.0 * 2.0f64.exp() + 1.0f64.exp();
        assert!((outcome.loss - (sum.ln() - 2.0)).abs() < 1e-12);
        assert!(Outcome::of(&[1e30, 0.0], 0).unwrap().is_right());
        assert_eq!(Outcome::of(&[0.0], 1), None);
        assert_eq!(Outcome::of(&[f32::NAN, 0.0], 1), None);
        let metric = Metric::of(&[outcome, Outcome { rank: 0, loss: 0.5 }, Outcome { rank: 5, loss: 1.0 }]).unwrap();
        assert_eq!((metric.samples, metric.top1, metric.top5), (3, 1.0 / 3.0, 2.0 / 3.0));
        assert_eq!(Metric::of(&[]), None);
    }
}
