//! A window's taps: the strided slices of a padded input that meet one kernel element each, and the way back.
//!
//! Tap t of an axis with dilation d and stride s meets the positions d·t + s·i of the padded input, i = 0 … outputs − 1.

use crate::ir::{Node, Tensor, ValueId};
use crate::ops::build::Build;
use crate::ops::window::Window;

/// The window of a backward op over inputs `[N, C, spatial…]`.
pub(super) struct Taps {
    /// The window, with explicit pads.
    pub window: Window,
    /// Extents of the input.
    pub input: Vec<usize>,
    /// Extents of the result.
    pub output: Vec<usize>,
}

impl Taps {
    /// The window of `node`, whose forward op maps `input` to `output` spatial extents.
    ///
    /// # Errors
    /// If the attributes do not fit.
    pub fn of(node: &Node, input: &[usize], kernel: &[usize], output: &[usize]) -> Result<Taps, String> {
        let window = Window::of(node, input, kernel)?;
        if output.len() != input.len() {
            return Err("input and result differ in rank".to_owned());
        }
        Ok(Taps {
            window,
            input: input.to_vec(),
            output: output.to_vec(),
        })
    }

    /// Every kernel element, as its index along each axis, in row-major order.
    pub fn each(&self) -> Vec<Vec<usize>> {
        self.window.kernel.iter().fold(vec![Vec::new()], |taps, &extent| {
            taps.iter()
                .flat_map(|tap| (0..extent).map(move |t| [tap.as_slice(), &[t]].concat()))
                .collect()
        })
    }

    /// The extents of the padded input that taps reach into: at least the input with its pads.
    fn padded(&self) -> Vec<usize> {
        let w = &self.window;
        (0..self.input.len())
            .map(|axis| {
                let reached = w.dilations[axis] * (w.kernel[axis].saturating_sub(1))
                    + w.strides[axis] * self.output[axis].saturating_sub(1)
                    + 1;
                reached.max(self.input[axis] + w.pads_begin[axis])
            })
            .collect()
    }

    /// `x` padded with `fill`, far enough for every tap.
    pub fn pad(&self, build: &mut Build, x: ValueId, fill: f32) -> ValueId {
        let padded = self.padded();
        let begins = self.window.pads_begin.iter().copied();
        let ends = (0..self.input.len()).map(|axis| padded[axis] - self.input[axis] - self.window.pads_begin[axis]);
        let lead = [0i64, 0];
        let pads: Vec<i64> = lead
            .into_iter()
            .chain(begins.map(as_i64))
            .chain(lead)
            .chain(ends.map(as_i64))
            .collect();
        if fill == 0.0 {
            return build.pad(x, &pads);
        }
        let fill = build.constant(Tensor::scalar(fill));
        let pads = build.ints(&pads);
        build.node(crate::ir::Op::onnx("Pad"), &[x, pads, fill], vec![])
    }

    /// The slice of a padded input that meets `tap`: shape `[N, C, output…]`.
    pub fn slice(&self, build: &mut Build, padded: ValueId, tap: &[usize]) -> ValueId {
        let extents = self.padded();
        let mut value = padded;
        for (axis, &t) in tap.iter().enumerate() {
            let start = self.window.dilations[axis] * t;
            let stride = self.window.strides[axis];
            let end = start + stride * self.output[axis].saturating_sub(1) + 1;
            if (start, end, stride) != (0, extents[axis], 1) {
                value = build.slice(value, as_i64(axis + 2), as_i64(start), as_i64(end), as_i64(stride));
            }
        }
        value
    }

    /// The way back: sums `parts`, one for each tap and of shape `[N, C, output…]`, into the positions that they meet, and drops the pads.
    ///
    /// # Errors
    /// If the shape of a part is not fixed.
    pub fn scatter(&self, build: &mut Build, parts: &[(Vec<usize>, ValueId)]) -> Result<ValueId, String> {
        let mut total: Option<ValueId> = None;
        for (tap, part) in parts {
            let placed = self.place(build, *part, tap)?;
            total = Some(total.map_or(placed, |sum| build.add(sum, placed)));
        }
        let mut value = total.ok_or("the window has no tap")?;
        let extents = self.padded();
        for (axis, &extent) in self.input.iter().enumerate() {
            let begin = self.window.pads_begin[axis];
            if (begin, begin + extent) != (0, extents[axis]) {
                value = build.slice(value, as_i64(axis + 2), as_i64(begin), as_i64(begin + extent), 1);
            }
        }
        Ok(value)
    }

    /// One part, spread by the strides and moved to its tap, in the padded input's extents.
    fn place(&self, build: &mut Build, part: ValueId, tap: &[usize]) -> Result<ValueId, String> {
        let shape = build.shape(part)?;
        let lead = shape.get(..2).ok_or("the rank is under 3")?.to_vec();
        let mut value = part;
        if self.window.strides.iter().any(|&stride| stride > 1) {
            // [N, C, o] -> [N, C, o, 1] -> pad to [N, C, o, s] -> [N, C, o·s]
            let split: Vec<usize> = lead.iter().copied().chain(self.output.iter().flat_map(|&o| [o, 1])).collect();
            let ends = [0, 0]
                .into_iter()
                .chain(self.window.strides.iter().flat_map(|&s| [0, as_i64(s) - 1]));
            let pads: Vec<i64> = vec![0; split.len()].into_iter().chain(ends).collect();
            let spread: Vec<usize> = lead
                .iter()
                .copied()
                .chain(self.output.iter().zip(&self.window.strides).map(|(&o, &s)| o * s))
                .collect();
            value = build.reshape(value, &split);
            value = build.pad(value, &pads);
            value = build.reshape(value, &spread);
        }
        let extents = self.padded();
        let mut begins = vec![0, 0];
        let mut ends = vec![0, 0];
        for (axis, &t) in tap.iter().enumerate() {
            let start = self.window.dilations[axis] * t;
            let spread = self.output[axis] * self.window.strides[axis];
            // What sticks out at the end are the zeros behind the last value.
            let kept = spread.min(extents[axis] - start);
            if kept < spread {
                value = build.slice(value, as_i64(axis + 2), 0, as_i64(kept), 1);
            }
            begins.push(as_i64(start));
            ends.push(as_i64(extents[axis] - start - kept));
        }
        Ok(build.pad(value, &[begins, ends].concat()))
    }
}

fn as_i64(extent: usize) -> i64 {
    i64::try_from(extent).unwrap_or(i64::MAX)
}
