//! MatMul (ONNX 1, 9, 13: numpy's rules) and Gemm (7, 9, 11, 13): Y = α·A'·B' + β·C.

use super::build::Build;
use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry, Quant, broadcast};
use crate::ir::{Dim, TensorType, ValueId};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("MatMul", infer_matmul, "")
        .gradient(matmul, matmul_samples)
        .quant(Quant::Weighted { weight: 1, bias: None }),
    OpEntry::new("Gemm", infer_gemm, "")
        .gradient(gemm, gemm_samples)
        .quant(Quant::Weighted {
            weight: 1,
            bias: Some(2),
        }),
];

fn infer_matmul(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) else {
        return cx.one(cx.dtype(0), None);
    };
    let ([a_lead @ .., a_last], [b_lead @ .., b_last]) = (a, b) else {
        return Err("its operands have rank 1 or more".to_owned());
    };
    let (inner, rest, columns) = match b_lead {
        [] => (b_last, &[][..], None),
        [rest @ .., rows] => (rows, rest, Some(b_last.clone())),
    };
    if let (Some(x), Some(y)) = (a_last.known(), inner.known())
        && x != y
    {
        return Err(format!("the inner extents {x} and {y} differ"));
    }
    let (a_rest, rows) = match a_lead {
        [] => (&[][..], None),
        [rest @ .., rows] => (rest, Some(rows.clone())),
    };
    let mut shape = broadcast(a_rest, rest)?;
    shape.extend(rows);
    shape.extend(columns);
    cx.one(cx.dtype(0), Some(shape))
}

/// ∂A = ∂Y·Bᵀ, ∂B = Aᵀ·∂Y; vectors are seen as a row or a column. A weight matrix under a batch of rows takes one flat product.
fn matmul(cx: &mut GradCx) -> Result<(), String> {
    let (dy, a, b) = (cx.dy()?, cx.x(0)?, cx.x(1)?);
    let (a_shape, b_shape) = (cx.x_shape(0)?, cx.x_shape(1)?);
    let (a_vector, b_vector) = (a_shape.len() == 1, b_shape.len() == 1);
    let mut dy_shape = cx.y_shape()?;
    if a_vector {
        dy_shape.insert(dy_shape.len() - usize::from(!b_vector), 1);
    }
    if b_vector {
        dy_shape.push(1);
    }
    let row = |shape: &[usize]| [&[1], shape].concat();
    let column = |shape: &[usize]| [shape, &[1]].concat();
    let a_matrix = if a_vector { row(&a_shape) } else { a_shape.clone() };
    let b_matrix = if b_vector { column(&b_shape) } else { b_shape.clone() };
    let dy = cx.build.reshape(dy, &dy_shape);
    cx.give_with(0, |build| {
        let b = build.reshape(b, &b_matrix);
        let b = build.swap_last(b)?;
        let product = build.matmul(dy, b);
        let summed = build.sum_to(product, &a_matrix)?;
        Ok(build.reshape(summed, &a_shape))
    })?;
    cx.give_with(1, |build| {
        let product = weight_gradient(build, a, &a_matrix, dy, &dy_shape, &b_matrix)?;
        Ok(build.reshape(product, &b_shape))
    })
}

fn weight_gradient(
    build: &mut Build,
    a: ValueId,
    a_matrix: &[usize],
    dy: ValueId,
    dy_shape: &[usize],
    b_matrix: &[usize],
) -> Result<ValueId, String> {
    let flat = |shape: &[usize]| shape.split_last().map(|(&last, rest)| [rest.iter().product(), last]);
    if let (2, Some(a_flat), Some(dy_flat)) = (b_matrix.len(), flat(a_matrix), flat(dy_shape)) {
        let a = build.reshape(a, &a_flat);
        let a = build.swap_last(a)?;
        let dy = build.reshape(dy, &dy_flat);
        return Ok(build.matmul(a, dy));
    }
    let a = build.reshape(a, a_matrix);
    let a = build.swap_last(a)?;
    let product = build.matmul(a, dy);
    build.sum_to(product, b_matrix)
}

