//! What is done to the trained network before it becomes integers, and the graphs of its proof; and each refusal.

use crate::common::{elements, nodes, notes, run_in};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{DType, Model};
use lsqc_passes::lower::{BAKE_WEIGHTS, CUT_AT_QUANTIZERS, FOLD_BATCH_NORMS, RAISE_STEPS, SNAP_BIASES, WIDEN_TO_DOUBLE};
use lsqc_passes::pass::{NoEvaluator, Pass, PassCx};

fn run(pass: &'static Pass, text: &str) -> (Result<Model, String>, String) {
    let mut cx = PassCx::new(&NoEvaluator);
    let model = run_in(&[&INFER_TYPES, pass], &mut cx, text);
    (model, notes(&cx))
}

/// A quantized convolution of two channels and a BatchNormalization of these γ.
fn conv_norm(gamma: &str, body: &str) -> String {
    format!(
        "g (float[1,1,2,2] x) => (y)
        <float[2,1,1,1] w = {{0.6, -0.75}}, float[2] b = {{0.5, -1.5}}, float sx = {{0.125}}, float sw = {{0.25}}, float[2] both = {{0.25, 0.5}},
         float[2] gamma = {{{gamma}}}, float[2] beta = {{0.1, 0.7}}, float[2] mean = {{0.3, -0.4}}, float[2] var = {{2, 0.6}}>
        {{ {body} }}"
    )
}

const QUANTIZED: &str = "xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
    wq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, sw)
    c = Conv (xq, wq, b)
    y = BatchNormalization <epsilon = 0.001> (c, gamma, beta, mean, var)";

#[test]
fn a_batch_norm_becomes_steps_and_biases_of_its_channels() {
    let (model, notes) = run(&FOLD_BATCH_NORMS, &conv_norm("1.3, 0.9", QUANTIZED));
    let model = model.unwrap();
    assert_eq!(notes, "");
    assert_snapshot!(nodes(&model), @r#"
    xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
    "wq/folded" = lsqc.FakeQuantize <bits = 4, signed = 1, axis = 0> ("w/folded", "sw/folded")
    y = Conv (xq, "wq/folded", "b/folded")
    "#);
    let single = |v: f32| f64::from(v);
    let factor = |gamma: f32, var: f32| single(gamma) / (single(var) + single(0.001)).sqrt();
    let factors = [factor(1.3, 2.0), factor(0.9, 0.6)];
    let steps = factors.map(|f| (0.25 * f) as f32);
    assert_eq!(elements(&model, "sw/folded"), steps);
    // 0.6 and −0.75 are the levels 2 and −3 of the step 0.25.
    assert_eq!(elements(&model, "w/folded"), [2.0 * steps[0], -3.0 * steps[1]]);
    let bias = |c: usize, b: f32, mean: f32, beta: f32| ((single(b) - single(mean)) * factors[c] + single(beta)) as f32;
    assert_eq!(
        elements(&model, "b/folded"),
        [bias(0, 0.5, 0.3, 0.1), bias(1, -1.5, -0.4, 0.7)]
    );
}

#[test]
fn a_step_for_each_channel_is_multiplied_by_its_own_factor() {
    let text = QUANTIZED.replace("signed = 1> (w, sw)", "signed = 1, axis = 0> (w, both)");
    let folded = run(&FOLD_BATCH_NORMS, &conv_norm("1.3, 0.7", &text)).0.unwrap();
    let alone = run(&FOLD_BATCH_NORMS, &conv_norm("1.3, 0.7", QUANTIZED)).0.unwrap();
    let steps = elements(&folded, "both/folded");
    // One step of 0.25 gives 0.25·f; steps of 0.25 and 0.5 give 0.25·f and 0.5·f.
    let factors: Vec<f32> = elements(&alone, "sw/folded").iter().map(|step| step / 0.25).collect();
    assert_eq!(steps, [0.25 * factors[0], 0.5 * factors[1]]);
}

#[test]
fn a_dead_channel_is_its_bias_alone() {
    let (model, notes) = run(&FOLD_BATCH_NORMS, &conv_norm("1.3, 0", QUANTIZED));
    let model = model.unwrap();
    assert!(
        notes.contains("dead output channels, which have zero weights now: 1"),
        "{notes}"
    );
    assert_eq!(elements(&model, "w/folded")[1], 0.0);
    assert_eq!(elements(&model, "sw/folded")[1], 0.25, "the old step");
    assert_eq!(elements(&model, "b/folded")[1], 0.7, "β");
}

#[test]
fn a_matmul_takes_the_folded_bias_by_an_add() {
    let text = "g (float[1,1] x) => (y) <float[1,2] w = {0.5, 1}, float s = {0.25}, float[2] one = {1, 1}, float[2] beta = {2, 3}, float[2] zero = {0, 0}>
        {
          xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, s)
          wq = lsqc.FakeQuantize <bits = 8, signed = 1> (w, s)
          c = MatMul (xq, wq)
          y = BatchNormalization <epsilon = 0.0> (c, one, beta, zero, one)
        }";
    let model = run(&FOLD_BATCH_NORMS, text).0.unwrap();
    assert_snapshot!(nodes(&model), @r#"
    xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, s)
    "wq/folded" = lsqc.FakeQuantize <bits = 8, signed = 1, axis = 1> ("w/folded", "s/folded")
    c = MatMul (xq, "wq/folded")
    y = Add (c, "MatMul -> c/bias")
    "#);
    assert_eq!(elements(&model, "MatMul -> c/bias"), [2.0, 3.0]);
}

