//! Weights alone, in blocks: where their quantizers stand, how steps start, what they become for each target; and each refusal.

use std::sync::Arc;

use crate::common::{elements, nodes, notes, run_in, run_on};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{DType, Model};
use lsqc_passes::legalize::LEGALIZE;
use lsqc_passes::lower::{
    BAKE_WEIGHTS, BlockSite, BlockSites, FOLD_BATCH_NORMS, Form, LOWER_BLOCKS, LOWER_QDQ, Order, UNPACK_BLOCKS,
};
use lsqc_passes::ops::{QuantRange, Quantizer};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::quantize::{PLACE_QUANTIZERS, QuantizePlan, SET_STEPS, Sites, StepInit, WeightOnlyPlan, WeightRule};
use lsqc_passes::target::{ORT, PORTABLE, TENSORRT, Tail, Target};

fn plan(bits: u32, block: usize) -> WeightOnlyPlan {
    WeightOnlyPlan {
        bits,
        block,
        tail: Tail::Short,
        rule: Arc::new(|_| None),
    }
}

fn place<'a>(plan: WeightOnlyPlan, text: &str) -> (Result<Model, String>, PassCx<'a>) {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(QuantizePlan {
        weight_only: Some(plan),
        ..QuantizePlan::default()
    });
    let model = run_in(&[&INFER_TYPES, &PLACE_QUANTIZERS], &mut cx, text);
    (model, cx)
}

/// A convolution, a product of rank 3, a Gemm with a bias and one whose weight lies the other way.
const NET: &str = "g (float[N,1,4,20] x) => (float[N,4,3] y, float[M,3] z)
    <float[1,1,1,1] k = {1}, float[20,18] a = normal(seed = 1), float[18,3] b = normal(seed = 2), float[3,20] c = normal(seed = 3),
     float[3] cb = normal(seed = 4), int64[3] rows = {-1, 4, 20}, int64[2] flat = {-1, 20}>
    {
      t = Conv (x, k)  q = Reshape (t, rows)  u = MatMul (q, a)  y = MatMul (u, b)  f = Reshape (t, flat)  z = Gemm <transB = 1> (f, c, cb)
    }";

