//! The fake quantizer and its gradient, each in one pass over memory.
//!
//! With u = v/s:  v̄ = round(clip(u, −Q_N, Q_P)) half to even,  v̂ = s·v̄.  With m = [−Q_N < u < Q_P]:  ∂v = ∂v̂·m  and
//! ∂s = g·Σ ∂v̂·(v̄ − m·u) (arXiv 1902.08153, equations 1 to 3 and 5). Operation by operation this is what `legalize` spells, so v̂ and ∂v are the
//! same bits; ∂s differs in the order of its sum.

use multiversion::multiversion;

use super::{LANES, Parallel, map};

/// A quantizer of values that lie as `[outer, steps, inner]`, with a step for each of the middle axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FakeQuantize {
    /// −Q_N.
    pub(super) lo: f32,
    /// Q_P.
    pub(super) hi: f32,
    /// g.
    pub(super) gain: f32,
}

/// Values to a part: a step's sum is kept in single precision over this many only.
const PART: usize = 1 << 14;

/// Where a part lies: the index of its step.
struct Part<T> {
    step: usize,
    values: T,
}

impl FakeQuantize {
    /// v̂ of `v`; there are as many steps as `steps` has, each for `inner` values in turn.
    pub(super) fn forward(self, parallel: &dyn Parallel, v: &[f32], steps: &[f32], inner: usize, out: &mut [f32]) {
        let parts = cut(v, steps.len(), inner).zip(cut_mut(out, steps.len(), inner));
        map(parallel, parts.collect(), |(v, out)| {
            let step = steps.get(v.step).copied().unwrap_or(f32::NAN);
            quantize(v.values, step, self.lo, self.hi, out.values);
        });
    }

    /// ∂v into `dv` and ∂s into `ds`, from `v`, its steps and ∂v̂.
    pub(super) fn backward(
        self,
        parallel: &dyn Parallel,
        (v, steps, dy): (&[f32], &[f32], &[f32]),
        inner: usize,
        (dv, ds): (&mut [f32], &mut [f32]),
    ) {
        let count = steps.len();
        let parts = cut(v, count, inner).zip(cut(dy, count, inner)).zip(cut_mut(dv, count, inner));
        let sums = map(parallel, parts.collect(), |((v, dy), dv)| {
            let step = steps.get(v.step).copied().unwrap_or(f32::NAN);
            (v.step, gradient(v.values, dy.values, step, self.lo, self.hi, dv.values))
        });
        let mut totals = vec![0.0f64; count];
        for (step, sum) in sums {
            if let Some(total) = totals.get_mut(step) {
                *total += sum;
            }
        }
        for (ds, total) in ds.iter_mut().zip(totals) {
            *ds = total as f32 * self.gain;
        }
    }
}

fn cut(values: &[f32], steps: usize, inner: usize) -> impl Iterator<Item = Part<&[f32]>> {
    let rows = values.chunks(inner.max(1)).enumerate();
    rows.flat_map(move |(row, values)| {
        let step = row % steps.max(1);
        values.chunks(PART).map(move |values| Part { step, values })
    })
}

fn cut_mut(values: &mut [f32], steps: usize, inner: usize) -> impl Iterator<Item = Part<&mut [f32]>> {
    let rows = values.chunks_mut(inner.max(1)).enumerate();
    rows.flat_map(move |(row, values)| {
        let step = row % steps.max(1);
        values.chunks_mut(PART).map(move |values| Part { step, values })
    })
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "x86_64+sse4.1"))]
fn quantize(v: &[f32], step: f32, lo: f32, hi: f32, out: &mut [f32]) {
    for (v, out) in v.iter().zip(out) {
        *out = (v / step).max(lo).min(hi).round_ties_even() * step;
    }
}

/// ∂v, and the part's Σ ∂v̂·(v̄ − m·u).
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "x86_64+sse4.1"))]
fn gradient(v: &[f32], dy: &[f32], step: f32, lo: f32, hi: f32, dv: &mut [f32]) -> f64 {
    let one = |v: f32, dy: f32, dv: &mut f32| -> f32 {
        let u = v / step;
        let code = u.max(lo).min(hi).round_ties_even();
        let mask = if (u > lo) & (u < hi) { 1.0 } else { 0.0 };
        *dv = dy * mask;
        dy * (code - mask * u)
    };
    let mut sums = [0.0f32; LANES];
    let (v, v_rest) = v.as_chunks::<LANES>();
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (dv, dv_rest) = dv.as_chunks_mut::<LANES>();
    for ((v, dy), dv) in v.iter().zip(dy).zip(dv) {
        for lane in 0..LANES {
            sums[lane] += one(v[lane], dy[lane], &mut dv[lane]);
        }
    }
    for (lane, ((&v, &dy), dv)) in v_rest.iter().zip(dy_rest).zip(dv_rest).enumerate() {
        sums[lane % LANES] += one(v, dy, dv);
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}
