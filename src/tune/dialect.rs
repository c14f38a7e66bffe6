//! What an engine has beyond standard ops, found by asking it.
//!
//! ONNX Runtime's blocked convolutions (`com.microsoft.nchwc`) take blocks of 8 or 16 channels, by the CPU's instruction set, and do not say which:
//! with the wrong one they compute garbage. So a blocked convolution is run beside a plain one, and a block is taken only where both agree.

use anyhow::{Context, Result};
use lsqc_passes::ir::{Tensor, TensorType};
use lsqc_passes::legalize::Dialect;
use lsqc_passes::onnx::OwnOps;

use crate::compiler::{Compiler, load_as_is};
use crate::engine::{Engine, LoadOptions, QdqFusion, Tensors};

/// Both sums have 144 products of numbers below 1, in another order; a wrong block is wrong in the first digit.
const TOLERANCE: f32 = 1e-3;

/// What `engine` has.
#[must_use]
pub fn dialect(engine: &dyn Engine) -> Dialect {
    Dialect {
        native: engine.native_ops(),
        // An engine that fails the question has no such operators.
        channel_block: engine
            .channel_blocks()
            .iter()
            .copied()
            .find(|&block| computes_blocks(engine, block).unwrap_or(false)),
    }
}

fn computes_blocks(engine: &dyn Engine, block: usize) -> Result<bool> {
    let text = "<ir_version: 8, opset_import: [\"\" : 17]> probe (float[2,16,5,5] x, float[16,16,3,3] w) => (float[2,16,5,5] y) {
        y = Conv <pads = [1, 1, 1, 1]> (x, w)
    }";
    let plain = lsqc_passes::text::parse(text).context("the probe is a model")?;
    let mut blocked = plain.clone();
    let dialect = Dialect {
        channel_block: Some(block),
        ..Dialect::default()
    };
    Compiler::default().run(
        &[&lsqc_passes::legalize::LEGALIZE],
        &mut blocked,
        |cx| cx.set(dialect),
        |_| (),
    )?;
    let options = LoadOptions {
        qdq_fusion: QdqFusion::Off,
        ..LoadOptions::plain()
    };
    let noise = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        // Multiples of the golden ratio, modulo 1: no two alike.
        Tensor::new(
            shape,
            (0..count)
                .map(|at| (at as f32 * 0.618_034).fract() - 0.5)
                .collect::<Vec<f32>>(),
        )
    };
    let feeds: Tensors = plain
        .graph
        .inputs()
        .iter()
        .map(|&input| {
            let shape = plain.graph[input]
                .ty
                .as_ref()
                .and_then(TensorType::known_shape)
                .unwrap_or_default();
            (plain.graph[input].name().to_owned(), noise(&shape))
        })
        .collect();
    let mut results = Vec::new();
    for model in [&plain, &blocked] {
        let mut session = load_as_is(engine, model, OwnOps::Refuse, &options)?;
        let y = session.run(&feeds)?.remove("y").and_then(|y| y.to_f32());
        results.push(y.context("the probe has a result")?);
    }
    let [plain, blocked] = &results[..] else { return Ok(false) };
    Ok(plain.len() == blocked.len() && plain.iter().zip(blocked).all(|(a, b)| (a - b).abs() <= TOLERANCE))
}
