//! The proof of weights in blocks: it holds for right files on every engine at hand, and finds each kind of wrong one.

use std::sync::Arc;

use crate::engine_support::{engines, options};
use lsqc::compiler::Compiler;
use lsqc::data::{Dataset, Synthetic};
use lsqc::engine::{Engine, LoadOptions, QdqFusion};
use lsqc::run::model_inputs;
use lsqc::terminal::{Manner, Surface, Terminal, Verbosity};
use lsqc::verify_blocks::{BlockPair, BlockProof, prove};
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::lower::{BlockSite, BlockSites, Form};
use lsqc_passes::pass::{NoEvaluator, PassCx, run_quietly};
use lsqc_passes::pipelines::{FINISH, LOWER, QUANTIZE};
use lsqc_passes::quantize::{QuantizePlan, SET_STEPS, StepInit, WeightOnlyPlan};
use lsqc_passes::simplify::{TargetOpset, UPGRADE_OPSET};
use lsqc_passes::target::{ORT, TENSORRT, Tail, Target};

/// A product of rank 3 and its bias, a clamp, a mean, and a Gemm.
const NET: &str = "<ir_version: 8, opset_import: [\"\" : 17]>
    g (float[N,4,64] x) => (float[N,3] y)
    <float[64,128] a = normal(seed = 1), float[128] ab = normal(seed = 2), float[3,128] c = normal(seed = 3), float[3] cb = normal(seed = 4)>
    { t = MatMul (x, a)  u = Add (t, ab)  r = Relu (u)  m = ReduceMean <axes = [1], keepdims = 0> (r)  y = Gemm <transB = 1> (m, c, cb) }";

/// Samples, more than one batch of the proof.
const SAMPLES: usize = 20;

/// The fake-quantized network, the lowered one, and where its blocks are.
fn lowered(target: &'static Target, bits: u32) -> (Model, Model, Vec<BlockSite>) {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(QuantizePlan {
        weight_only: Some(WeightOnlyPlan {
            bits,
            block: 64,
            tail: Tail::Short,
            rule: Arc::new(|_| None),
        }),
        ..QuantizePlan::default()
    });
    cx.set(StepInit::MinMse);
    cx.set(Form::of(target));
    let mut fake = lsqc_passes::text::parse(NET).unwrap();
    for passes in [&[&INFER_TYPES][..], QUANTIZE, &[&SET_STEPS], FINISH] {
        run_quietly(passes, &mut fake, &mut cx).unwrap();
    }
    let mut lowered = fake.clone();
    run_quietly(LOWER, &mut lowered, &mut cx).unwrap();
    let sites: BlockSites = cx.take().unwrap();
    cx.set(TargetOpset(target.weight_only.unwrap().opset));
    run_quietly(&[&UPGRADE_OPSET], &mut lowered, &mut cx).unwrap();
    (fake, lowered, sites.0)
}

fn proof(engine: &dyn Engine, (fake, lowered, sites): &(Model, Model, Vec<BlockSite>)) -> BlockProof {
    let data: Arc<dyn Dataset> = Arc::new(Synthetic::new(&model_inputs(fake), SAMPLES, 0, 0).unwrap());
    let terminal = Terminal::new(Manner {
        verbosity: Verbosity::Quiet,
        progress: Surface::Nothing,
    });
    let options = LoadOptions {
        qdq_fusion: QdqFusion::Off,
        ..options(&[])
    };
    let pair = BlockPair { fake, lowered, sites };
    prove(&mut Compiler::default(), &pair, &data, SAMPLES, engine, &options, &terminal).unwrap()
}

#[test]
fn right_files_hold() {
    for (target, bits) in [(&ORT, 2), (&ORT, 3), (&ORT, 4), (&ORT, 8), (&TENSORRT, 2), (&TENSORRT, 4)] {
        let made = lowered(target, bits);
        for engine in engines() {
            let proof = proof(engine.as_ref(), &made);
            assert_eq!(proof.broken(), None, "{} at {bits} bits on {}", target.name, engine.name());
            assert_eq!(proof.samples, SAMPLES);
            let counts: Vec<_> = proof
                .layers
                .iter()
                .map(|layer| (layer.layer.as_str(), layer.weights, layer.results))
                .collect();
            let samples = SAMPLES as u64;
            assert_eq!(
                counts,
                [
                    ("MatMul -> t", 64 * 128, samples * 4 * 128),
                    ("Gemm -> y", 3 * 128, samples * 3)
                ]
            );
        }
    }
}

/// Puts `changed` in the place of the constant `name`.
fn replace(model: &mut Model, name: &str, changed: impl FnOnce(&Tensor) -> Tensor) {
    let value = model.graph.find(name).unwrap();
    let tensor = changed(model.graph[value].constant().unwrap());
    model.graph.set_literal(value, tensor);
}

#[test]
fn wrong_files_are_found() {
    for engine in engines() {
        let broken = |change: &dyn Fn(&mut Model)| {
            let mut made = lowered(&ORT, 4);
            change(&mut made.1);
            let proof = proof(engine.as_ref(), &made);
            (proof.broken().unwrap_or_default(), proof)
        };
        // One level.
        let (said, proof) = broken(&|model| {
            replace(model, "a/blocks", |levels| {
                let mut bytes = levels.values::<u8>().unwrap().to_vec();
                bytes[7] ^= 1;
                Tensor::new(levels.shape(), bytes)
            });
        });
        assert!(said.starts_with("at 'MatMul -> t' 1 of 8192 weights differ"), "{said}");
        assert!(proof.layers[0].beyond > 0 && proof.layers[1].different == 0);
        // One step, by its last bit: results hide that, bits do not.
        let (said, proof) = broken(&|model| {
            replace(model, "c/scale", |scales| {
                let mut values = scales.values::<f32>().unwrap().to_vec();
                values[1] = f32::from_bits(values[1].to_bits() + 1);
                Tensor::new(scales.shape(), values)
            });
        });
        assert!(said.starts_with("at 'Gemm -> y' "), "{said}");
        assert!(proof.layers[1].different > 0 && proof.layers[0].different == 0);
        // A bias.
        let (said, proof) = broken(&|model| replace(model, "cb", |bias| Tensor::new(bias.shape(), vec![0.0f32; 3])));
        assert!(said.contains("beyond the bound"), "{said}");
        assert_eq!(proof.layers[1].different, 0);
        // A layer that takes something else: each layer computes what it should, and the network does not.
        let (said, proof) = broken(&|model| {
            let (r, u) = (model.graph.find("r").unwrap(), model.graph.find("u").unwrap());
            model.graph.replace_uses(r, u);
        });
        assert!(said.starts_with("an output differs"), "{said}");
        assert!(proof.layers.iter().all(|layer| layer.different + layer.beyond == 0));
    }
}

/// A kernel that rounds activations to int8, as `accuracy_level` 4 asks for, has the right weights and is beyond the bound.
#[test]
fn activations_in_integers_are_found() {
    for engine in engines().iter().filter(|engine| engine.name() == "ort") {
        let mut made = lowered(&ORT, 4);
        for id in made.1.graph.node_list() {
            if made.1.graph[id].op.name == "MatMulNBits" {
                made.1.graph[id].set_attr("accuracy_level", 4i64);
            }
        }
        let proof = proof(engine.as_ref(), &made);
        assert!(proof.layers.iter().all(|layer| layer.different == 0), "{proof:?}");
        assert!(proof.broken().unwrap().contains("beyond the bound"), "{proof:?}");
    }
}
