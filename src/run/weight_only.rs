//! Weights alone: what `place-quantizers` is asked for, and whether the model has any that take blocks.
//!
//! An engine that cannot run what would be written is found before anything is trained, by a product of one block.
//!
//! Refused, as a wrong use of options: a pattern of lsqc.toml that asks for blocks and matches convolutions alone, and a model of which nothing
//! would be quantized.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Graph, NodeId, Tensor};
use lsqc_passes::lower::{Form, LOWER_BLOCKS};
use lsqc_passes::ops::is_weighted;
use lsqc_passes::quantize::{BlockLayer, WeightOnlyPlan, WeightRule, blocked, chosen};
use lsqc_passes::simplify::{TargetOpset, UPGRADE_OPSET};

use crate::compiler::{Compiler, load};
use crate::config::{LayerRule, Quantization};
use crate::engine::{Engine, LoadOptions, Tensors};
use crate::failure::{Failure, Kind};

/// Layers that a refusal names.
const SHOWN: usize = 3;

/// What is asked for; `None` where activations are quantized too.
pub(super) fn plan(asked: &Quantization) -> Option<WeightOnlyPlan> {
    let weight_only = asked.deployment.weight_only.as_ref()?;
    let rules = asked.layers.clone();
    Some(WeightOnlyPlan {
        bits: asked.bits.weights().into(),
        block: weight_only.block,
        tail: weight_only.has.tail,
        rule: Arc::new(move |name| {
            Some(match rules.for_layer(name)? {
                LayerRule::Bits(bits) => WeightRule::Bits(bits.weights().into()),
                LayerRule::Float => WeightRule::Float,
            })
        }),
    })
}

/// Refuses what cannot be quantized so.
pub(super) fn check(asked: &Quantization, graph: &Graph, plan: &WeightOnlyPlan) -> Result<()> {
    check_patterns(asked, graph)?;
    let mut reasons = Vec::new();
    for id in graph.node_ids() {
        match chosen(graph, id, plan) {
            Ok(_) => return Ok(()),
            Err(None) => {}
            Err(Some(why)) => reasons.push(format!("{} ({}): {why}", graph[id].label(graph), graph[id].op)),
        }
    }
    let more = reasons.len().saturating_sub(SHOWN);
    reasons.truncate(SHOWN);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    let seen = if reasons.is_empty() {
        String::new()
    } else {
        format!(": {}", reasons.join("; "))
    };
    let bits = asked.bits.weights();
    let message = format!(
        "{}: --bits {} quantizes weights of MatMul and Gemm alone, and there is none that takes blocks{seen}",
        asked.model.display(),
        asked.bits
    );
    let cure = format!("--bits {bits} quantizes weights and activations, those of convolutions too");
    Err(Failure::usage(message).help(cure).into())
}

/// Refuses a pattern that asks for blocks and matches layers of which none can have them.
fn check_patterns(asked: &Quantization, graph: &Graph) -> Result<()> {
    for (pattern, rule) in asked.layers.iter() {
        let LayerRule::Bits(bits) = rule else { continue };
        let matched: Vec<NodeId> = graph
            .node_ids()
            .filter(|&id| is_weighted(&graph[id]) && asked.layers.matches(pattern, &graph[id].label(graph)))
            .collect();
        let convolves = |&&id: &&NodeId| graph[id].op.is("Conv") && blocked(graph, id).is_err();
        let Some(first) = matched
            .iter()
            .find(convolves)
            .filter(|_| matched.iter().all(|id| convolves(&id)))
        else {
            continue;
        };
        let config = asked.config.as_deref().unwrap_or_else(|| Path::new("lsqc.toml"));
        let message = format!(
            "{}: the pattern \"{pattern}\" in [quantize] layers asks for weights of {bits} in blocks, and '{}' is a Conv: no runtime has blocks for \
             convolutions",
            config.display(),
            graph[*first].label(graph)
        );
        let cure = "take the pattern out: convolutions stay in floats where weights alone are quantized";
        return Err(Failure::usage(message).help(cure).into());
    }
    Ok(())
}

