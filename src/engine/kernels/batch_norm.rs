//! BatchNormalization by the batch, and its gradient, image after image as they lie in memory.
//!
//! With M values to a channel, x̃ = x − μ and r = 1/√(σ² + ε):  y = x̃·(γ·r) + β;
//! ∂β = Σ∂y,  ∂γ = r·Σ∂y·x̃,  ∂x = a·∂y − (x̃·(a·r·∂γ/M) + a·∂β/M) with a = γ·r (Ioffe & Szegedy, arXiv 1502.03167, section 3).

use multiversion::multiversion;

use super::{LANES, Parallel, map};

/// BatchNormalization with its ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BatchNorm {
    /// ε.
    pub(super) epsilon: f32,
}

/// The extents of a tensor `[N, channels, inner…]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    /// The channels.
    pub(super) count: usize,
    /// The values of one channel of one sample.
    pub(super) inner: usize,
}

/// γ and β, and where y, μ and the biased σ² go.
pub(super) struct Forward<'a> {
    pub(super) x: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) y: &'a mut [f32],
    pub(super) mean: &'a mut [f32],
    pub(super) variance: &'a mut [f32],
}

/// What the gradient is taken from, and where ∂x, ∂γ and ∂β go.
pub(super) struct Backward<'a> {
    pub(super) dy: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) variance: &'a [f32],
    pub(super) dx: &'a mut [f32],
    pub(super) d_gamma: &'a mut [f32],
    pub(super) d_beta: &'a mut [f32],
}

/// Images whose sums are made together, in single precision.
const IMAGES: usize = 8;

/// A sum for each channel, lane by lane.
type Sums = Vec<[f32; LANES]>;

impl Channels {
    /// Of a shape `[N, C, …]`.
    pub(super) fn of(shape: &[usize]) -> Channels {
        Channels {
            count: shape.get(1).copied().unwrap_or(0),
            inner: shape.iter().skip(2).product(),
        }
    }

    /// Values of a group of images.
    fn group(self) -> usize {
        (IMAGES * self.count * self.inner).max(1)
    }

    /// Adds up what `sum` makes of each group, for every channel.
    fn total<T: Send>(self, parallel: &dyn Parallel, groups: Vec<T>, sum: impl Fn(T, &mut Sums) + Send + Sync) -> Vec<f64> {
        let parts = map(parallel, groups, |group| {
            let mut sums = vec![[0.0; LANES]; self.count];
            sum(group, &mut sums);
            sums
        });
        let mut totals = vec![0.0f64; self.count];
        for sums in parts {
            for (total, lanes) in totals.iter_mut().zip(sums) {
                *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            }
        }
        totals
    }
}

impl BatchNorm {
    /// y, μ and σ².
    pub(super) fn forward(self, parallel: &dyn Parallel, channels: Channels, of: Forward<'_>) {
        let (group, inner) = (channels.group(), channels.inner);
        let count = values_to_a_channel(of.x, channels);
        let sums = channels.total(parallel, of.x.chunks(group).collect(), |x, sums| sum(x, inner, sums));
        of.mean
            .iter_mut()
            .zip(sums)
            .for_each(|(mean, sum)| *mean = (sum / count) as f32);
        let mean: &[f32] = of.mean;
        let squares = channels.total(parallel, of.x.chunks(group).collect(), |x, sums| {
            sum_of_squares(x, inner, mean, sums)
        });
        of.variance
            .iter_mut()
            .zip(squares)
            .for_each(|(variance, sum)| *variance = (sum / count) as f32);
        let scales: Vec<[f32; 3]> = mean
            .iter()
            .zip(of.variance.iter())
            .zip(of.gamma.iter().zip(of.beta))
            .map(|((&mean, variance), (gamma, &beta))| [mean, gamma * (1.0 / (variance + self.epsilon).sqrt()), beta])
            .collect();
        let groups = of.x.chunks(group).zip(of.y.chunks_mut(group));
        map(parallel, groups.collect(), |(x, y)| normalize(x, inner, &scales, y));
    }