fn infer_gemm(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let pick = |shape: Option<&[Dim]>, transposed: bool| match shape {
        Some([rows, columns]) => Ok(Some(if transposed {
            (columns.clone(), rows.clone())
        } else {
            (rows.clone(), columns.clone())
        })),
        Some(other) => Err(format!("its operands are matrices, not of rank {}", other.len())),
        None => Ok(None),
    };
    let a = pick(cx.shape(0), cx.node.int("transA").unwrap_or(0) != 0)?;
    let b = pick(cx.shape(1), cx.node.int("transB").unwrap_or(0) != 0)?;
    if let (Some((_, x)), Some((y, _))) = (&a, &b)
        && let (Some(x), Some(y)) = (x.known(), y.known())
        && x != y
    {
        return Err(format!("the inner extents {x} and {y} differ"));
    }
    let shape = vec![
        a.map_or(Dim::Unknown, |(rows, _)| rows),
        b.map_or(Dim::Unknown, |(_, columns)| columns),
    ];
    cx.one(cx.dtype(0), Some(shape))
}

/// With Y = α·A'·B' + β·C:  ∂A' = α·∂Y·B'ᵀ,  ∂B' = α·A'ᵀ·∂Y,  ∂C = β·∂Y.
fn gemm(cx: &mut GradCx) -> Result<(), String> {
    let (dy, a, b) = (cx.dy()?, cx.x(0)?, cx.x(1)?);
    let (alpha, beta) = (cx.node.float("alpha").unwrap_or(1.0), cx.node.float("beta").unwrap_or(1.0));
    let transposed = |name: &str| cx.node.int(name).unwrap_or(0) != 0;
    let (trans_a, trans_b) = (transposed("transA"), transposed("transB"));
    let turn = |build: &mut Build, value: ValueId, turned: bool| if turned { build.swap_last(value) } else { Ok(value) };
    let scaled = |build: &mut Build, value: ValueId, factor: f32| {
        #[allow(clippy::float_cmp)]
        if factor == 1.0 { value } else { build.scale(value, factor) }
    };
    cx.give_with(0, |build| {
        let b = turn(build, b, !trans_b)?;
        let product = build.matmul(dy, b);
        let product = turn(build, product, trans_a)?;
        Ok(scaled(build, product, alpha))
    })?;
    cx.give_with(1, |build| {
        let product = if trans_b {
            // ∂B = ∂Yᵀ·A', which needs no second transpose.
            let dy = build.swap_last(dy)?;
            let a = turn(build, a, trans_a)?;
            build.matmul(dy, a)
        } else {
            let a = turn(build, a, !trans_a)?;
            build.matmul(a, dy)
        };
        Ok(scaled(build, product, alpha))
    })?;
    cx.give_with(2, |build| Ok(scaled(build, dy, beta)))
}

fn matmul_samples() -> Vec<Sample> {
    vec![
        Sample::new("matrices").x(&[2, 3]).x(&[3, 4]),
        Sample::new("rows of a batch").x(&[2, 2, 3]).x(&[3, 4]),
        Sample::new("both batched, one broadcast").x(&[2, 1, 2, 3]).x(&[2, 3, 2]),
        Sample::new("vector and matrix").x(&[3]).x(&[3, 2]),
        Sample::new("matrix and vector").x(&[2, 3]).x(&[3]),
        Sample::new("vectors").x(&[3]).x(&[3]),
        Sample::new("batch and vector").x(&[2, 2, 3]).x(&[3]),
        Sample::new("vector and batch").x(&[3]).x(&[2, 3, 2]),
        Sample::new("matrix and batch").x(&[2, 3]).x(&[2, 3, 2]),
        Sample::new("heads of attention").x(&[2, 2, 3, 2]).x(&[2, 2, 2, 3]),
        Sample::new("extents of 1").x(&[2, 1, 1]).x(&[1, 1, 2]),
    ]
}

fn gemm_samples() -> Vec<Sample> {
    vec![
        Sample::new("plain").x(&[2, 3]).x(&[3, 4]).x(&[4]),
        Sample::new("transposed weight")
            .x(&[2, 3])
            .x(&[4, 3])
            .x(&[4])
            .attr("transB", 1),
        Sample::new("both transposed, scaled")
            .x(&[3, 2])
            .x(&[4, 3])
            .x(&[2, 1])
            .attr("transA", 1)
            .attr("transB", 1)
            .attr("alpha", 0.5f32)
            .attr("beta", 2.0f32),
        Sample::new("first transposed, no bias")
            .x(&[3, 2])
            .x(&[3, 4])
            .attr("transA", 1),
        Sample::new("a scalar bias, scaled")
            .x(&[2, 3])
            .x(&[3, 2])
            .x(&[])
            .attr("beta", 0.5f32),
        Sample::new("a whole bias, a scaled product")
            .x(&[2, 3])
            .x(&[3, 2])
            .x(&[2, 2])
            .attr("alpha", -1.5f32),
        Sample::new("a bias of one row").x(&[3, 2]).x(&[2, 4]).x(&[1, 4]),
    ]
}