#[test]
fn products_take_blocks_and_nothing_else_is_quantized() {
    let (model, mut cx) = place(plan(4, 16), NET);
    let model = model.unwrap();
    assert_snapshot!(nodes(&model), @r#"
    t = Conv (x, k)
    q = Reshape (t, rows)
    "a/q4" = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 0, block_size = 16> (a, "a/q4/step")
    u = MatMul (q, "a/q4")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 0, block_size = 16> (b, "b/q4/step")
    y = MatMul (u, "b/q4")
    f = Reshape (t, flat)
    "c/q4" = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 1, block_size = 16> (c, "c/q4/step")
    z = Gemm <transB = 1> (f, "c/q4", cb)
    "#);
    assert_snapshot!(notes(&cx), @"Conv -> t (Conv): stays in floats: weights alone are quantized in blocks, and blocks are of MatMul and Gemm: no runtime has them for convolutions");
    let sites: Sites = cx.take().unwrap();
    assert!(sites.layers.is_empty() && sites.activations.is_empty());
    let layers: Vec<_> = sites
        .blocks
        .iter()
        .map(|l| (l.name.as_str(), l.bits, l.block, l.steps, l.first, l.last))
        .collect();
    assert_eq!(
        layers,
        [
            ("MatMul -> u", 4, 16, 36, false, false),
            ("MatMul -> y", 4, 16, 6, false, true),
            ("Gemm -> z", 4, 16, 6, false, true)
        ]
    );
    assert_eq!(
        sites.weights().map(|(_, weight, bits)| (weight, bits)).collect::<Vec<_>>(),
        [("a/q4", 4), ("b/q4", 4), ("c/q4", 4)]
    );
}

#[test]
fn a_block_is_no_larger_than_its_column_needs() {
    let (model, _) = place(plan(4, 256), NET);
    let text = nodes(&model.unwrap());
    assert_eq!(text.matches("block_size = 32>").count(), 3, "{text}");
}

#[test]
fn the_user_gives_a_layer_other_bits_or_leaves_it() {
    let rule = |name: &str| match name {
        "MatMul -> u" => Some(WeightRule::Bits(8)),
        "Gemm -> z" => Some(WeightRule::Float),
        _ => None,
    };
    let (model, mut cx) = place(
        WeightOnlyPlan {
            rule: Arc::new(rule),
            ..plan(2, 32)
        },
        NET,
    );
    model.unwrap();
    let sites: Sites = cx.take().unwrap();
    let bits: Vec<_> = sites.blocks.iter().map(|layer| (layer.name.as_str(), layer.bits)).collect();
    assert_eq!(bits, [("MatMul -> u", 8), ("MatMul -> y", 2)]);
    assert!(notes(&cx).contains("Gemm -> z (Gemm): stays in floats: the configuration says so"));
}

#[test]
fn what_takes_no_blocks_stays_in_floats() {
    let text = "g (float[8] x, float[N,8] p, float[8,N] o, r, float[2,N,8] s) => (a, b, c, d, e)
        <float[8,2] w = normal(seed = 1), float[24,2] v = normal(seed = 2), float[2,8,2] q = normal(seed = 3)>
        { a = MatMul (x, w)  b = Gemm <alpha = 2.5> (p, w)  c = Gemm <transA = 1> (o, w)  d = MatMul (r, w)  e = MatMul (s, q) }";
    let (model, cx) = place(plan(4, 16), text);
    assert_snapshot!(notes(&cx), @r"
    MatMul -> a (MatMul): stays in floats: its data operand is a vector
    Gemm -> b (Gemm): stays in floats: its alpha or beta is not 1
    Gemm -> c (Gemm): stays in floats: its data operand is transposed
    MatMul -> d (MatMul): stays in floats: the rank of its data operand is not known
    MatMul -> e (MatMul): stays in floats: its weight is not a matrix
    ");
    assert_snapshot!(model.unwrap_err(), @"there is no weight to quantize alone: no MatMul or Gemm with a constant float matrix takes blocks");
}

#[test]
fn of_whole_blocks_an_extent_is_a_multiple() {
    let whole = WeightOnlyPlan {
        tail: Tail::Refused,
        ..plan(4, 64)
    };
    let text = "g (float[N,128] x) => (y) <float[128,96] w = normal(seed = 1), float[96,2] v = normal(seed = 2)> { t = MatMul (x, w)  y = MatMul (t, v) }";
    let (model, cx) = place(whole, text);
    assert!(nodes(&model.unwrap()).contains("\"w/q4\""));
    assert_snapshot!(notes(&cx), @"MatMul -> y (MatMul): stays in floats: it sums over 96, which is no multiple of the block of 64, and the target has whole blocks only");
}

#[test]
fn layers_share_the_quantizer_of_a_weight_that_they_see_alike() {
    let text = "g (float[N,16] x) => (a, b, c) <float[16,16] w = normal(seed = 1)>
        { a = MatMul (x, w)  b = Gemm (x, w)  c = Gemm <transB = 1> (x, w) }";
    let (model, mut cx) = place(plan(4, 16), text);
    let mut model = model.unwrap();
    assert_snapshot!(nodes(&model), @r#"
    "w/q4" = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 0, block_size = 16> (w, "w/q4/step")
    a = MatMul (x, "w/q4")
    b = Gemm (x, "w/q4")
    "w/q4_1" = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 1, block_size = 16> (w, "w/q4/step_1")
    c = Gemm <transB = 1> (x, "w/q4_1")
    "#);
    // What they share lies in the file once.
    run_on(&[&SET_STEPS], &mut cx, &mut model).unwrap();
    let (model, sites) = lower(&model, &ORT).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    a = com.microsoft.MatMulNBits <K = 16, N = 16, bits = 4, block_size = 16, accuracy_level = 1> (x, "w/blocks", "w/scale")
    b = com.microsoft.MatMulNBits <K = 16, N = 16, bits = 4, block_size = 16, accuracy_level = 1> (x, "w/blocks", "w/scale")
    c = com.microsoft.MatMulNBits <K = 16, N = 16, bits = 4, block_size = 16, accuracy_level = 1> (x, "w/blocks_1", "w/scale_1")
    "#);
    assert_eq!(sites.len(), 3);
}

/// [`NET`] with steps, at this many bits in blocks of 16.
fn quantized(bits: u32, init: StepInit, block: usize) -> Model {
    let (model, mut cx) = place(plan(bits, block), NET);
    let mut model = model.unwrap();
    cx.set(init);
    run_on(&[&SET_STEPS], &mut cx, &mut model).unwrap();
    model
}

#[test]
fn steps_start_from_their_blocks() {
    let model = quantized(4, StepInit::Lsq, 16);
    let (weight, steps) = (elements(&model, "a"), elements(&model, "a/q4/step"));
    for (block, rows) in [(0, 0..16), (1, 16..20)] {
        for column in 0..18 {
            let values: Vec<f64> = rows.clone().map(|row| f64::from(weight[row * 18 + column].abs())).collect();
            let expected = 2.0 * values.iter().sum::<f64>() / values.len() as f64 / 7f64.sqrt();
            let found = f64::from(steps[block * 18 + column]);
            // One rounding to single precision.
            assert!(
                (found - expected).abs() <= expected * f64::from(f32::EPSILON),
                "{found} {expected}"
            );
        }
    }
    let model = quantized(4, StepInit::MinMse, 16);
    let other = elements(&model, "a/q4/step");
    assert!(other.len() == steps.len() && other != steps);
}

#[test]
fn a_block_of_zeros_takes_the_step_of_the_whole() {
    let text = "g (float[N,32] x) => (y) <float[32,1] w = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0, 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> { y = MatMul (x, w) }";
    let (model, mut cx) = place(plan(2, 16), text);
    let mut model = model.unwrap();
    run_on(&[&SET_STEPS], &mut cx, &mut model).unwrap();
    assert_eq!(elements(&model, "w/q2/step"), [1.0, 2.0]);
}

fn lower(model: &Model, target: &Target) -> Result<(Model, Vec<BlockSite>), String> {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(Form::of(target));
    let mut model = model.clone();
    run_on(&[&LOWER_BLOCKS, &LOWER_QDQ], &mut cx, &mut model)?;
    let sites: BlockSites = cx.take().unwrap_or_default();
    Ok((model, sites.0))
}

#[test]
fn onnx_runtime_takes_a_product_of_its_own() {
    let (model, sites) = lower(&quantized(4, StepInit::Lsq, 16), &ORT).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    t = Conv (x, k)
    q = Reshape (t, rows)
    f = Reshape (t, flat)
    u = com.microsoft.MatMulNBits <K = 20, N = 18, bits = 4, block_size = 16, accuracy_level = 1> (q, "a/blocks", "a/scale")
    y = com.microsoft.MatMulNBits <K = 18, N = 3, bits = 4, block_size = 16, accuracy_level = 1> (u, "b/blocks", "b/scale")
    "z/product" = com.microsoft.MatMulNBits <K = 20, N = 3, bits = 4, block_size = 16, accuracy_level = 1> (f, "c/blocks", "c/scale")
    z = Add ("z/product", cb)
    "#);
    assert!(
        model
            .opset_imports
            .iter()
            .any(|import| import.domain == "com.microsoft" && import.version == 1)
    );
    let shape = |name: &str| model.graph[model.graph.find(name).unwrap()].shape().unwrap();
    assert_eq!((shape("a/blocks"), shape("a/scale")), (vec![18, 2, 8], vec![18, 2]));
    assert_eq!((shape("c/blocks"), shape("c/scale")), (vec![3, 2, 8], vec![3, 2]));
    let last = sites.last().unwrap();
    assert_eq!(
        (last.layer.as_str(), last.input.as_str(), last.result.as_str()),
        ("Gemm -> z", "f", "z")
    );
    assert_eq!(
        (last.product.as_str(), last.axis, last.order),
        ("z/product", 1, Order::InputsFirst)
    );
    // An output is declared with its type as before.
    assert!(
        model
            .graph
            .outputs()
            .iter()
            .all(|&y| model.graph[y].ty.as_ref().is_some_and(|ty| ty.dtype == DType::F32))
    );
}

#[test]
fn tensorrt_takes_int4_in_blocks() {
    let (model, sites) = lower(&quantized(3, StepInit::Lsq, 16), &TENSORRT).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    t = Conv (x, k)
    q = Reshape (t, rows)
    "a/dequantized" = DequantizeLinear <axis = 0, block_size = 16> ("a/int4", "a/scale")
    u = MatMul (q, "a/dequantized")
    "b/dequantized" = DequantizeLinear <axis = 0, block_size = 16> ("b/int4", "b/scale")
    y = MatMul (u, "b/dequantized")
    f = Reshape (t, flat)
    "c/dequantized" = DequantizeLinear <axis = 1, block_size = 16> ("c/int4", "c/scale")
    z = Gemm <transB = 1> (f, "c/dequantized", cb)
    "#);
    let dtype = |name: &str| model.graph[model.graph.find(name).unwrap()].ty.as_ref().unwrap().dtype;
    assert_eq!((dtype("a/int4"), dtype("a/scale")), (DType::I4, DType::F32));
    assert!(
        sites
            .iter()
            .all(|site| site.order == Order::Same && site.product == site.result)
    );
}

/// What bytes stand for is what was trained, for every number of bits, whole and short blocks, and both ways that a weight lies.
#[test]
fn bytes_stand_for_the_trained_weights() {
    for (bits, targets) in [
        (2, &[&ORT, &TENSORRT][..]),
        (3, &[&ORT, &TENSORRT]),
        (4, &[&ORT, &TENSORRT]),
        (8, &[&ORT]),
    ] {
        for (target, block) in targets.iter().flat_map(|&target| [16, 32].map(|block| (target, block))) {
            let model = quantized(bits, StepInit::MinMse, block);
            let mut baked = model.clone();
            run_on(&[&BAKE_WEIGHTS], &mut PassCx::new(&NoEvaluator), &mut baked).unwrap();
            let (mut lowered, sites) = lower(&model, target).unwrap();
            run_on(&[&UNPACK_BLOCKS], &mut PassCx::new(&NoEvaluator), &mut lowered).unwrap();
            assert!(!nodes(&lowered).contains("MatMulNBits") && !nodes(&lowered).contains("DequantizeLinear"));
            assert_eq!(sites.len(), 3);
            for site in sites {
                let weight = |model: &Model, value: &str| {
                    let (id, _) = model.graph.producer(model.graph.find(value).unwrap()).unwrap();
                    model.graph.constant_input(id, 1).unwrap().clone()
                };
                let (expected, found) = (weight(&baked, &site.result), weight(&lowered, &site.product));
                let (a, b) = (expected.to_f32().unwrap(), found.to_f32().unwrap());
                let columns = expected.shape()[1];
                let turned = site.order == Order::InputsFirst && site.axis == 1;
                for (at, value) in a.iter().enumerate() {
                    let other = if turned {
                        at % columns * expected.shape()[0] + at / columns
                    } else {
                        at
                    };
                    assert_eq!(value.to_bits(), b[other].to_bits(), "{bits} {} {at}", site.layer);
                }
            }
        }
    }
}

#[test]
fn refusals_of_the_lowering() {
    let model = quantized(4, StepInit::Lsq, 16);
    assert_snapshot!(lower(&model, &PORTABLE).unwrap_err(), @"a/q4 (lsqc.FakeQuantize): its steps are of blocks, and the target has no such weights");
    assert_snapshot!(lower(&quantized(8, StepInit::Lsq, 16), &TENSORRT).unwrap_err(), @"a/q8 (lsqc.FakeQuantize): 8 bits do not fit int4");
    assert_snapshot!(lower(&quantized(5, StepInit::Lsq, 16), &ORT).unwrap_err(), @"a/q5 (lsqc.FakeQuantize): MatMulNBits has no weights of 5 bits");
    let of = |weight: &str, steps: &str, body: &str| {
        let text = format!("g (float[N,4] x, float[1,4,4,4] i) => (y) <{weight}, {steps}> {{ {body} }}");
        let model = run_in(&[&INFER_TYPES], &mut PassCx::new(&NoEvaluator), &text).unwrap();
        lower(&model, &ORT).unwrap_err()
    };
    let quantizer = "q = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 0, block_size = 16> (w, s)";
    let matrix = "float[4,2] w = normal(seed = 1)";
    assert_snapshot!(of(matrix, "float[3,2] s = {1, 1, 1, 1, 1, 1}", &format!("{quantizer}  y = MatMul (x, q)")), @"lsqc.FakeQuantize -> q (lsqc.FakeQuantize): it has 6 steps, and its blocks are [1, 2]");
    assert_snapshot!(of(matrix, "float[1,2] s = {1, 1}", &format!("{quantizer}  y = Neg (q)")), @"lsqc.FakeQuantize -> q (lsqc.FakeQuantize): Neg -> y takes its weight in blocks");
    let filter = "float[2,4,1,1] w = normal(seed = 1)";
    assert_snapshot!(of(filter, "float[1,4,1,1] s = {1, 1, 1, 1}", &format!("{quantizer}  y = Conv (i, q)")), @"lsqc.FakeQuantize -> q (lsqc.FakeQuantize): blocks are of matrices");
}

#[test]
fn attributes_of_blocks() {
    let of = |attributes: &str| {
        let text = format!("g (float[4,2] x, float[1,2] s) => (y) {{ y = lsqc.FakeQuantize <bits = 4{attributes}> (x, s) }}");
        let model = run_in(&[], &mut PassCx::new(&NoEvaluator), &text).unwrap();
        let (_, node) = model.graph.nodes().next().unwrap();
        Quantizer::of(node)
    };
    let quantizer = of(", axis = 0, block_size = 16").unwrap();
    let expected = Quantizer {
        range: QuantRange { bits: 4, signed: false },
        axis: Some(0),
        block: Some(16),
        gain: 1.0,
    };
    assert_eq!(quantizer, expected);
    assert_eq!(quantizer.steps_shape(&[40, 2]), Ok(vec![3, 2]));
    assert_eq!([0, 1, 31, 32, 79].map(|at| quantizer.step_of(&[40, 2], at)), [0, 1, 1, 2, 5]);
    assert_snapshot!(of(", block_size = 16").unwrap_err(), @"its blocks have no axis");
    assert_snapshot!(of(", axis = 0, block_size = 0").unwrap_err(), @"a block has at least one element");
}

#[test]
fn a_norm_behind_such_a_layer_stays_in_floats() {
    let text = "g (float[N,16] x) => (y) <float[16,2] w = normal(seed = 1), float[2] one = {1, 1}, float[2] zero = {0, 0}>
        { t = MatMul (x, w)  y = BatchNormalization (t, one, zero, zero, one) }";
    let (model, mut cx) = place(plan(4, 16), text);
    let mut model = model.unwrap();
    run_on(&[&SET_STEPS, &FOLD_BATCH_NORMS], &mut cx, &mut model).unwrap();
    assert!(nodes(&model).contains("BatchNormalization"));
    assert_snapshot!(notes(&cx), @"BatchNormalization -> y (BatchNormalization): stays in floats: weights alone are quantized: the op before it is computed in floats");
}

#[test]
fn spelled_in_standard_ops() {
    let text = "g (float[40,2] w, float[3,2] s, float[40,2] d) => (y, dw, ds)
        { y = lsqc.FakeQuantize <bits = 3, signed = 1, axis = 0, block_size = 16> (w, s)
          dw, ds = lsqc.FakeQuantizeGrad <bits = 3, signed = 1, axis = 0, block_size = 16, gain = 0.5> (w, s, d) }";
    let model = run_in(&[&INFER_TYPES, &LEGALIZE], &mut PassCx::new(&NoEvaluator), text).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    "lsqc.FakeQuantize -> y/Reshape" = Reshape (s, "lsqc.FakeQuantize -> y/const")
    "lsqc.FakeQuantize -> y/Expand" = Expand ("lsqc.FakeQuantize -> y/Reshape", "lsqc.FakeQuantize -> y/const_1")
    "lsqc.FakeQuantize -> y/Reshape_1" = Reshape ("lsqc.FakeQuantize -> y/Expand", "lsqc.FakeQuantize -> y/const_2")
    "lsqc.FakeQuantize -> y/Slice" = Slice ("lsqc.FakeQuantize -> y/Reshape_1", "lsqc.FakeQuantize -> y/const_3", "lsqc.FakeQuantize -> y/const_4", "lsqc.FakeQuantize -> y/const_5", "lsqc.FakeQuantize -> y/const_6")
    "lsqc.FakeQuantize -> y/Div" = Div (w, "lsqc.FakeQuantize -> y/Slice")
    "lsqc.FakeQuantize -> y/Clip" = Clip ("lsqc.FakeQuantize -> y/Div", "lsqc.FakeQuantize -> y/const_7", "lsqc.FakeQuantize -> y/const_8")
    "lsqc.FakeQuantize -> y/Round" = Round ("lsqc.FakeQuantize -> y/Clip")
    y = Mul ("lsqc.FakeQuantize -> y/Round", "lsqc.FakeQuantize -> y/Slice")
    "lsqc.FakeQuantizeGrad -> dw/Reshape" = Reshape (s, "lsqc.FakeQuantizeGrad -> dw/const")
    "lsqc.FakeQuantizeGrad -> dw/Expand" = Expand ("lsqc.FakeQuantizeGrad -> dw/Reshape", "lsqc.FakeQuantizeGrad -> dw/const_1")
    "lsqc.FakeQuantizeGrad -> dw/Reshape_1" = Reshape ("lsqc.FakeQuantizeGrad -> dw/Expand", "lsqc.FakeQuantizeGrad -> dw/const_2")
    "lsqc.FakeQuantizeGrad -> dw/Slice" = Slice ("lsqc.FakeQuantizeGrad -> dw/Reshape_1", "lsqc.FakeQuantizeGrad -> dw/const_3", "lsqc.FakeQuantizeGrad -> dw/const_4", "lsqc.FakeQuantizeGrad -> dw/const_5", "lsqc.FakeQuantizeGrad -> dw/const_6")
    "lsqc.FakeQuantizeGrad -> dw/Sub" = Sub ("lsqc.FakeQuantize -> y/Div", "lsqc.FakeQuantizeGrad -> dw/const_7")
    "lsqc.FakeQuantizeGrad -> dw/Sub_1" = Sub ("lsqc.FakeQuantizeGrad -> dw/const_8", "lsqc.FakeQuantize -> y/Div")
    "lsqc.FakeQuantizeGrad -> dw/Mul" = Mul ("lsqc.FakeQuantizeGrad -> dw/Sub", "lsqc.FakeQuantizeGrad -> dw/Sub_1")
    "lsqc.FakeQuantizeGrad -> dw/Sign" = Sign ("lsqc.FakeQuantizeGrad -> dw/Mul")
    "lsqc.FakeQuantizeGrad -> dw/Relu" = Relu ("lsqc.FakeQuantizeGrad -> dw/Sign")
    dw = Mul (d, "lsqc.FakeQuantizeGrad -> dw/Relu")
    "lsqc.FakeQuantizeGrad -> dw/Mul_2" = Mul ("lsqc.FakeQuantizeGrad -> dw/Relu", "lsqc.FakeQuantize -> y/Div")
    "lsqc.FakeQuantizeGrad -> dw/Sub_2" = Sub ("lsqc.FakeQuantize -> y/Round", "lsqc.FakeQuantizeGrad -> dw/Mul_2")
    "lsqc.FakeQuantizeGrad -> dw/Mul_3" = Mul (d, "lsqc.FakeQuantizeGrad -> dw/Sub_2")
    "lsqc.FakeQuantizeGrad -> dw/Pad" = Pad ("lsqc.FakeQuantizeGrad -> dw/Mul_3", "lsqc.FakeQuantizeGrad -> dw/const_9")
    "lsqc.FakeQuantizeGrad -> dw/Reshape_2" = Reshape ("lsqc.FakeQuantizeGrad -> dw/Pad", "lsqc.FakeQuantizeGrad -> dw/const_10")
    "lsqc.FakeQuantizeGrad -> dw/ReduceSum" = ReduceSum <keepdims = 0> ("lsqc.FakeQuantizeGrad -> dw/Reshape_2", "lsqc.FakeQuantizeGrad -> dw/const_11")
    ds = Mul ("lsqc.FakeQuantizeGrad -> dw/ReduceSum", "lsqc.FakeQuantizeGrad -> dw/const_12")
    "#);
}