/// Refuses an engine that does not run layers as these in the form that the target has.
///
/// # Errors
/// Engine, with what it says.
pub(super) fn check_engine(asked: &Quantization, layers: &[BlockLayer], engine: &dyn Engine) -> Result<()> {
    let Some(weight_only) = &asked.deployment.weight_only else {
        return Ok(());
    };
    let mut widths: Vec<u32> = layers.iter().map(|layer| layer.bits).collect();
    widths.sort_unstable();
    widths.dedup();
    for bits in widths {
        let Err(error) = probe(super::form(asked), asked.deployment.opset, bits, weight_only.block, engine) else {
            continue;
        };
        let message = format!(
            "{} does not run weights of {bits} bits beside activations in floats: {error:#}",
            engine.version()
        );
        let version = weight_only.has.oldest(bits);
        let newer = version.map_or_else(|| "a newer one".to_owned(), |version| format!("version {version} or later"));
        return Err(Failure::new(Kind::Engine, message)
            .help(format!("take {newer}, or --engine tract"))
            .into());
    }
    Ok(())
}

/// Runs one product of one block.
fn probe(form: Form, opset: i64, bits: u32, block: usize, engine: &dyn Engine) -> Result<()> {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]> probe (float[1,{block}] x) => (float[1,1] y)
         <float[{block},1] w = normal(seed = 1), float[1,1] s = {{0.5}}>
         {{ q = lsqc.FakeQuantize <bits = {bits}, signed = 1, axis = 0, block_size = {block}> (w, s)  y = MatMul (x, q) }}"
    );
    let mut model = lsqc_passes::text::parse(&text).context("the probe is a model")?;
    let set = |cx: &mut lsqc_passes::pass::PassCx| {
        cx.set(form);
        cx.set(TargetOpset(opset));
    };
    Compiler::default().run(&[&INFER_TYPES, &LOWER_BLOCKS, &UPGRADE_OPSET], &mut model, set, |_| ())?;
    let feeds: Tensors = [("x".to_owned(), Tensor::full(&[1, block], 1.0f32))].into();
    load(engine, &model, &LoadOptions::plain())?.run(&feeds)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{QuantizeFlags, Settings};
    use crate::engine::{Session, TractEngine};
    use crate::failure::{kind_of, render};

    /// As ONNX Runtime before 1.24.
    struct Old;

    impl Engine for Old {
        fn name(&self) -> &'static str {
            "ort"
        }

        fn version(&self) -> String {
            "ONNX Runtime 1.22.0 (CPU)".to_owned()
        }

        fn load(&self, _: &[u8], _: &LoadOptions) -> Result<Box<dyn Session>> {
            anyhow::bail!("only 4b and 8b quantization is supported")
        }
    }

    #[test]
    fn an_engine_that_cannot_run_the_file_is_told_before_training() {
        let flags = QuantizeFlags {
            bits: Some("w2".parse().unwrap()),
            ..QuantizeFlags::default()
        };
        let asked = Settings::default().quantization(&flags).unwrap();
        let layer = BlockLayer {
            name: "fc".to_owned(),
            op: "Gemm".to_owned(),
            bits: 2,
            block: 32,
            steps: 1,
            first: true,
            last: true,
            weight: "w".to_owned(),
        };
        let layers = [layer];
        check_engine(&asked, &layers, &TractEngine).unwrap();
        let error = check_engine(&asked, &layers, &Old).unwrap_err();
        assert_eq!(kind_of(&error).exit_code(), 5);
        let said = render(&error);
        for part in [
            "ONNX Runtime 1.22.0 (CPU) does not run weights of 2 bits",
            "only 4b and 8b",
            "version 1.24 or later, or --engine tract",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
}
