//! The block of blocked convolutions is found by asking the engine, in whatever order the blocks are tried: a wrong one computes garbage.
//! With the right one they compute what the standard ops compute.

use crate::engine_support::{numbers, options};
use lsqc::engine::{Engine, LoadOptions, Session, Tensors};
use lsqc::tune::dialect;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Tensor, TensorType};
use lsqc_passes::legalize::{Dialect, LEGALIZE};
use lsqc_passes::onnx::{WriteOptions, write};
use lsqc_passes::pass::{NoEvaluator, PassCx, run_quietly};
use lsqc_passes::text::parse;

/// Sums of up to a few hundred products of numbers below 1, in another order.
const TOLERANCE: f64 = 1e-4;

/// An engine that names its blocks in another order.
struct Reordered<'a> {
    engine: &'a dyn Engine,
    blocks: &'static [usize],
}

impl Engine for Reordered<'_> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn version(&self) -> String {
        self.engine.version()
    }

    fn channel_blocks(&self) -> &'static [usize] {
        self.blocks
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> anyhow::Result<Box<dyn Session>> {
        self.engine.load(model, options)
    }
}

#[test]
fn one_block_is_right_in_any_order() {
    for engine in crate::engine_support::engines() {
        let found = |blocks| {
            dialect(&Reordered {
                engine: engine.as_ref(),
                blocks,
            })
            .channel_block
        };
        let own = dialect(engine.as_ref()).channel_block;
        assert_eq!(found(&[8, 16]), found(&[16, 8]), "{}", engine.name());
        assert_eq!(found(&[16, 8]), own, "{}", engine.name());
        // Blocks that no CPU has are never taken.
        assert_eq!(found(&[4]), None, "{}", engine.name());
        if cfg!(target_arch = "x86_64") {
            assert_eq!(own.is_some(), engine.name() == "ort", "{}", engine.name());
        }
    }
}

#[test]
fn blocked_convolutions_compute_what_standard_ones_do() {
    let cases = [
        (
            "float[2,16,7,6] x, float[32,16,3,3] w, float[32] b",
            "Conv <pads = [1, 0, 2, 1]> (x, w, b)",
        ),
        (
            "float[2,16,9,9] x, float[16,16,3,3] w",
            "Conv <strides = [2, 1], dilations = [2, 2], pads = [2, 2, 2, 2]> (x, w)",
        ),
        (
            "float[2,32,8,8] x, float[32,1,5,5] w",
            "Conv <group = 32, strides = [2, 2], pads = [2, 2, 2, 2]> (x, w)",
        ),
        (
            "float[2,32,5,6] dy, float[32,16,3,2] w",
            "lsqc.ConvGradInput <input_shape = [2, 16, 6, 6], group = 1, strides = [1, 1], pads = [1, 1, 0, 0]> (dy, w)",
        ),
        (
            "float[2,16,7,7] dy, float[16,16,3,3] w",
            "lsqc.ConvGradInput <input_shape = [2, 16, 9, 9], group = 1, strides = [1, 1], dilations = [2, 2], pads = [1, 1, 1, 1]> (dy, w)",
        ),
        (
            "float[2,16,6,6] dy, float[16,1,3,3] w",
            "lsqc.ConvGradInput <input_shape = [2, 16, 6, 6], group = 16, strides = [1, 1], pads = [1, 1, 1, 1]> (dy, w)",
        ),
    ];
    for engine in crate::engine_support::engines() {
        let block = dialect(engine.as_ref()).channel_block;
        for (operands, node) in cases {
            let run = |channel_block: Option<usize>| {
                let mut model = parse(&format!("g ({operands}) => (y) {{ y = {node} }}")).expect("it is a graph");
                let mut cx = PassCx::new(&NoEvaluator);
                cx.set(Dialect {
                    channel_block,
                    ..Dialect::default()
                });
                run_quietly(&[&INFER_TYPES, &LEGALIZE], &mut model, &mut cx).expect("it is spelled");
                let blocked = model.graph.nodes().any(|(_, node)| node.op.domain == "com.microsoft.nchwc");
                assert_eq!(blocked, channel_block.is_some(), "{node}");
                let feeds: Tensors = (model.graph.inputs().iter())
                    .map(|&input| {
                        let shape = model.graph[input].ty.as_ref().and_then(TensorType::known_shape).unwrap();
                        let values = (0..shape.iter().product()).map(|at: usize| (at as f32 * 0.618_034).fract() - 0.5);
                        let values: Vec<f32> = values.collect();
                        (model.graph[input].name().to_owned(), Tensor::new(&shape, values))
                    })
                    .collect();
                let bytes = write(&model, &WriteOptions::default()).expect("it is written").model;
                let mut session = engine.load(&bytes, &options(&[])).expect("it loads");
                numbers(&session.run(&feeds).expect("it runs"), "y")
            };
            let (standard, own) = (run(None), run(block));
            assert_eq!(standard.len(), own.len(), "{node}");
            for (a, b) in standard.iter().zip(&own) {
                assert!((a - b).abs() <= TOLERANCE, "{}: {node}: {a} and {b}", engine.name());
            }
        }
    }
}
