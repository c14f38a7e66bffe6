//! Weighted ops whose weight nobody trained: the Fourier transforms and filter banks that audio networks begin with.
//!
//! A row is what one output sums up: the taps of a convolution over one axis, the column of a matrix. In a bank each row is a windowed
//! sinusoid, so its spectrum lies in a narrow band, and the rows stand at frequencies of their own. What was trained leaks out of its band, also
//! where it began as such a bank. A single filter that takes samples out, too, is known by its symmetry, which training does not leave to a
//! bit.

use super::Weighted;
use crate::ir::{Graph, Tensor};

/// Rows are at least so long, or a narrow band is most of the spectrum.
const SHORTEST: usize = 64;
/// And at most so long, as windows of Fourier transforms are: the spectrum of a row takes time by the square of this.
const LONGEST: usize = 4096;
/// A bank has at least so many rows.
const FEWEST_ROWS: usize = 8;
/// A narrow band is one part of the row's length in so many: the main lobe of a window that is a quarter of the row.
const BAND: usize = 16;
/// What a narrow band holds of a row's energy at least: windows without a taper leak a little.
const HELD: f64 = 0.99;
/// The energy of a row, in parts of the loudest before it, up to which it is nothing: single precision leaves 10⁻¹³ of a zero.
const SILENT: f64 = 1e-10;
/// What the neighbours' sum differs from a multiple of a value at most, in parts of the row's energy: of a sinusoid by nothing, of a narrow
/// band by (4π/BAND)²/4 and of what it does not hold by 16, of noise by 2.
const UNPREDICTED: f64 = 0.5;
/// Rows to each frequency at most: a sine and a cosine, of two window lengths.
const ROWS_TO_A_FREQUENCY: usize = 4;

/// What the weight of `op` is, if it is a transform that was computed and not trained.
#[must_use]
pub fn fixed_transform(graph: &Graph, op: &Weighted) -> Option<&'static str> {
    let rows = Rows::of(graph[op.weight].initial()?, op.axis)?;
    if rows.count < FEWEST_ROWS {
        let symmetric = (0..rows.count).all(|row| is_symmetric(&rows.row(row)));
        return symmetric.then_some("a symmetric filter, which was designed and not trained");
    }
    let table: Vec<(f64, f64)> = (0..rows.length)
        .map(|at| (2.0 * std::f64::consts::PI * at as f64 / rows.length as f64).sin_cos())
        .collect();
    let mut peaks = Vec::new();
    let mut loudest: f64 = 0.0;
    for row in (0..rows.count).map(|row| rows.row(row)) {
        let energy = energy(&row);
        loudest = loudest.max(energy);
        // The sine of frequency 0 is nothing, that of half a turn is what rounding left of it.
        if energy > SILENT * loudest {
            peaks.push(narrow_peak(&row, &table)?);
        }
    }
    let sounding = peaks.len();
    peaks.sort_unstable();
    peaks.dedup();
    let spread = sounding >= FEWEST_ROWS && peaks.len() * ROWS_TO_A_FREQUENCY >= sounding;
    spread.then_some("a Fourier transform or filter bank, which was computed and not trained")
}

/// A weight as rows over one axis, one for each output.
struct Rows {
    values: Vec<f32>,
    count: usize,
    length: usize,
    /// Do the values of a row stand side by side, or those of an index?
    by_row: bool,
}

impl Rows {
    fn of(weight: &Tensor, axis: usize) -> Option<Rows> {
        let shape = weight.shape();
        let count = *shape.get(axis)?;
        let others = || {
            shape
                .iter()
                .enumerate()
                .filter(|&(at, _)| at != axis)
                .map(|(_, &extent)| extent)
        };
        let length = others().max()?;
        let one_axis = others().filter(|&extent| extent > 1).count() == 1;
        let fits = one_axis && (SHORTEST..=LONGEST).contains(&length) && count > 0;
        Some(Rows {
            values: weight.to_f32().filter(|_| fits)?,
            count,
            length,
            by_row: axis == 0,
        })
    }

    fn row(&self, row: usize) -> Vec<f64> {
        let at = |index| {
            if self.by_row {
                row * self.length + index
            } else {
                index * self.count + row
            }
        };
        let value = |index| self.values.get(at(index)).copied().map_or(0.0, f64::from);
        (0..self.length).map(value).collect()
    }
}

/// Is a filter the same from both ends, or but for its sign?
#[allow(clippy::float_cmp)]
fn is_symmetric(row: &[f64]) -> bool {
    let mirrored = |sign: f64| row.iter().zip(row.iter().rev()).all(|(a, b)| *a == sign * b);
    row.iter().any(|&value| value != 0.0) && (mirrored(1.0) || mirrored(-1.0))
}

fn energy(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum()
}

/// Is each value a multiple of what stands on both sides of it, as in a sinusoid? Takes no time, and most rows are not.
fn is_predicted(row: &[f64]) -> bool {
    let beside = || row.windows(3).map(|of| (of[1], of[0] + of[2]));
    let energy = energy(row);
    let slope = beside().map(|(value, sum)| value * sum).sum::<f64>() / energy;
    let missed: f64 = beside().map(|(value, sum)| (sum - slope * value).powi(2)).sum();
    missed <= UNPREDICTED * energy
}

/// The frequency of a row's strongest part, if a narrow band holds its energy. `table` has the sine and cosine of each part of a turn.
fn narrow_peak(row: &[f64], table: &[(f64, f64)]) -> Option<usize> {
    if !is_predicted(row) {
        return None;
    }
    let length = row.len();
    let power: Vec<f64> = (0..=length / 2)
        .map(|frequency| {
            let (mut re, mut im) = (0.0, 0.0);
            for (at, value) in row.iter().enumerate() {
                let (sin, cos) = table[at * frequency % length];
                re += value * cos;
                im += value * sin;
            }
            re * re + im * im
        })
        .collect();
    let total: f64 = power.iter().sum();
    let held = power
        .windows((length / BAND).min(power.len()))
        .map(|band| band.iter().sum::<f64>())
        .fold(0.0, f64::max);
    let peak = power.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at);
    peak.filter(|_| total > 0.0 && held >= HELD * total)
}
