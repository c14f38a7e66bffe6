//! The quantizing passes: where quantizers stand, how their steps start; and each refusal.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{elements, nodes, notes, run_in};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Model;
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::quantize::{ActivationSteps, Bits, LayerRule, PLACE_QUANTIZERS, QuantizePlan, SET_STEPS, Sign, Sites};
use lsqc_passes::target::{Placement, Results};

/// The plan most tests take: 4-bit weights and 3-bit activations.
fn plan(placement: Placement) -> QuantizePlan {
    QuantizePlan {
        bits: Bits {
            weight: 4,
            activation: 3,
            sign: None,
        },
        placement,
        ..QuantizePlan::default()
    }
}

fn place_with<'a>(plan: QuantizePlan, text: &str) -> (Result<Model, String>, PassCx<'a>) {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(plan);
    let model = run_in(&[&INFER_TYPES, &PLACE_QUANTIZERS], &mut cx, text);
    (model, cx)
}

/// The nodes after placement.
fn place(placement: Placement, text: &str) -> String {
    nodes(&place_with(plan(placement), text).0.unwrap())
}

/// 1×1 convolutions of one channel with weights a, b, c, d.
fn convs(results: &str, body: &str) -> String {
    format!(
        "g (float[1,1,4,4] x) => ({results}) <float[1,1,1,1] a = {{1}}, float[1,1,1,1] b = {{2}}, float[1,1,1,1] c = {{3}}, float[1,1,1,1] d = {{4}}>
        {{ {body} }}"
    )
}

