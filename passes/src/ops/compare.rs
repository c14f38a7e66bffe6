//! Comparisons, logic, rounding and choice: ops through which no gradient flows, and Where, which passes it to the branch that was chosen.
//!
//! Types only for OneHot, ArgMax, ArgMin, Range, NonZero, Compress, Unique.

use super::arithmetic::infer_broadcast;
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::{held, unknown_shape};
use super::{InferCx, OpEntry, broadcast, normalize_axis};
use crate::ir::{DType, Dim, Op, Tensor, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

const fn comparison(name: &'static str) -> OpEntry {
    OpEntry::new(name, infer_comparison, "").zero_gradient()
}

const fn bitwise(name: &'static str) -> OpEntry {
    OpEntry::new(name, infer_broadcast, "").zero_gradient()
}

const fn step(name: &'static str) -> OpEntry {
    OpEntry::new(name, |cx| cx.like_first(), "").zero_gradient()
}

pub(super) const ENTRIES: &[OpEntry] = &[
    comparison("Equal"),
    comparison("Greater"),
    comparison("GreaterOrEqual"),
    comparison("Less"),
    comparison("LessOrEqual"),
    comparison("And"),
    comparison("Or"),
    comparison("Xor"),
    comparison("IsNaN"),
    comparison("IsInf"),
    step("Not"),
    step("BitwiseNot"),
    bitwise("BitwiseAnd"),
    bitwise("BitwiseOr"),
    bitwise("BitwiseXor"),
    bitwise("BitShift"),
    step("Round"),
    step("Floor"),
    step("Ceil"),
    step("Sign"),
    OpEntry::new("Where", infer_where, "")
        .shape_value(held_by_where)
        .gradient(gradient_where, samples_where),
    OpEntry::new("OneHot", infer_one_hot, "").zero_gradient(),
    OpEntry::new("ArgMax", infer_arg, "").zero_gradient(),
    OpEntry::new("ArgMin", infer_arg, "").zero_gradient(),
    OpEntry::new("Range", infer_range, "what it counts is not trained"),
    OpEntry::new("NonZero", infer_non_zero, "").zero_gradient(),
    OpEntry::new(
        "Compress",
        infer_compress,
        "how many elements it takes is not known before it runs",
    ),
    OpEntry::new(
        "Unique",
        infer_unique,
        "how many elements it takes is not known before it runs",
    ),
];

/// The shape that the operands broadcast to, if all of theirs are known.
fn broadcast_all(cx: &InferCx) -> Result<Option<Vec<Dim>>, String> {
    let mut shape = vec![];
    for index in 0..cx.node.inputs().len() {
        let Some(operand) = cx.shape(index) else { return Ok(None) };
        shape = broadcast(&shape, operand)?;
    }
    Ok(Some(shape))
}

fn infer_comparison(cx: &InferCx) -> Types {
    cx.one(Some(DType::Bool), broadcast_all(cx)?)
}

/// ONNX Where, operator set 16.
fn infer_where(cx: &InferCx) -> Types {
    cx.one(cx.dtype(1).or_else(|| cx.dtype(2)), broadcast_all(cx)?)
}

/// The chosen elements, where the choice is known and every vector is as long as the others or holds one element.
fn held_by_where(cx: &InferCx) -> Option<Vec<Dim>> {
    let (choice, yes, no) = (cx.ints(0)?, held(cx, 1)?, held(cx, 2)?);
    let count = choice.len().max(yes.len()).max(no.len());
    if [choice.len(), yes.len(), no.len()]
        .iter()
        .any(|&len| len != count && len != 1)
    {
        return None;
    }
    let pick = |dims: &[Dim], at: usize| dims.get(at).or_else(|| dims.first()).cloned();
    let chosen = (0..count).map(|at| {
        let chosen = choice.get(at).or_else(|| choice.first())?;
        pick(if *chosen != 0 { &yes } else { &no }, at)
    });
    chosen.collect()
}

/// ∂x = dy where it was chosen, else 0; for the other branch the other way round.
fn gradient_where(cx: &mut GradCx) -> Result<(), String> {
    let (choice, dy) = (cx.x(0)?, cx.dy()?);
    cx.give_with(1, |build| {
        let zero = build.scalar(0.0);
        Ok(build.node(Op::onnx("Where"), &[choice, dy, zero], vec![]))
    })?;
    cx.give_with(2, |build| {
        let zero = build.scalar(0.0);
        Ok(build.node(Op::onnx("Where"), &[choice, zero, dy], vec![]))
    })
}

fn samples_where() -> Vec<Sample> {
    let choice = Tensor::from_bytes(DType::Bool, &[2, 3], vec![1, 0, 0, 1, 1, 0].into());
    let Ok(choice) = choice else { return vec![] };
    vec![
        Sample::new("two full branches")
            .constant(choice.clone())
            .x(&[2, 3])
            .x(&[2, 3]),
        Sample::new("a branch that is broadcast").constant(choice).x(&[1, 3]).x(&[]),
    ]
}

/// ONNX OneHot, operator set 11: the extents of the indices with `depth` put in at `axis`.
fn infer_one_hot(cx: &InferCx) -> Types {
    let Some(indices) = cx.shape(0) else {
        return cx.one(cx.dtype(2), None);
    };
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(-1), indices.len() + 1)?;
    let depth = match cx.constant(1).and_then(Tensor::to_f64) {
        // Any numeric type will do.
        #[allow(clippy::cast_possible_truncation)]
        Some(depth) => depth.first().map(|&depth| depth as i64),
        None => cx.ints(1).and_then(|depth| depth.first().copied()),
    };
    let depth = depth.and_then(|depth| usize::try_from(depth).ok());
    let mut shape = indices.to_vec();
    shape.insert(axis, depth.map_or(Dim::Unknown, Dim::Known));
    cx.one(cx.dtype(2), Some(shape))
}

