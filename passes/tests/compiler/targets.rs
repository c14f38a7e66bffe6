//! What differs by target: where quantizers stand, how levels are written, how weights are stored.

use std::sync::Arc;

use crate::common::{elements, nodes, notes, run_in};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{DType, Model};
use lsqc_passes::lower::{
    Form, LOWER_QDQ, LevelSite, LevelSites, SEPARATE_WEIGHTS, SNAP_BIASES, UNPACK_WEIGHTS, most_weight_bits,
};
use lsqc_passes::ops::QuantRange;
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::quantize::{
    ActivationSteps, Bits, Granularity, PLACE_QUANTIZERS, QuantizePlan, SET_STEPS, Sign, Sites, StepInit,
};
use lsqc_passes::target::{OPENVINO, ORT, Placement, Requantizing, Results, Storage, Sums, TARGETS, TENSORRT, Version};

/// 4-bit weights and 3-bit activations, as TensorRT and OpenVINO have quantizers.
fn shortcut() -> QuantizePlan {
    QuantizePlan {
        bits: Bits {
            weight: 4,
            activation: 3,
            sign: None,
        },
        placement: Placement::Shortcut,
        requantizing: Requantizing::Never,
        results: Results::Any,
        ..QuantizePlan::default()
    }
}

fn place<'a>(plan: QuantizePlan, text: &str) -> (Model, PassCx<'a>) {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(plan);
    let model = run_in(&[&INFER_TYPES, &PLACE_QUANTIZERS], &mut cx, text).unwrap();
    (model, cx)
}

/// 1×1 convolutions of one channel with weights a, b, c, d.
fn convs(body: &str) -> String {
    format!(
        "g (float[1,1,4,4] x) => (y) <float[1,1,1,1] a = {{1}}, float[1,1,1,1] b = {{2}}, float[1,1,1,1] c = {{3}}, float[1,1,1,1] d = {{4}}>
        {{ {body} }}"
    )
}

