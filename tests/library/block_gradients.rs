//! Gradients of quantizers whose steps are of blocks, on every engine at hand, against finite differences.
//!
//! The straight-through estimator (arXiv 1902.08153, equations 3 and 5) is the derivative of v̂ with the rounding residual held: with
//! r = round(u₀) − u₀ at the point u₀ = v₀/s₀ where it is taken, v̂ = s·(v/s + r) between the bounds and s·bound beyond them. That function is
//! written here as a loop in double precision, and its central differences are what the spelled `FakeQuantizeGrad` must give.

use crate::engine_support::{engines, options, tensors, wave};
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Tensor;
use lsqc_passes::legalize::LEGALIZE;
use lsqc_passes::onnx::{OwnOps, WriteOptions, write};
use lsqc_passes::pass::{NoEvaluator, PassCx, run_quietly};

/// Half the distance of a central difference; the function is linear in v and in s, so only rounding errs.
const STEP: f64 = 1e-6;
/// Sums of at most 32 products in single precision, each rounded to 6e-8, and differences of doubles over [`STEP`].
const TOLERANCE: f64 = 1e-5;
/// g.
const GAIN: f64 = 0.25;

/// A matrix, the axis that blocks lie along, the block, and the bits.
struct Case {
    shape: [usize; 2],
    axis: usize,
    block: usize,
    bits: u32,
}

impl Case {
    fn steps_shape(&self) -> [usize; 2] {
        let mut shape = self.shape;
        shape[self.axis] = shape[self.axis].div_ceil(self.block);
        shape
    }

    /// The place of the step of row `row` and column `column`.
    fn step_of(&self, row: usize, column: usize) -> usize {
        let columns = self.steps_shape()[1];
        match self.axis {
            0 => row / self.block * columns + column,
            _ => row * columns + column / self.block,
        }
    }

    /// ⟨d, v̂⟩ with the residuals of the point (v₀, s₀).
    fn loss(&self, (v, s): (&[f64], &[f64]), (v0, s0): (&[f64], &[f64]), d: &[f64]) -> f64 {
        let half = f64::from(1 << (self.bits - 1));
        let (lo, hi) = (-half, half - 1.0);
        let columns = self.shape[1];
        let value = |at: usize| {
            let step = self.step_of(at / columns, at % columns);
            let at_point = v0[at] / s0[step];
            if at_point <= lo {
                s[step] * lo
            } else if at_point >= hi {
                s[step] * hi
            } else {
                v[at] + s[step] * (at_point.round_ties_even() - at_point)
            }
        };
        (0..v.len()).map(|at| d[at] * value(at)).sum()
    }

    fn slope(&self, point: (&[f64], &[f64]), d: &[f64], of_step: bool, at: usize) -> f64 {
        let moved = |by: f64| {
            let (mut v, mut s) = (point.0.to_vec(), point.1.to_vec());
            *if of_step { &mut s[at] } else { &mut v[at] } += by;
            self.loss((&v, &s), point, d)
        };
        (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
    }
}

#[test]
fn gradients_of_blocks_are_the_slopes_of_the_estimator() {
    let cases = [
        // Whole blocks, a short last one, one block for all, and blocks along the rows.
        ([32, 3], 0, 16, 3),
        ([40, 3], 0, 16, 2),
        ([20, 3], 0, 32, 4),
        ([3, 40], 1, 16, 3),
    ];
    for (shape, axis, block, bits) in cases {
        let case = Case {
            shape,
            axis,
            block,
            bits,
        };
        let steps = case.steps_shape();
        let text = format!(
            "g (float[{},{}] v, float[{},{}] s, float[{},{}] d) => (y, dv, ds) {{
               y = lsqc.FakeQuantize <bits = {bits}, signed = 1, axis = {axis}, block_size = {block}> (v, s)
               dv, ds = lsqc.FakeQuantizeGrad <bits = {bits}, signed = 1, axis = {axis}, block_size = {block}, gain = {GAIN}> (v, s, d) }}",
            shape[0], shape[1], steps[0], steps[1], shape[0], shape[1]
        );
        let mut model = lsqc_passes::text::parse(&text).unwrap();
        run_quietly(&[&INFER_TYPES, &LEGALIZE], &mut model, &mut PassCx::new(&NoEvaluator)).unwrap();
        let written = write(
            &model,
            &WriteOptions {
                own_ops: OwnOps::Refuse,
                ..WriteOptions::default()
            },
        );
        let bytes = written.unwrap().model.to_vec();
        // Steps differ from block to block, and at 0.4 on average some values are beyond the bounds.
        let spread: Vec<f32> = (0..steps[0] * steps[1]).map(|at| 0.3 + 0.05 * (at % 5) as f32).collect();
        let (v, s, d) = (wave(&shape, 1.9), Tensor::new(&steps, spread), wave(&shape, 1.0));
        let doubles = |tensor: &Tensor| tensor.to_f64().unwrap();
        let (v0, s0, d0) = (doubles(&v), doubles(&s), doubles(&d));
        let feeds = tensors([("v", v), ("s", s), ("d", d)]);
        for engine in engines() {
            let found = engine.load(&bytes, &options(&[])).unwrap().run(&feeds).unwrap();
            for (name, of_step, gain) in [("dv", false, 1.0), ("ds", true, GAIN)] {
                let gradient = &found[name];
                let expected_shape = if of_step { steps } else { shape };
                assert_eq!(gradient.shape(), expected_shape, "{name} on {}", engine.name());
                for (at, value) in doubles(gradient).into_iter().enumerate() {
                    let slope = gain * case.slope((&v0, &s0), &d0, of_step, at);
                    assert!(
                        (value - slope).abs() <= TOLERANCE * slope.abs().max(1.0),
                        "{name}[{at}] of {shape:?} in blocks of {block} on {}: {value}, not {slope}",
                        engine.name()
                    );
                }
            }
        }
    }
}