/// ONNX ArgMax and ArgMin, operator set 13.
fn infer_arg(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        return cx.one(Some(DType::I64), None);
    };
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), shape.len())?;
    let mut shape = shape.to_vec();
    if cx.node.int("keepdims").unwrap_or(1) == 0 {
        shape.remove(axis);
    } else if let Some(slot) = shape.get_mut(axis) {
        *slot = Dim::Known(1);
    }
    cx.one(Some(DType::I64), Some(shape))
}

/// ONNX Range, operator set 11: ⌈(limit − start) / delta⌉ elements.
fn infer_range(cx: &InferCx) -> Types {
    let first = |index| cx.ints(index).and_then(|values| values.first().copied());
    let count = match (first(0), first(1), first(2)) {
        (Some(start), Some(limit), Some(delta)) if delta != 0 => {
            let (distance, delta) = (i128::from(limit) - i128::from(start), i128::from(delta));
            let count = distance.div_euclid(delta) + i128::from(delta > 0 && distance.rem_euclid(delta) != 0);
            let count = if distance.signum() == delta.signum() { count } else { 0 };
            usize::try_from(count).map_or(Dim::Unknown, Dim::Known)
        }
        _ => Dim::Unknown,
    };
    cx.one(cx.dtype(0), Some(vec![count]))
}

/// ONNX NonZero, operator set 13: `[rank, how many]`.
fn infer_non_zero(cx: &InferCx) -> Types {
    let rank = cx.shape(0).map_or(Dim::Unknown, |shape| Dim::Known(shape.len()));
    cx.one(Some(DType::I64), Some(vec![rank, Dim::Unknown]))
}

/// ONNX Compress, operator set 11: without an axis, of the flattened operand.
fn infer_compress(cx: &InferCx) -> Types {
    let shape = match (cx.node.int("axis"), cx.shape(0)) {
        (None, _) => Some(vec![Dim::Unknown]),
        (Some(_), None) => None,
        (Some(axis), Some(shape)) => Some(with_unknown(shape, axis)?),
    };
    cx.one(cx.dtype(0), shape)
}

/// The shape, of which this extent is not known.
fn with_unknown(shape: &[Dim], axis: i64) -> Result<Vec<Dim>, String> {
    let axis = normalize_axis(axis, shape.len())?;
    let dims = shape.iter().enumerate();
    Ok(dims
        .map(|(at, dim)| if at == axis { Dim::Unknown } else { dim.clone() })
        .collect())
}

/// ONNX Unique, operator set 11: what differs, where it first stands, which of it each element is, and how often it is there.
fn infer_unique(cx: &InferCx) -> Types {
    let shape = match (cx.node.int("axis"), cx.shape(0)) {
        (None, _) => Some(vec![Dim::Unknown]),
        (Some(_), None) => None,
        (Some(axis), Some(shape)) => Some(with_unknown(shape, axis)?),
    };
    let values = cx.dtype(0).map(|dtype| TensorType { dtype, shape });
    let positions = TensorType {
        dtype: DType::I64,
        shape: unknown_shape(Some(1)),
    };
    Ok(vec![
        values,
        Some(positions.clone()),
        Some(positions.clone()),
        Some(positions),
    ])
}