#[test]
fn what_does_not_fold_exactly_stays() {
    for (gamma, body, why) in [
        ("1, -1", QUANTIZED.to_owned(), "its γ is below 0"),
        (
            "1, 1",
            QUANTIZED
                .replace("(xq, wq, b)", "(xq, w, b)")
                .replace("wq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, sw)", ""),
            "the op before it stays in floats",
        ),
        (
            "1, 1",
            QUANTIZED.replace("(xq, wq, b)", "(x, wq, b)"),
            "its input stays in floats",
        ),
        (
            "1, 1",
            QUANTIZED.replace("signed = 1> (w, sw)", "signed = 1, axis = 1> (w, both)"),
            "its weight has steps along another axis than that of its output channels",
        ),
        (
            "1, 1",
            format!("{QUANTIZED}  other = Relu (c)"),
            "the result of the op before it has other uses",
        ),
        (
            "1, 1",
            QUANTIZED.replace("(xq, wq, b)\n", "(xq, wq, b)\n other = Conv (xq, wq)\n"),
            "the weight of the op before it is shared",
        ),
    ] {
        let (model, notes) = run(&FOLD_BATCH_NORMS, &conv_norm(gamma, &body));
        assert!(
            notes.contains(&format!("(BatchNormalization): stays in floats: {why}")),
            "{why}: {notes}"
        );
        assert!(nodes(&model.unwrap()).contains("y = BatchNormalization"), "{why}");
    }
}

/// A quantized convolution with the grid s_x·s_w/2^(8 − 4) = 1/128, or of these steps for each channel.
fn biased(bias: &str, steps: &str) -> String {
    format!(
        "g (float[1,1,2,2] x) => (y) <float[2,1,1,1] w = {{1, 2}}, float[2] b = {{{bias}}}, float sx = {{0.25}}, float[2] both = {{0.5, 2}}, float sw = {{0.5}}>
        {{
          xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
          wq = lsqc.FakeQuantize <bits = 4, signed = 1{steps})
          y = Conv (xq, wq, b)
        }}"
    )
}

#[test]
fn biases_move_to_the_grid_of_the_accumulator() {
    let snapped = |text: &str| elements(&run(&SNAP_BIASES, text).0.unwrap(), "b/snapped");
    assert_eq!(snapped(&biased("0.01, -1.004", "> (w, sw")), [1.0 / 128.0, -129.0 / 128.0]);
    // 2.5 and 3.5 units: half to even.
    assert_eq!(
        snapped(&biased("0.01953125, 0.02734375", "> (w, sw")),
        [2.0 / 128.0, 4.0 / 128.0]
    );
    // The second channel's grid is 1/32.
    assert_eq!(
        snapped(&biased("0.01, 0.05", ", axis = 0> (w, both")),
        [1.0 / 128.0, 2.0 / 32.0]
    );
}