#[test]
fn of_an_addition_the_shortcut_alone_is_quantized_and_a_value_once() {
    let text = convs("t = Conv (x, a)  r = Relu (t)  u = Conv (r, b)  s = Add (u, r)  y = Conv (s, c)");
    assert_snapshot!(nodes(&place(shortcut(), &text).0), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    r = Relu (t)
    "r/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (r, "r/q3/step")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv ("r/q3", "b/q4")
    s = Add (u, "r/q3")
    "s/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (s, "s/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("s/q8", "c/q8")
    "#);
}

#[test]
fn of_two_layers_before_an_addition_the_second_is_the_shortcut() {
    let text = convs("t = Conv (x, a)  r = Relu (t)  u = Conv (r, b)  v = Conv (r, d)  s = Add (u, v)  y = Conv (s, c)");
    let placed = nodes(&place(shortcut(), &text).0);
    assert!(placed.contains(r#"s = Add (u, "v/q8")"#), "{placed}");
}

#[test]
fn a_layer_whose_result_others_take_is_no_branch_of_its_own() {
    // u goes to a layer too: that layer needs it quantized, and the addition takes those levels.
    let text = convs("t = Conv (x, a)  u = Conv (t, b)  v = Conv (u, d)  s = Add (v, u)  y = Conv (s, c)");
    let placed = nodes(&place(shortcut(), &text).0);
    assert!(placed.contains(r#"s = Add (v, "u/q3")"#), "{placed}");
}

#[test]
fn without_chains_a_value_takes_the_most_bits_that_a_layer_asks_for() {
    // The last layer asks for 8 bits of r, the one beside it for 3.
    let text = convs("t = Conv (x, a)  r = Relu (t)  u = Conv (r, b)  v = Conv (u, c)  z = Conv (r, d)  y = Sum (v, z)");
    let placed = nodes(&place(shortcut(), &text).0);
    assert_eq!(placed.matches("(r, \"r/").count(), 1, "{placed}");
    assert!(placed.contains(r#"u = Conv ("r/q8", "b/q4")"#), "{placed}");
    assert!(placed.contains(r#"z = Conv ("r/q8", "d/q8")"#), "{placed}");
}

#[test]
fn weights_have_a_step_for_each_output_channel() {
    let text =
        "g (float[1,2,4,4] x) => (y) <float[3,2,1,1] w = {1, 1, 2, 2, 0, 0}, float[48,2] m = {0.5}, int64[2] flat = {1, 48}>
        { t = Conv (x, w)  f = Reshape (t, flat)  y = MatMul (f, m) }"
            .replace("{0.5}", &format!("{{{}}}", ["0.5, 1"; 48].join(", ")));
    let plan = QuantizePlan {
        granularity: Granularity::PerChannel,
        ..QuantizePlan::default()
    };
    let (model, mut cx) = place(plan, &text);
    let placed = nodes(&model);
    assert!(placed.contains(r#"signed = 1, axis = 0> (w, "w/q8/step")"#), "{placed}");
    assert!(placed.contains(r#"signed = 1, axis = 1> (m, "m/q8/step")"#), "{placed}");
    let sites: Sites = cx.take().unwrap();
    let steps = sites
        .activations
        .iter()
        .map(|site| (site.value.clone(), (0.5, Sign::Unsigned)));
    cx.set(ActivationSteps(steps.collect()));
    let mut model = model;
    cx.set(StepInit::Lsq);
    crate::common::run_on(&[&SET_STEPS], &mut cx, &mut model).unwrap();
    // 2·mean|v|/√Q_P with Q_P = 127; the channel of zeros takes the step of the whole, whose mean is 1.
    let step = |mean: f64| (2.0 * mean / 127f64.sqrt()) as f32;
    assert_eq!(elements(&model, "w/q8/step"), [step(1.0), step(2.0), step(1.0)]);
    assert_eq!(elements(&model, "m/q8/step"), [step(0.5), step(1.0)]);
}

#[test]
fn a_sign_that_is_asked_for_is_handed_on_but_not_to_edges_of_other_bits() {
    let mut plan = shortcut();
    plan.bits.sign = Some(Sign::Unsigned);
    let text = convs("t = Conv (x, a)  u = Conv (t, b)  y = Conv (u, c)");
    let (_, mut cx) = place(plan, &text);
    let sites: Sites = cx.take().unwrap();
    let asked: Vec<_> = sites
        .activations
        .iter()
        .map(|site| (site.value.as_str(), site.asked))
        .collect();
    assert_eq!(asked, [("x/q8", None), ("t/q3", Some(Sign::Unsigned)), ("u/q8", None)]);
}

#[test]
fn sums_of_16_bits_take_a_bit_of_weights_beside_inputs_of_8() {
    let form = Form {
        sums: Sums::SixteenBit,
        ..Form::of(&ORT)
    };
    let input = |bits, signed| most_weight_bits(form, QuantRange { bits, signed });
    // 2·255·64 = 32,640 holds, 2·255·128 does not; 2·(128 + 7)·64 does, 2·(128 + 7)·128 does not; 2·15·128 does.
    assert_eq!(
        (input(8, false), input(8, true), input(4, true), input(4, false)),
        (7, 7, 7, 8)
    );
    let plan = QuantizePlan {
        most_weight_bits: Some(Arc::new(move |range| most_weight_bits(form, range))),
        ..shortcut()
    };
    let (model, cx) = place(plan, &convs("t = Conv (x, a)  u = Conv (t, b)  y = Conv (u, c)"));
    let placed = nodes(&model);
    assert!(placed.contains(r#""a/q7" = "#) && placed.contains(r#""b/q4" = "#), "{placed}");
    assert_eq!(
        notes(&cx),
        "Conv -> t (Conv): its weight takes 7 bits: sums of more leave 16 bits\n\
         Conv -> y (Conv): its weight takes 7 bits: sums of more leave 16 bits"
    );
}

/// A quantized first layer, and behind its Relu one of `bits` with a weight of `weight` bits.
fn layers(weight: u32, signed: u32, bits: u32) -> String {
    format!(
        "g (float[1,1,4,4] x) => (y) <float[2,1,1,1] w = {{0.6, -0.75}}, float[2] b = {{0.51, -1.5}}, float[1,2,1,1] u = {{0.5, -0.25}},
        float sx = {{0.125}}, float sw = {{0.25}}, float s = {{0.5}}>
        {{
          xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
          wq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, sw)
          c = Conv (xq, wq, b)
          r = Relu (c)
          rq = lsqc.FakeQuantize <bits = {bits}, signed = {signed}> (r, s)
          uq = lsqc.FakeQuantize <bits = {weight}, signed = 1> (u, sw)
          y = Conv (rq, uq)
        }}"
    )
}

fn lower(form: Form, text: &str) -> (Model, Vec<LevelSite>) {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(form);
    let model = run_in(&[&INFER_TYPES, &SNAP_BIASES, &LOWER_QDQ], &mut cx, text).unwrap();
    let sites: LevelSites = cx.take().unwrap();
    (model, sites.0)
}

#[test]
fn signed_bytes_have_no_zero_point_and_are_clipped_in_floats() {
    let (model, sites) = lower(Form::of(&TENSORRT), &layers(4, 0, 4));
    assert_snapshot!(nodes(&model), @r#"
    "xq/quantized" = QuantizeLinear (x, sx, "int8/0")
    "xq/dequantized" = DequantizeLinear ("xq/quantized", sx, "int8/0")
    "w/dequantized" = DequantizeLinear ("w/int8", "w/scale", "w/zero_point")
    c = Conv ("xq/dequantized", "w/dequantized", "b/snapped")
    r = Relu (c)
    "rq/clipped" = Clip (c, "rq/min", "rq/max")
    "rq/quantized" = QuantizeLinear ("rq/clipped", s, "int8/0")
    "rq/dequantized" = DequantizeLinear ("rq/quantized", s, "int8/0")
    "u/dequantized" = DequantizeLinear ("u/int8", "u/scale", "u/zero_point")
    y = Conv ("rq/dequantized", "u/dequantized")
    "#);
    let site = sites.last().unwrap();
    assert_eq!(
        (site.zero_point, site.range, site.levels.as_str()),
        (0, (0, 15), "rq/quantized")
    );
    assert_eq!(
        (elements(&model, "rq/min"), elements(&model, "rq/max")),
        (vec![0.0], vec![7.5])
    );
    let zero = model.graph.find("int8/0").unwrap();
    assert_eq!(model.graph[zero].constant().unwrap().dtype(), DType::I8);
    // The bias stays in floats, on the grid 0.125·0.25/2⁴ of the accumulator.
    assert_eq!(elements(&model, "b/snapped"), [261.0 / 512.0, -1.5]);
}

#[test]
fn a_relu_before_signed_levels_is_the_floor_of_the_clip() {
    let (model, sites) = lower(Form::of(&TENSORRT), &layers(4, 1, 8));
    assert_eq!(sites.last().unwrap().range, (0, 127));
    assert_eq!(
        (elements(&model, "rq/min"), elements(&model, "rq/max")),
        (vec![0.0], vec![63.5])
    );
}

#[test]
fn levels_that_leave_signed_bytes_are_an_error() {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(Form::of(&TENSORRT));
    let why = run_in(&[&INFER_TYPES, &LOWER_QDQ], &mut cx, &layers(4, 0, 8)).unwrap_err();
    assert!(why.contains("256 levels without a sign do not fit int8"), "{why}");
}

/// The bytes that store the weight `u` and the op behind them.
fn stored(storage: Storage, bits: u32) -> (DType, Vec<u8>, String, Vec<f32>) {
    let form = Form {
        storage,
        ..Form::of(&ORT)
    };
    let (model, _) = lower(form, &layers(bits, 0, 4));
    let graph = &model.graph;
    let (_, conv) = graph.nodes().rfind(|(_, node)| node.op.is("Conv")).unwrap();
    let (_, dequantize) = graph.producer(conv.input(1).unwrap()).unwrap();
    let (mut levels, mut by) = (dequantize.input(0).unwrap(), String::new());
    while let Some((_, node)) = graph.producer(levels) {
        by += &node.op.name;
        if let Some(factor) = node.input(1) {
            by += &format!(" {} ", graph[factor].constant().unwrap().to_f32().unwrap()[0]);
        }
        levels = node.input(0).unwrap();
    }
    let tensor = graph[levels].constant().unwrap();
    (tensor.dtype(), tensor.bytes().to_vec(), by, elements(&model, "u/scale"))
}

#[test]
fn weights_of_few_bits_are_packed_low_bits_first() {
    // 0.5 and −0.25 by 0.25 are the levels 2 and −1; at 2 bits 2 is clipped to 1.
    let behind = |factor: u32| format!("Mul {factor} Cast");
    assert_eq!(
        stored(Storage::Int4, 4),
        (DType::I4, vec![0xf2], behind(16), vec![0.25 / 16.0])
    );
    assert_eq!(
        stored(Storage::Int4, 3),
        (DType::I4, vec![0xf2], behind(32), vec![0.25 / 32.0])
    );
    assert_eq!(
        stored(Storage::Int2, 2),
        (DType::I2, vec![0b1101], behind(64), vec![0.25 / 64.0])
    );
    assert_eq!(
        stored(Storage::Int4, 2),
        (DType::I4, vec![0xf1], behind(64), vec![0.25 / 64.0])
    );
    assert_eq!(stored(Storage::Int2, 8).0, DType::I8, "8 bits have no smaller type");
    assert_eq!(
        stored(Storage::Int8, 4),
        (DType::I8, vec![32, 240], String::new(), vec![0.25 / 16.0])
    );
}

#[test]
fn unpacked_weights_are_the_bytes() {
    for (storage, bits, levels) in [(Storage::Int4, 4, [32.0, -16.0]), (Storage::Int2, 2, [64.0, -64.0])] {
        let form = Form {
            storage,
            ..Form::of(&ORT)
        };
        let (mut model, _) = lower(form, &layers(bits, 0, 4));
        crate::common::run_on(&[&UNPACK_WEIGHTS], &mut PassCx::new(&NoEvaluator), &mut model).unwrap();
        assert!(
            !nodes(&model).contains("Cast") && !nodes(&model).contains("Mul"),
            "{}",
            nodes(&model)
        );
        let (_, conv) = model.graph.nodes().rfind(|(_, node)| node.op.is("Conv")).unwrap();
        let (_, dequantize) = model.graph.producer(conv.input(1).unwrap()).unwrap();
        let bytes = model.graph[dequantize.input(0).unwrap()].constant().unwrap();
        assert_eq!((bytes.dtype(), bytes.to_f32().unwrap()), (DType::I8, levels.to_vec()));
    }
}

#[test]
fn separate_weights_are_equal_constants_of_their_own() {
    let text = "g (float[1,2] x) => (a, b, y) <int8[2,2] w = {1, 2, 3, 4}, float s = {0.5}, int8 z = {0}>
        { d = DequantizeLinear (w, s, z)  a = MatMul (x, d)  b = MatMul (a, d)  e = DequantizeLinear (w, s, z)  y = MatMul (b, e) }";
    let model = run_in(&[&SEPARATE_WEIGHTS], &mut PassCx::new(&NoEvaluator), text).unwrap();
    let graph = &model.graph;
    let products = graph.nodes().filter(|(_, node)| node.op.is("MatMul"));
    let weights: Vec<_> = products
        .map(|(_, node)| {
            let (_, dequantize) = graph.producer(node.input(1).unwrap()).unwrap();
            [0, 2].map(|operand| dequantize.input(operand).unwrap())
        })
        .collect();
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        for operand in [0, 1] {
            let (one, other) = (weights[one][operand], weights[other][operand]);
            assert_ne!(one, other);
            assert_eq!(graph[one].constant(), graph[other].constant());
        }
    }
    let again = nodes(
        &run_in(
            &[&SEPARATE_WEIGHTS],
            &mut PassCx::new(&NoEvaluator),
            &text
                .replace("e = DequantizeLinear (w, s, z)  y = MatMul (b, e)", "y = Neg (b)")
                .replace("b = MatMul (a, d)", "b = Neg (a)"),
        )
        .unwrap(),
    );
    assert_eq!(
        again.matches("DequantizeLinear").count(),
        1,
        "one user keeps what it has: {again}"
    );
}

#[test]
fn sums_of_16_bits_leave_the_shift_that_holds() {
    let scale = |sums, signed: u32, bits: u32| {
        let form = Form { sums, ..Form::of(&ORT) };
        elements(&lower(form, &layers(4, signed, bits)).0, "u/scale")[0]
    };
    assert_eq!(scale(Sums::Wide, 1, 4), 0.25 / 16.0);
    assert_eq!(scale(Sums::SixteenBit, 0, 4), 0.25 / 16.0, "2·15·128 holds");
    assert_eq!(scale(Sums::SixteenBit, 1, 4), 0.25 / 8.0, "2·135·64 holds");
}

#[test]
fn every_target_has_a_name_and_a_placement_of_its_own() {
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.dedup();
    assert_eq!(names, ["ort", "openvino", "tensorrt", "portable"]);
    assert!(TARGETS.iter().all(|target| !target.placements.is_empty()));
}

#[test]
fn the_oldest_runtime_has_the_operator_set_and_the_storage() {
    assert_eq!(ORT.oldest(13, Storage::Int8), Some(Version(1, 7)));
    assert_eq!(ORT.oldest(17, Storage::Int8), Some(Version(1, 12)));
    assert_eq!(ORT.oldest(21, Storage::Int8), Some(Version(1, 18)));
    assert_eq!(ORT.oldest(21, Storage::Int4), Some(Version(1, 23)));
    assert_eq!(TENSORRT.oldest(13, Storage::Int8), None);
    assert_eq!(ORT.oldest(99, Storage::Int8), None);
    assert_eq!(("1.23".parse(), "1.23.2".parse()), (Ok(Version(1, 23)), Ok(Version(1, 23))));
    assert!("1".parse::<Version>().is_err() && "v1.2".parse::<Version>().is_err());
}

/// OpenVINO computes a product of two activations in integers where zero points are 0: with a sign in int8, seen through moves; a first operand
/// without one stays uint8. ONNX Runtime takes the form of every other activation.
#[test]
fn operands_of_products_have_the_zero_point_that_the_runtime_takes() {
    let text = "g (float[2,3,4] a, float[2,3,4] b, float[2,3,4] c) => (y) <float s = {0.5}, float t = {0.25}, float u = {0.125}>
        {
          aq = lsqc.FakeQuantize <bits = 8, signed = 1> (a, s)
          bq = lsqc.FakeQuantize <bits = 4, signed = 1> (b, t)
          bt = Transpose <perm = [0, 2, 1]> (bq)
          m = MatMul (aq, bt)
          p = Softmax (m)
          pq = lsqc.FakeQuantize <bits = 8, signed = 0> (p, u)
          cq = lsqc.FakeQuantize <bits = 7, signed = 0> (c, t)
          y = MatMul (pq, cq)
        }";
    let zero_points = |target| {
        let mut cx = PassCx::new(&NoEvaluator);
        cx.set(Form::of(target));
        let model = run_in(&[&INFER_TYPES, &LOWER_QDQ], &mut cx, text).unwrap();
        ["aq", "bq", "pq", "cq"].map(|name| {
            let dequantized = model.graph.find(&format!("{name}/dequantized")).unwrap();
            let (_, node) = model.graph.producer(dequantized).unwrap();
            let zero = model.graph[node.input(2).unwrap()].constant().unwrap();
            format!("{} {}", zero.dtype(), zero.to_f32().unwrap()[0])
        })
    };
    assert_eq!(zero_points(&OPENVINO), ["int8 0", "int8 0", "uint8 0", "int8 0"]);
    assert_eq!(zero_points(&ORT), ["uint8 128", "uint8 128", "uint8 0", "uint8 0"]);
}

#[test]
fn a_weight_that_is_quantized_twice_has_two_names() {
    let text = "<ir_version: 8, opset_import: [\"\" : 13, \"lsqc\" : 1]>
        g (float[1,2,2,2] x) => (float[1,2,2,2] y) <float[2,2,1,1] w = {1, 2, 3, 4}, float sx = {0.25}, float sw = {0.5}, float tw = {0.25}>
        {
          xq = lsqc.FakeQuantize <bits = 8, signed = 0> (x, sx)
          wq = lsqc.FakeQuantize <bits = 8, signed = 1> (w, sw)
          c = Conv (xq, wq)
          cq = lsqc.FakeQuantize <bits = 8, signed = 0> (c, sx)
          vq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, tw)
          y = Conv (cq, vq)
        }";
    let model = run_in(
        &[&INFER_TYPES, &SNAP_BIASES, &LOWER_QDQ],
        &mut PassCx::new(&NoEvaluator),
        text,
    )
    .unwrap();
    let mut names: Vec<&str> = model
        .graph
        .nodes()
        .map(|(_, node)| node.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
    assert!(
        names.contains(&"w/DequantizeLinear") && names.contains(&"w/DequantizeLinear_1"),
        "{names:?}"
    );
}