#[test]
fn every_layer_takes_quantized_operands_and_the_edges_eight_bits() {
    let text = convs("y", "t = Conv (x, a)  r = Relu (t)  u = Conv (r, b)  y = Conv (u, c)");
    let (model, mut cx) = place_with(plan(Placement::EightBitAdds), &text);
    let model = model.unwrap();
    assert_snapshot!(nodes(&model), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    r = Relu (t)
    "r/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (r, "r/q3/step")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv ("r/q3", "b/q4")
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "u/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("u/q8", "c/q8")
    "#);
    assert!(
        elements(&model, "r/q3/step").iter().all(|step| step.is_nan()),
        "steps are still unset"
    );
    let sites: Sites = cx.take().unwrap();
    let layers: Vec<_> = sites
        .layers
        .iter()
        .map(|l| (l.name.as_str(), l.bits.weight, l.bits.activation, l.first, l.last))
        .collect();
    assert_eq!(
        layers,
        [
            ("Conv -> t", 8, 8, true, false),
            ("Conv -> u", 4, 3, false, false),
            ("Conv -> y", 8, 8, false, true)
        ]
    );
    let places: Vec<_> = sites
        .activations
        .iter()
        .map(|s| (s.value.as_str(), s.source.as_str(), s.non_negative))
        .collect();
    assert_eq!(places, [("x/q8", "x", false), ("r/q3", "r", true), ("u/q8", "u", false)]);
}

const RESIDUAL: &str = "t = Conv (x, a)  r = Relu (t)  u = Conv (r, b)  s = Add (u, r)  y = Conv (s, c)";

#[test]
fn a_residual_add_takes_eight_bits_and_the_layer_beside_it_requantizes() {
    assert_snapshot!(place(Placement::EightBitAdds, &convs("y", RESIDUAL)), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    r = Relu (t)
    "r/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (r, "r/q8/step")
    "r/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> ("r/q8", "r/q3/step")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv ("r/q3", "b/q4")
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "u/q8/step")
    s = Add ("u/q8", "r/q8")
    "s/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (s, "s/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("s/q8", "c/q8")
    "#);
}

#[test]
fn with_shared_an_add_takes_the_levels_of_the_layer_beside_it() {
    assert_snapshot!(place(Placement::Shared, &convs("y", RESIDUAL)), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    r = Relu (t)
    "r/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (r, "r/q3/step")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv ("r/q3", "b/q4")
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "u/q8/step")
    s = Add ("u/q8", "r/q3")
    "s/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (s, "s/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("s/q8", "c/q8")
    "#);
}

#[test]
fn as_in_the_paper_an_add_takes_floats() {
    assert_snapshot!(place(Placement::Paper, &convs("y", RESIDUAL)), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    r = Relu (t)
    "r/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (r, "r/q3/step")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv ("r/q3", "b/q4")
    s = Add (u, r)
    "s/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (s, "s/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("s/q8", "c/q8")
    "#);
}

#[test]
fn inputs_of_a_concat_share_a_step() {
    let text = convs(
        "y",
        "t = Conv (x, a)  u = Conv (x, b)  j = Concat <axis = 2> (t, u)  y = Conv (j, c)",
    );
    let (model, mut cx) = place_with(plan(Placement::EightBitAdds), &text);
    assert_snapshot!(nodes(&model.unwrap()), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    "b/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (b, "b/q8/step")
    u = Conv ("x/q8", "b/q8")
    "t/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (t, "t/q8/step")
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "t/q8/step")
    j = Concat <axis = 2> ("t/q8", "u/q8")
    "j/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (j, "j/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("j/q8", "c/q8")
    "#);
    let sites: Sites = cx.take().unwrap();
    let shares: Vec<_> = sites
        .activations
        .iter()
        .map(|s| (s.value.as_str(), s.shares.as_deref()))
        .collect();
    assert_eq!(
        shares,
        [("x/q8", None), ("t/q8", None), ("u/q8", Some("t/q8")), ("j/q8", None)]
    );
}

#[test]
fn moves_are_looked_through_unless_something_else_takes_the_value() {
    let body = "t = Conv (x, a)  p = MaxPool <kernel_shape = [1, 1]> (t)  u = Conv (p, b)  f = Flatten (u)  y = Gemm (f, e)";
    let text = convs("y", body).replace(
        "<float[1,1,1,1] a",
        "<float[16,2] e = normal(seed = 1, scale = 1), float[1,1,1,1] a",
    );
    assert_snapshot!(place(Placement::EightBitAdds, &text), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    "t/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (t, "t/q3/step")
    p = MaxPool <kernel_shape = [1, 1]> ("t/q3")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv (p, "b/q4")
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "u/q8/step")
    f = Flatten ("u/q8")
    "e/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (e, "e/q8/step")
    y = Gemm (f, "e/q8")
    "#);
    let seen = place(Placement::EightBitAdds, &text.replace("=> (y)", "=> (y, p)"));
    assert!(seen.contains("(p, \"p/q3/step\")"), "{seen}");
}

#[test]
fn an_average_pool_between_layers_takes_eight_bits() {
    assert_snapshot!(place(Placement::EightBitAdds, &convs("y", "t = Conv (x, a)  p = GlobalAveragePool (t)  y = Conv (p, b)")), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    "t/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (t, "t/q8/step")
    p = GlobalAveragePool ("t/q8")
    "p/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (p, "p/q8/step")
    "b/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (b, "b/q8/step")
    y = Conv ("p/q8", "b/q8")
    "#);
    let last = place(
        Placement::EightBitAdds,
        &convs("y", "t = Conv (x, a)  y = GlobalAveragePool (t)"),
    );
    assert!(
        last.ends_with("y = GlobalAveragePool (t)"),
        "one that gives an output stays in floats: {last}"
    );
}

#[test]
fn a_rule_by_name_beats_every_default() {
    let rule = |name: &str| match name {
        "t" => Some(LayerRule::Quantize(Bits {
            weight: 2,
            activation: 5,
            sign: None,
        })),
        "u" => Some(LayerRule::Float),
        _ => None,
    };
    let chosen = QuantizePlan {
        rule: Arc::new(rule),
        ..plan(Placement::EightBitAdds)
    };
    let (model, cx) = place_with(
        chosen,
        &convs("y", "[t] t = Conv (x, a)  [u] u = Conv (t, b)  y = Conv (u, c)"),
    );
    assert_snapshot!(nodes(&model.unwrap()), @r#"
    "x/q5" = lsqc.FakeQuantize <bits = 5, signed = 1> (x, "x/q5/step")
    "a/q2" = lsqc.FakeQuantize <bits = 2, signed = 1> (a, "a/q2/step")
    t = Conv ("x/q5", "a/q2")
    "t/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (t, "t/q8/step")
    u = Conv ("t/q8", b)
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "u/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("u/q8", "c/q8")
    "#);
    assert_eq!(notes(&cx), "u (Conv): stays in floats: the configuration says so");
}

/// A SiLU behind a convolution, which gives levels alone in some runtimes.
const SILU: &str = "t = Conv (x, a)  g = Sigmoid (t)  s = Mul (t, g)  u = Conv (s, b)  v = Sigmoid (u)  y = Mul (u, v)";

#[test]
fn a_convolution_whose_result_is_taken_in_floats_has_a_quantizer_behind_it() {
    assert_snapshot!(place(Placement::EightBitAdds, &convs("y", SILU)), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    "t/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (t, "t/q8/step")
    g = Sigmoid ("t/q8")
    s = Mul ("t/q8", g)
    "s/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (s, "s/q8/step")
    "b/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (b, "b/q8/step")
    u = Conv ("s/q8", "b/q8")
    v = Sigmoid (u)
    y = Mul (u, v)
    "#);
}

#[test]
fn not_so_where_the_runtime_gives_floats_or_as_in_the_paper() {
    let any = QuantizePlan {
        results: Results::Any,
        ..plan(Placement::EightBitAdds)
    };
    let plain = nodes(&place_with(any, &convs("y", SILU)).0.unwrap());
    assert!(!plain.contains("t/q8"), "{plain}");
    assert_eq!(plain, place(Placement::Paper, &convs("y", SILU)));
}

#[test]
fn a_result_that_is_quantized_for_others_is_quantized_once() {
    let text = "t = Conv (x, a)  r = Relu (t)  g = Sigmoid (r)  u = Conv (r, b)  s = Add (u, g)  y = Conv (s, c)";
    assert_snapshot!(place(Placement::EightBitAdds, &convs("y", text)), @r#"
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "a/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (a, "a/q8/step")
    t = Conv ("x/q8", "a/q8")
    r = Relu (t)
    "r/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (r, "r/q8/step")
    g = Sigmoid ("r/q8")
    "r/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> ("r/q8", "r/q3/step")
    "b/q4" = lsqc.FakeQuantize <bits = 4, signed = 1> (b, "b/q4/step")
    u = Conv ("r/q3", "b/q4")
    "u/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (u, "u/q8/step")
    "g/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (g, "g/q8/step")
    s = Add ("u/q8", "g/q8")
    "s/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (s, "s/q8/step")
    "c/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (c, "c/q8/step")
    y = Conv ("s/q8", "c/q8")
    "#);
}

#[test]
fn a_fixed_transform_stays_unless_it_is_named() {
    let turn = |row: usize, at: usize| (2.0 * std::f64::consts::PI * (row * at) as f64 / 64.0).cos();
    let bank: Vec<String> = (1..=16)
        .flat_map(|row| (0..64).map(move |at| turn(row, at).to_string()))
        .collect();
    let text = format!(
        "g (float[N,1,L] x) => (y) <float[16,1,64] f = {{{}}}, float[8,16,1] w = fill(0.5), float[8,8,1] v = fill(0.25)>
         {{ [bank] s = Conv <strides = [32]> (x, f)  [first] t = Conv (s, w)  [last] y = Conv (t, v) }}",
        bank.join(", ")
    );
    let (model, mut cx) = place_with(plan(Placement::EightBitAdds), &text);
    let shown = nodes(&model.unwrap());
    assert!(shown.contains("s = Conv <strides = [32]> (x, f)"), "{shown}");
    assert!(notes(&cx).contains("bank (Conv): stays in floats: its weight is a Fourier transform or filter bank"));
    let sites: Sites = cx.take().unwrap();
    let layers: Vec<_> = sites
        .layers
        .iter()
        .map(|l| (l.name.as_str(), l.bits.weight, l.first))
        .collect();
    assert_eq!(layers, [("first", 8, true), ("last", 8, false)]);

    let bits = plan(Placement::EightBitAdds).bits;
    let named = QuantizePlan {
        rule: Arc::new(move |name| (name == "bank").then_some(LayerRule::Quantize(bits))),
        ..plan(Placement::EightBitAdds)
    };
    let shown = nodes(&place_with(named, &text).0.unwrap());
    assert!(shown.contains("f/q4"), "{shown}");
}

#[test]
fn what_stays_in_floats_is_said_once() {
    let text = "g (float[2,2] x, double[2,2] z) => (q, r, s, t, u, v, y)
        <float[2,2] w = {1, 2, 3, 4}, double[2,2] wide = {1, 2, 3, 4}>
        {
          q = Gemm <alpha = 2.0> (x, w)
          r = Gemm <transA = 1> (x, w)
          s = MatMul (z, wide)
          t = Gemm (x, x)
          u = MatMul (w, x)
          v = MatMul (z, z)
          y = MatMul (x, w)
        }";
    let (model, cx) = place_with(plan(Placement::EightBitAdds), text);
    assert_snapshot!(nodes(&model.unwrap()), @r#"
    q = Gemm <alpha = 2.0> (x, w)
    r = Gemm <transA = 1> (x, w)
    s = MatMul (z, wide)
    t = Gemm (x, x)
    u = MatMul (w, x)
    v = MatMul (z, z)
    "x/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (x, "x/q8/step")
    "w/q8" = lsqc.FakeQuantize <bits = 8, signed = 1> (w, "w/q8/step")
    y = MatMul ("x/q8", "w/q8")
    "#);
    assert_snapshot!(notes(&cx), @r#"
    Gemm -> q (Gemm): stays in floats: its alpha or beta is not 1
    Gemm -> r (Gemm): stays in floats: its data operand is transposed
    MatMul -> s (MatMul): stays in floats: its weight is not of type float
    Gemm -> t (Gemm): stays in floats: it is a Gemm of two activations
    MatMul -> u (MatMul): stays in floats: its first operand is a constant
    MatMul -> v (MatMul): stays in floats: its operands are not of type float
    "#);
}

/// Scores of queries and keys, then their mix of values, as attention has them.
const ATTENTION: &str = "g (float[2,3,4] x) => (y)
    <float[4,4] a = normal(seed = 1), float[4,4] b = normal(seed = 2), float[4,4] c = normal(seed = 3), float[4,4] d = normal(seed = 4),
     float root = {0.5}>
    {
      q = MatMul (x, a)
      k = MatMul (x, b)
      v = MatMul (x, c)
      t = Transpose <perm = [0, 2, 1]> (k)
      [scores] s = MatMul (q, t)
      m = Mul (s, root)
      p = Softmax (m)
      [mix] o = MatMul (p, v)
      y = MatMul (o, d)
    }";

#[test]
fn products_of_activations_take_both_operands_quantized() {
    let (model, mut cx) = place_with(plan(Placement::Paper), ATTENTION);
    let products = nodes(&model.unwrap());
    let products: Vec<&str> = products.lines().filter(|line| line.contains("/q3")).collect();
    assert_snapshot!(products.join("\n"), @r#"
    "q/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (q, "q/q3/step")
    "t/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (t, "t/q3/step")
    s = MatMul ("q/q3", "t/q3")
    "p/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (p, "p/q3/step")
    "v/q3" = lsqc.FakeQuantize <bits = 3, signed = 1> (v, "v/q3/step")
    o = MatMul ("p/q3", "v/q3")
    "#);
    let sites: Sites = cx.take().unwrap();
    let found: Vec<_> = sites.products.iter().map(|p| (p.name.as_str(), p.bits, &p.inputs)).collect();
    assert_eq!(
        found,
        [
            ("scores", 3, &["q/q3".to_owned(), "t/q3".to_owned()]),
            ("mix", 3, &["p/q3".to_owned(), "v/q3".to_owned()])
        ]
    );
    // The quantizer stands before what only moves values, and a softmax is known to be at least 0.
    let (_, mut cx) = place_with(plan(Placement::EightBitAdds), ATTENTION);
    let sites: Sites = cx.take().unwrap();
    assert_eq!(sites.products[0].inputs, ["q/q3", "k/q3"]);
    let of_softmax = sites.activations.iter().find(|site| site.value == "p/q3").unwrap();
    assert!(of_softmax.non_negative);
    // So is one in which some are put to 0.
    let masked = ATTENTION.replace(
        "p = Softmax (m)",
        "p0 = Softmax (m) none = IsInf (m) p = Where (none, zero, p0)",
    );
    let masked = masked.replace("float root", "float zero = {0}, float root");
    let (_, mut cx) = place_with(plan(Placement::EightBitAdds), &masked);
    let sites: Sites = cx.take().unwrap();
    assert!(sites.activations.iter().any(|site| site.value == "p/q3" && site.non_negative));
}

#[test]
fn rules_hold_for_products_by_name() {
    let ruled = QuantizePlan {
        rule: Arc::new(|name| match name {
            "scores" => Some(LayerRule::Float),
            "mix" => Some(LayerRule::Quantize(Bits {
                weight: 2,
                activation: 5,
                sign: Some(Sign::Signed),
            })),
            _ => None,
        }),
        ..plan(Placement::EightBitAdds)
    };
    let (_, mut cx) = place_with(ruled, ATTENTION);
    assert_snapshot!(notes(&cx), @"scores (MatMul): stays in floats: the configuration says so");
    let sites: Sites = cx.take().unwrap();
    assert_eq!((sites.products.len(), sites.products[0].bits), (1, 5));
    let of_softmax = sites.activations.iter().find(|site| site.value == "p/q5").unwrap();
    assert_eq!(of_softmax.asked, Some(Sign::Signed));
    // At the edge of the network it has 8 bits.
    let (_, mut cx) = place_with(plan(Placement::EightBitAdds), "g (float[2,2] x) => (y) { y = MatMul (x, x) }");
    let sites: Sites = cx.take().unwrap();
    assert_eq!((sites.layers.len(), sites.products[0].bits), (0, 8));
    // Vectors are no matrices.
    let (model, cx) = place_with(
        plan(Placement::EightBitAdds),
        "g (float[2] v, float[2,2] x) => (y, z) { y = MatMul (v, x)  z = MatMul (x, x) }",
    );
    assert!(model.is_ok());
    assert_snapshot!(notes(&cx), @"MatMul -> y (MatMul): stays in floats: an operand is no matrix");
}

#[test]
fn functions_in_several_ops_are_named_once() {
    let text = "g (float[2,4] x) => (y)
        <float[4,4] w = normal(seed = 1), float[4] b = {1, 2, 3, 4}, float root = {1.4142135}, float one = {1}, float half = {0.5},
         float two = {2}, float three = {3}, float zero = {0}, float six = {6}, float tiny = {0.00001}>
        {
          m = MatMul (x, w)
          a = Add (m, b)
          [silu] s0 = Sigmoid (a)
          s = Mul (s0, a)
          g0 = Div (s, root)
          g1 = Erf (g0)
          g2 = Add (g1, one)
          g3 = Mul (s, g2)
          [gelu] g = Mul (g3, half)
          h0 = Add (g, three)
          h1 = Clip (h0, zero, six)
          h2 = Mul (g, h1)
          [swish] h = Div (h2, six)
          i0 = HardSigmoid (h)
          [hard] i = Mul (h, i0)
          l0 = ReduceMean <axes = [-1]> (i)
          l1 = Sub (i, l0)
          l2 = Pow (l1, two)
          l3 = ReduceMean <axes = [-1]> (l2)
          l4 = Add (l3, tiny)
          l5 = Sqrt (l4)
          l6 = Div (l1, l5)
          l7 = Mul (l6, b)
          [norm] l = Add (l7, b)
          t = Sqrt (l)
          n = Sigmoid (l)
          y = MatMul (t, w)
          z = Mul (n, t)
        }";
    let (_, cx) = place_with(plan(Placement::EightBitAdds), &text.replace("=> (y)", "=> (y, z)"));
    assert_snapshot!(notes(&cx), @r#"
    Mul -> s (Mul): stays in floats: it ends a SiLU of 2 ops
    gelu (Mul): stays in floats: it ends a Gelu of 5 ops
    swish (Div): stays in floats: it ends a HardSwish of 4 ops
    hard (Mul): stays in floats: it ends a HardSwish of 2 ops
    norm (Add): stays in floats: it ends a LayerNormalization of 9 ops
    "#);
}

#[test]
fn a_model_without_layers_is_refused() {
    let (model, _) = place_with(plan(Placement::EightBitAdds), "g (float[2] x) => (y) { y = Relu (x) }");
    assert_eq!(
        model.unwrap_err(),
        "there is nothing to quantize: no Conv, Gemm or MatMul with a constant float weight"
    );
}

/// A layer with the weights `w`, its quantizers placed.
fn quantized(w: &str) -> String {
    format!(
        "g (float[1,4] x) => (y) <float[4,1] w = {{{w}}}, float unset = {{nan}}, float open = {{nan}}>
        {{
          q = lsqc.FakeQuantize <bits = 3, signed = 1> (w, unset)
          v = lsqc.FakeQuantize <bits = 3, signed = 1> (x, open)
          y = MatMul (v, q)
        }}"
    )
}

fn set_steps(text: &str, measured: &[(&str, f32, Sign)]) -> Result<Model, String> {
    let mut cx = PassCx::new(&NoEvaluator);
    let entry = |&(name, step, sign): &(&str, f32, Sign)| (name.to_owned(), (step, sign));
    cx.set(ActivationSteps(measured.iter().map(entry).collect::<BTreeMap<_, _>>()));
    run_in(&[&SET_STEPS], &mut cx, text)
}

#[test]
fn weights_start_from_their_values_and_activations_from_what_was_measured() {
    let model = set_steps(&quantized("1, -2, 3, -2"), &[("v", 0.25, Sign::Unsigned)]).unwrap();
    // 2·mean|v|/√Q_P with mean|v| = 2 and Q_P = 3.
    assert_eq!(elements(&model, "unset"), [(4.0 / 3f64.sqrt()) as f32]);
    assert_eq!(elements(&model, "open"), [0.25]);
    assert_snapshot!(nodes(&model), @r#"
    q = lsqc.FakeQuantize <bits = 3, signed = 1> (w, unset)
    v = lsqc.FakeQuantize <bits = 3, signed = 0> (x, open)
    y = MatMul (v, q)
    "#);
    let signed = set_steps(&quantized("1, -2, 3, -2"), &[("v", 0.25, Sign::Signed)]).unwrap();
    assert!(
        nodes(&signed).contains("v = lsqc.FakeQuantize <bits = 3, signed = 1>"),
        "{}",
        nodes(&signed)
    );
    let zeros = set_steps(&quantized("0, 0, 0, 0"), &[("v", 0.25, Sign::Signed)]).unwrap();
    assert_eq!(elements(&zeros, "unset"), [1.0], "zeros fit every step");
}

#[test]
fn steps_that_cannot_be_set_are_errors() {
    let fine = "1, 2, 3, 4";
    for (weights, measured, why) in [
        (
            fine,
            vec![],
            "lsqc.FakeQuantize -> v (lsqc.FakeQuantize): no step was measured for it",
        ),
        (
            fine,
            vec![("v", 0.0, Sign::Signed)],
            "lsqc.FakeQuantize -> v (lsqc.FakeQuantize): its initial step 0 is not positive",
        ),
        (
            fine,
            vec![("v", f32::INFINITY, Sign::Signed)],
            "lsqc.FakeQuantize -> v (lsqc.FakeQuantize): its initial step inf is not positive",
        ),
        (
            "1, nan, 3, 4",
            vec![("v", 1.0, Sign::Signed)],
            "lsqc.FakeQuantize -> q (lsqc.FakeQuantize): its weight has values that are not finite",
        ),
    ] {
        assert_eq!(set_steps(&quantized(weights), &measured).unwrap_err(), why);
    }
}