#[test]
fn what_is_added_to_a_matmul_moves_there_where_runtimes_make_a_gemm_of_both() {
    let added = |x: &str, bias: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17, \"lsqc\" : 1]>
            g (float[{x},1] x) => (float[{x},2] y)
            <float[{x},2] t, float[1,2] w = {{1, 2}}, float[2] b = {{{bias}}}, float sx = {{0.015625}}, float sw = {{0.5}}>
            {{ q = lsqc.FakeQuantize <bits = 8, signed = 0> (x, sx)  v = lsqc.FakeQuantize <bits = 8, signed = 1> (w, sw)
               t = MatMul (q, v)  y = Add (t, b) }}"
        );
        snapped(&text)
    };
    assert_eq!(added("N", "0.01, -1.004"), Some(vec![1.0 / 128.0, -129.0 / 128.0]));
    assert_eq!(added("N,3", "0.01, -1.004"), None, "of rank 3 it is added in floats");
    assert_eq!(added("N", "0.01, 1e9"), None, "it fits no integer, and is added in floats");
}

/// What became of `b`, if it was snapped.
fn snapped(text: &str) -> Option<Vec<f32>> {
    let model = run(&SNAP_BIASES, text).0.unwrap();
    model.graph.find("b/snapped").map(|_| elements(&model, "b/snapped"))
}

#[test]
fn a_bias_beyond_the_accumulator_is_an_error() {
    let (model, _) = run(&SNAP_BIASES, &biased("0, 1e9", "> (w, sw"));
    let error = model.unwrap_err();
    assert_eq!(
        error,
        "Conv -> y (Conv): its bias 1000000000 leaves the 32 bits of the accumulator, whose grid is 0.0078125"
    );
}

#[test]
fn a_channel_that_vanishes_beside_its_bias_gets_a_coarser_step() {
    // The unit of the second channel is 2^-34 · 0.25 / 16: a bias of 5 is 2^42.3 of it, and 2^29.3 once the step is 2^13 times as much.
    let text =
        biased("0.01, -5", ", axis = 0> (w, both").replace("both = {0.5, 2}", "both = {0.5, 0.000000000058207660913467407}");
    let text = text.replace("w = {1, 2}", "w = {1, 0.00000000023}");
    let error = run(&SNAP_BIASES, &text).0.unwrap_err();
    assert!(error.contains("its bias -5 leaves the 32 bits"), "{error}");
    let (model, notes) = run(&RAISE_STEPS, &text);
    assert!(
        notes.contains("y (Conv): output channels whose weights vanish beside their bias, and are coarser now: 1"),
        "{notes}"
    );
    let model = model.unwrap();
    let raised = 2f64.powi(13 - 34) as f32;
    assert_eq!(elements(&model, "both/raised"), [0.5, raised]);
    assert!(nodes(&model).contains("axis = 0> (w, \"both/raised\")"), "{}", nodes(&model));
    // A bias that fits changes nothing; nor does one whose step other channels share.
    for text in [biased("0.01, -5", ", axis = 0> (w, both"), biased("0, 1e9", "> (w, sw")] {
        let (model, notes) = run(&RAISE_STEPS, &text);
        assert!(!nodes(&model.unwrap()).contains("raised"));
        assert_eq!(notes, "");
    }
    // A weight that two ops take keeps its step.
    let shared = text.replace("y = Conv (xq, wq, b)", "y = Conv (xq, wq, b) z = Conv (xq, wq)");
    let model = run(&RAISE_STEPS, &shared).0.unwrap();
    assert!(!nodes(&model).contains("raised"), "{}", nodes(&model));
}

#[test]
fn a_bias_beside_floats_stays() {
    let text = biased("0.01, 0.05", "> (w, sw").replace("Conv (xq", "Conv (x");
    let model = run(&SNAP_BIASES, &text).0.unwrap();
    assert!(nodes(&model).ends_with("y = Conv (x, wq, b)"), "{}", nodes(&model));
}

