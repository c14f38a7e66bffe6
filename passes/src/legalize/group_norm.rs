//! GroupNormalization (ONNX 18, 21): y = scale·(x − μ)/√(σ² + ε) + bias, with the mean and the variance of each group of channels of each
//! image. Scale and bias are one for each channel, or, in operator set 18, one for each group.
//!
//! ONNX Runtime has no kernel of it on a CPU: it puts the op's definition in its place as it loads the model, and of what that gives it
//! does not know the rank, which operators in blocks of channels ask for.

use super::operand;
use crate::ir::{Node, ValueId};
use crate::ops::build::{Build, KeepDims};
use crate::ops::normalize::{epsilon, inverse_deviation, per_channel};

/// `GroupNormalization(x, scale, bias) → y`.
pub(super) fn forward(build: &mut Build, node: &Node) -> Result<Vec<ValueId>, String> {
    let (x, scale, bias) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let (shape, parameters) = (build.shape(x)?, build.shape(scale)?);
    let groups = node.int("num_groups").and_then(|groups| usize::try_from(groups).ok());
    let groups = groups.filter(|&groups| groups > 0).ok_or("num_groups is missing")?;
    let &[batch, channels, ..] = &shape[..] else {
        return Err("it has no channels".to_owned());
    };
    let count = shape.iter().skip(1).product::<usize>() / groups;
    let rows = [batch, groups, count];
    let grouped = build.reshape(x, &rows);
    let mean = mean(build, grouped, count);
    let centred = build.sub(grouped, mean);
    let square = build.mul(centred, centred);
    let variance = self::mean(build, square, count);
    let inverse = inverse_deviation(build, variance, epsilon(node));
    let mut y = build.mul(centred, inverse);
    if parameters == [channels] {
        y = build.reshape(y, &shape);
    }
    let rank = build.shape(y)?.len();
    let (scale, bias) = (per_channel(build, scale, rank)?, per_channel(build, bias, rank)?);
    let scaled = build.mul(y, scale);
    let shifted = build.add(scaled, bias);
    Ok(vec![build.reshape(shifted, &shape)])
}

/// The mean of each row of `count`.
fn mean(build: &mut Build, rows: ValueId, count: usize) -> ValueId {
    let sum = build.reduce_sum(rows, &[2], KeepDims::Yes);
    #[allow(clippy::cast_precision_loss)]
    build.scale(sum, 1.0 / count as f32)
}
