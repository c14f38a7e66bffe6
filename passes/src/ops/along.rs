//! Linear maps along one axis, which the gradients of ops that pick or blend along axes are.

use super::build::Build;
use crate::ir::{Attribute, DType, Op, Tensor, ValueId};

/// A map of more numbers costs more than what it is a gradient of.
const MOST: usize = 1 << 26;

/// With x as `[P, M, Q]` around `axis` and the matrix `[D, M]`: matrix · x, with D in the place of M.
///
/// # Errors
/// If the shape of x is not fixed, or has no such axis.
pub(super) fn apply(build: &mut Build, matrix: ValueId, x: ValueId, axis: usize) -> Result<ValueId, String> {
    let (mut shape, rows) = (build.shape(x)?, build.shape(matrix)?);
    let (Some(before), Some(after)) = (shape.get(..axis), shape.get(axis + 1..)) else {
        return Err(format!("axis {axis} lies outside {shape:?}"));
    };
    let (outer, inner): (usize, usize) = (before.iter().product(), after.iter().product());
    let &[to, from] = &rows[..] else {
        return Err("the map is no matrix".to_owned());
    };
    let x = build.reshape(x, &[outer, from, inner]);
    let mapped = build.matmul(matrix, x);
    if let Some(extent) = shape.get_mut(axis) {
        *extent = to;
    }
    Ok(build.reshape(mapped, &shape))
}

/// A constant matrix `[rows, columns]` of the sums of these entries `(row, column, weight)`.
///
/// # Errors
/// If it is too large.
pub(super) fn matrix(
    build: &mut Build,
    [rows, columns]: [usize; 2],
    entries: impl IntoIterator<Item = (usize, usize, f32)>,
) -> Result<ValueId, String> {
    let mut cells = vec![0f32; within_bounds(&[rows, columns])?];
    for (row, column, weight) in entries {
        if let Some(cell) = cells.get_mut(row * columns + column) {
            *cell += weight;
        }
    }
    Ok(build.constant(Tensor::new(&[rows, columns], cells)))
}

/// How many numbers a tensor of this shape has.
///
/// # Errors
/// If they are too many for a map.
pub(super) fn within_bounds(shape: &[usize]) -> Result<usize, String> {
    let size = shape.iter().try_fold(1usize, |size, &extent| size.checked_mul(extent));
    size.filter(|&size| size <= MOST)
        .ok_or_else(|| format!("its gradient needs a one-hot tensor of shape {shape:?}"))
}

/// 1 where the axis of `depth` that is put in at `axis` is at the index, else 0; negative indices count from the back.
pub(super) fn one_hot(build: &mut Build, indices: ValueId, depth: usize, axis: i64) -> ValueId {
    let indices = if build.dtype(indices) == DType::I64 {
        indices
    } else {
        build.cast(indices, DType::I64)
    };
    let depth = i64::try_from(depth).unwrap_or(i64::MAX);
    let depth = build.constant(Tensor::scalar(depth));
    let off_on = build.constant(Tensor::vector(vec![0f32, 1.0]));
    build.node(
        Op::onnx("OneHot"),
        &[indices, depth, off_on],
        vec![Attribute::new("axis", axis)],
    )
}