#[test]
fn weights_are_baked_to_their_levels() {
    let model = run(
        &BAKE_WEIGHTS,
        &biased("0, 0", "> (w, sw").replace("w = {1, 2}", "w = {-0.8, 99}"),
    )
    .0
    .unwrap();
    assert_eq!(elements(&model, "wq/baked"), [-1.0, 3.5], "−1.6 is −2, and 198 clips to 7");
    assert_snapshot!(nodes(&model), @r#"
    xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
    y = Conv (xq, "wq/baked", b)
    "#);
    let model = run(
        &BAKE_WEIGHTS,
        &biased("0, 0", ", axis = 0> (w, both").replace("w = {1, 2}", "w = {-0.8, 99}"),
    )
    .0
    .unwrap();
    assert_eq!(elements(&model, "wq/baked"), [-1.0, 14.0]);
    let nan = run(
        &BAKE_WEIGHTS,
        &biased("0, 0", "> (w, sw").replace("w = {1, 2}", "w = {nan, 2}"),
    )
    .0;
    assert_eq!(
        nan.unwrap_err(),
        "lsqc.FakeQuantize -> wq (lsqc.FakeQuantize): its weight is not a number"
    );
}

#[test]
fn the_graph_is_cut_at_activation_quantizers() {
    let text = "g (float[1,1,2,2] x) => (y) <float[1,1,1,1] w = {1}, float s = {0.5}>
        {
          xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, s)
          t = Conv (xq, w)
          r = Relu (t)
          rq = lsqc.FakeQuantize <bits = 8, signed = 0> (r, s)
          wq = lsqc.FakeQuantize <bits = 8, signed = 1> (w, s)
          y = Conv (rq, wq)
        }";
    let model = run(&CUT_AT_QUANTIZERS, text).0.unwrap();
    assert_snapshot!(nodes(&model), @r#"
    t = Conv ("levels/xq", w)
    r = Relu (t)
    wq = lsqc.FakeQuantize <bits = 8, signed = 1> (w, s)
    y = Conv ("levels/rq", wq)
    "#);
    let graph = &model.graph;
    let names = |values: &[lsqc_passes::ir::ValueId]| values.iter().map(|&v| graph[v].name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(graph.inputs()), ["x", "levels/xq", "levels/rq"]);
    assert_eq!(names(graph.outputs()), ["y", "r"]);
}

#[test]
fn floats_become_doubles_and_a_gemm_is_spelled() {
    let text = "g (float[2,1] x, int64[1] i) => (y, z) <float[3,2] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}>
        {
          y = Gemm <transA = 1, transB = 1, alpha = 2.0, beta = 0.5> (x, w, b)
          z = Cast <to = 1> (i)
        }";
    let model = run(&WIDEN_TO_DOUBLE, text).0.unwrap();
    assert_snapshot!(nodes(&model), @r#"
    z = Cast <to = 11> (i)
    "y/transA" = Transpose <perm = [1, 0]> (x)
    "y/transB" = Transpose <perm = [1, 0]> (w)
    "y/product" = MatMul ("y/transA", "y/transB")
    "y/scaled" = Mul ("y/product", "y/alpha")
    "y/scaled_1" = Mul (b, "y/beta")
    y = Add ("y/scaled", "y/scaled_1")
    "#);
    let graph = &model.graph;
    assert_eq!(
        (elements(&model, "y/alpha"), elements(&model, "y/beta")),
        (vec![2.0], vec![0.5])
    );
    for (_, value) in graph.values() {
        assert!(
            value.ty.as_ref().is_none_or(|ty| ty.dtype != DType::F32),
            "'{}' is still a float",
            value.name()
        );
        assert!(
            value.initial().is_none_or(|tensor| tensor.dtype() != DType::F32),
            "'{}' is still a float",
            value.name()
        );
    }
}

#[test]
fn a_foreign_op_has_no_double_form() {
    let (model, _) = run(&WIDEN_TO_DOUBLE, "g (float[2] x) => (y) { y = some.domain.Op (x) }");
    assert_eq!(
        model.unwrap_err(),
        "some.domain.Op -> y (some.domain.Op): has no double-precision form"
    );
}