    /// ∂x, ∂γ and ∂β.
    pub(super) fn backward(self, parallel: &dyn Parallel, channels: Channels, of: Backward<'_>) {
        let (group, inner) = (channels.group(), channels.inner);
        let count = values_to_a_channel(of.x, channels);
        let pairs = || of.dy.chunks(group).zip(of.x.chunks(group)).collect::<Vec<_>>();
        let sums = channels.total(parallel, of.dy.chunks(group).collect(), |dy, sums| sum(dy, inner, sums));
        let products = channels.total(parallel, pairs(), |(dy, x), sums| {
            sum_of_products(dy, x, inner, of.mean, sums)
        });
        let statistics = of.gamma.iter().zip(of.mean.iter().zip(of.variance));
        let gradients = of.d_gamma.iter_mut().zip(of.d_beta.iter_mut());
        let scales: Vec<[f32; 4]> = statistics
            .zip(gradients)
            .zip(sums.into_iter().zip(products))
            .map(|(((gamma, (&mean, variance)), (d_gamma, d_beta)), (sum, product))| {
                let inverse = 1.0 / (variance + self.epsilon).sqrt();
                (*d_gamma, *d_beta) = (product as f32 * inverse, sum as f32);
                let slope = gamma * inverse;
                let per_value = (f64::from(slope) / count) as f32;
                [mean, slope, per_value * inverse * *d_gamma, per_value * *d_beta]
            })
            .collect();
        let groups = pairs().into_iter().zip(of.dx.chunks_mut(group));
        map(parallel, groups.collect(), |((dy, x), dx)| {
            differentiate(dy, x, inner, &scales, dx)
        });
    }
}

fn values_to_a_channel(x: &[f32], channels: Channels) -> f64 {
    (x.len() / channels.count.max(1)).max(1) as f64
}

/// Adds term(i) to the lanes, for i = 0 … count − 1.
#[inline(always)]
fn in_lanes(count: usize, lanes: &mut [f32; LANES], term: impl Fn(usize) -> f32) {
    let whole = count - count % LANES;
    let mut sums = *lanes;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for (at, sum) in (whole..count).zip(&mut sums) {
        *sum += term(at);
    }
    *lanes = sums;
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sum(values: &[f32], inner: usize, sums: &mut [[f32; LANES]]) {
    for image in values.chunks((inner * sums.len()).max(1)) {
        for (values, lanes) in image.chunks(inner.max(1)).zip(sums.iter_mut()) {
            in_lanes(values.len(), lanes, |at| values[at]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sum_of_squares(x: &[f32], inner: usize, mean: &[f32], sums: &mut [[f32; LANES]]) {
    for image in x.chunks((inner * sums.len()).max(1)) {
        for ((x, mean), lanes) in image.chunks(inner.max(1)).zip(mean).zip(sums.iter_mut()) {
            in_lanes(x.len(), lanes, |at| (x[at] - mean) * (x[at] - mean));
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sum_of_products(dy: &[f32], x: &[f32], inner: usize, mean: &[f32], sums: &mut [[f32; LANES]]) {
    let image = (inner * sums.len()).max(1);
    for (dy, x) in dy.chunks(image).zip(x.chunks(image)) {
        let rows = dy.chunks(inner.max(1)).zip(x.chunks(inner.max(1)));
        for (((dy, x), mean), lanes) in rows.zip(mean).zip(sums.iter_mut()) {
            // One length for both, so that the loop needs no bounds checks.
            let x = &x[..dy.len().min(x.len())];
            let dy = &dy[..x.len()];
            in_lanes(dy.len(), lanes, |at| dy[at] * (x[at] - mean));
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn normalize(x: &[f32], inner: usize, scales: &[[f32; 3]], y: &mut [f32]) {
    let image = (inner * scales.len()).max(1);
    for (x, y) in x.chunks(image).zip(y.chunks_mut(image)) {
        let rows = x.chunks(inner.max(1)).zip(y.chunks_mut(inner.max(1)));
        for ((x, y), [mean, slope, beta]) in rows.zip(scales) {
            for (x, y) in x.iter().zip(y) {
                *y = (x - mean) * slope + beta;
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn differentiate(dy: &[f32], x: &[f32], inner: usize, scales: &[[f32; 4]], dx: &mut [f32]) {
    let image = (inner * scales.len()).max(1);
    for ((dy, x), dx) in dy.chunks(image).zip(x.chunks(image)).zip(dx.chunks_mut(image)) {
        let rows = dy.chunks(inner.max(1)).zip(x.chunks(inner.max(1)));
        for (((dy, x), dx), [mean, slope, tilt, offset]) in rows.zip(dx.chunks_mut(inner.max(1))).zip(scales) {
            for ((dy, x), dx) in dy.iter().zip(x).zip(dx) {
                *dx = dy * slope - ((x - mean) * tilt + offset);
            }
        }
    }
}
