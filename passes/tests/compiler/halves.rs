//! Networks in half precision compute in single precision, and get their border back.

use crate::common::{run_in, run_on};
use insta::assert_snapshot;
use lsqc_passes::analyze::Halves;
use lsqc_passes::ir::{DType, Model};
use lsqc_passes::lower::RESTORE_HALVES;
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::pipelines::WIDEN;
use lsqc_passes::text::{self, PrintOptions};

fn print(model: &Model) -> String {
    text::print(model, &PrintOptions::default())
}

fn widen(graph: &str) -> (Model, Option<Halves>) {
    let mut cx = PassCx::new(&NoEvaluator);
    let model = run_in(WIDEN, &mut cx, graph).unwrap();
    (model, cx.take())
}

#[test]
fn all_that_is_known_becomes_single() {
    let (model, halves) = widen(
        "g (float16[N,2] x, int64[N] i) => (float16[N,2] y, float[N,2] z)
        <float16[2,2] w = {1, 2, 0.333, 4}>
        {
            t = MatMul (x, w)
            c = Constant <value = float16 {0.1}> ()
            u = Add (t, c)
            z = Cast <to = 1> (u)
            v = Cast <to = 10> (z)
            y = Identity (v)
        }",
    );
    assert_snapshot!(print(&model), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2] x, int64[N] i) => (float[N,2] y, float[N,2] z)
    <float[2,2] w = {1.0, 2.0, 0.3330078, 4.0},
      float c = {0.099975586},
      float[N,2] t,
      float[N,2] u,
      float[N,2] v>
    {
      t = MatMul (x, w)
      u = Add (t, c)
      z = Cast <to = 1> (u)
      v = Cast <to = 1> (z)
      y = Identity (v)
    }
    "#);
    let halves = halves.unwrap();
    assert_eq!(halves.inputs, [("x".to_owned(), DType::F16)]);
    assert_eq!(halves.outputs, [("y".to_owned(), DType::F16)]);
    assert_eq!(halves.stored, Some(DType::F16));
}

#[test]
fn an_old_operator_set_is_upgraded_first() {
    let text = "<ir_version: 7, opset_import: [\"\" : 11]>
        g (float16[N,2,1] x) => (float16[N,2] y) { s = Squeeze <axes = [2]> (x)  y = Softmax <axis = 1> (s) }";
    let mut cx = PassCx::new(&NoEvaluator);
    let model = run_in(WIDEN, &mut cx, text).unwrap();
    assert_eq!(model.opset(), 13);
    let ty = |name: &str| model.graph[model.graph.find(name).unwrap()].ty.clone().unwrap().to_string();
    assert_eq!([ty("s"), ty("y")], ["float[N,2]", "float[N,2]"]);
}

#[test]
fn subgraphs_too() {
    let (model, _) = widen(
        "g (bfloat16[2] x, bool b) => (bfloat16[2] y)
        <bfloat16[2] w = {1, 2}>
        {
            y = If <then_branch = yes () => (bfloat16[2] s) { s = Mul (x, w) },
                    else_branch = no () => (bfloat16[2] d) <bfloat16[2] c = {3, 4}> { d = Add (x, c) }> (b)
        }",
    );
    let shown = print(&model);
    assert!(!shown.contains("bfloat16"), "{shown}");
}

#[test]
fn an_op_that_is_not_known_keeps_its_types() {
    let (model, _) = widen(
        "g (float16[2] x) => (float16[2] y)
        <float16[2] u>
        {
            t = Relu (x)
            u = my.Own (t)
            y = Relu (u)
        }",
    );
    assert_snapshot!(print(&model), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y)
    <float16[2] u,
      float[2] t,
      float16[2] "t/half",
      float[2] "u/single">
    {
      t = Relu (x)
      "t/half" = Cast <to = 10> (t)
      u = my.Own ("t/half")
      "u/single" = Cast <to = 1> (u)
      y = Relu ("u/single")
    }
    "#);
}

#[test]
fn what_has_no_half_is_left_alone() {
    let (model, halves) = widen("g (float[2] x) => (float[2] y) { y = Relu (x) }");
    assert_eq!(halves, None);
    assert!(print(&model).contains("y = Relu (x)"));
}

#[test]
fn the_border_gets_its_types_back_and_constants_their_storage() {
    let graph = "g (float16[N,64] x) => (float16[N,64] y, float16[N,64] t)
        <float16[64,64] w = fill(0.333), float16[64] b = fill(0.1)>
        { t = MatMul (x, w)  y = Add (t, b) }";
    let (mut model, halves) = widen(graph);
    // Of two numbers one was trained, and float16 has not got it.
    let bias = model.graph.find("b").unwrap();
    let mut values = model.graph[bias].initial().unwrap().to_f32().unwrap();
    values[0] += 1e-6;
    model.graph.set_literal(bias, lsqc_passes::ir::Tensor::vector(values));
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(halves.unwrap());
    run_on(&[&RESTORE_HALVES], &mut cx, &mut model).unwrap();
    assert_snapshot!(print(&model).lines().filter(|line| !line.contains("= {")).collect::<Vec<_>>().join("\n"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float16[N,64] x) => (float16[N,64] y, float16[N,64] t)
      float[N,64] "t/single",
      float[N,64] "y/single",
      float[N,64] "x/cast",
      float[64,64] "w/cast">
    {
      "x/cast" = Cast <to = 1> (x)
      "w/cast" = Cast <to = 1> (w)
      "t/single" = MatMul ("x/cast", "w/cast")
      "y/single" = Add ("t/single", b)
      y = Cast <to = 10> ("y/single")
      t = Cast <to = 10> ("t/single")
    }
    "#);
    assert_eq!(
        model.graph[model.graph.find("w").unwrap()].initial().unwrap().dtype(),
        DType::F16
    );
    assert_eq!(
        model.graph[model.graph.find("b").unwrap()].initial().unwrap().dtype(),
        DType::F32
    );
}
