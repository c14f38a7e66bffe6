//! `lower-qdq`: what the fake-quantized network becomes in integers.

use crate::common::{elements, nodes, run_in};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Model;
use lsqc_passes::lower::{LOWER_QDQ, LevelSite, LevelSites};
use lsqc_passes::pass::{NoEvaluator, PassCx};

fn try_lower(text: &str) -> Result<(Model, Vec<LevelSite>), String> {
    let mut cx = PassCx::new(&NoEvaluator);
    let model = run_in(&[&INFER_TYPES, &LOWER_QDQ], &mut cx, text)?;
    let sites: LevelSites = cx.take().unwrap();
    Ok((model, sites.0))
}

/// Lowers a body over 1×1 convolutions; `fq8` and the like stand for `lsqc.FakeQuantize` with these bits, `sq8` for the signed one.
fn lower(body: &str) -> (Model, Vec<LevelSite>) {
    let mut body = body.to_owned();
    for (short, signed) in [("fq", 0), ("sq", 1)] {
        for bits in 2..=8 {
            let long = format!("lsqc.FakeQuantize <bits = {bits}, signed = {signed}>");
            body = body.replace(&format!("{short}{bits}"), &long);
        }
    }
    let text = format!(
        "g (float[1,1,4,4] x) => (y) <float[2,1,1,1] w = {{0.6, -0.75}}, float[2] b = {{0.5, -1.5}}, float[1,2,1,1] u = {{1, 2}},
        float sx = {{0.125}}, float sw = {{0.25}}, float s = {{0.5}}, float t = {{0.25}}, float zero = {{0}}, float six = {{6}},
        float hundred = {{100}}, int64[4] shape = {{1, 2, 4, 4}}> {{ {body} }}"
    );
    try_lower(&text).unwrap()
}

/// A quantized first layer with the result `c`.
const FIRST: &str = "xq = sq8 (x, sx)  wq = sq4 (w, sw)  c = Conv (xq, wq, b)";

/// Zero point and range of the last site.
fn last(sites: &[LevelSite]) -> (i32, (i32, i32)) {
    let site = sites.last().unwrap();
    (site.zero_point, site.range)
}

#[test]
fn layers_stand_between_integers() {
    let (model, sites) = lower(&format!(
        "{FIRST}  r = Relu (c)  rq = fq4 (r, s)  uq = sq8 (u, t)  y = Conv (rq, uq)"
    ));
    assert_snapshot!(nodes(&model), @r#"
    "xq/quantized" = QuantizeLinear (x, sx, "uint8/128")
    "xq/dequantized" = DequantizeLinear ("xq/quantized", sx, "uint8/128")
    "w/dequantized" = DequantizeLinear ("w/int8", "w/scale", "w/zero_point")
    "b/dequantized" = DequantizeLinear ("b/int32", "b/scale")
    c = Conv ("xq/dequantized", "w/dequantized", "b/dequantized")
    r = Relu (c)
    "rq/quantized" = QuantizeLinear (c, s, "uint8/0")
    "rq/levels" = Clip ("rq/quantized", "uint8/0", "uint8/15")
    "rq/dequantized" = DequantizeLinear ("rq/levels", s, "uint8/0")
    "u/dequantized" = DequantizeLinear ("u/int8", "u/scale", "u/zero_point")
    y = Conv ("rq/dequantized", "u/dequantized")
    "#);
    let site = |value: &str, source: &str, levels: &str, step: f32, zero_point: i32, range: (i32, i32)| LevelSite {
        value: value.to_owned(),
        source: source.to_owned(),
        levels: levels.to_owned(),
        step,
        zero_point,
        range,
    };
    assert_eq!(
        sites,
        [
            site("xq", "x", "xq/quantized", 0.125, 128, (0, 255)),
            site("rq", "r", "rq/levels", 0.5, 0, (0, 15)),
        ]
    );
    assert_eq!(
        (elements(&model, "uint8/0"), elements(&model, "uint8/15")),
        (vec![0.0], vec![15.0])
    );
    let graph = &model.graph;
    let find = |op: &str, index: usize, nth: usize| {
        let (_, node) = graph.nodes().filter(|(_, node)| node.op.is(op)).nth(nth).unwrap();
        let (_, from) = graph.producer(node.input(index).unwrap()).unwrap();
        let constants = from.inputs().iter().flatten();
        constants
            .map(|&operand| graph[operand].constant().unwrap().clone())
            .collect::<Vec<_>>()
    };
    let [levels, scale, zero] = &find("Conv", 1, 0)[..] else {
        panic!("three operands")
    };
    assert_eq!(
        levels.values::<i8>().unwrap()[..],
        [2 << 4, -3 << 4],
        "0.6 and −0.75 by 0.25, shifted to fill the byte"
    );
    assert_eq!(scale.to_f32().unwrap(), [0.25 / 16.0]);
    assert_eq!(zero.values::<i8>().unwrap()[..], [0]);
    let [levels, scale] = &find("Conv", 2, 0)[..] else {
        panic!("the bias has no zero point")
    };
    assert_eq!(levels.values::<i32>().unwrap()[..], [256, -768]);
    assert_eq!(scale.to_f32().unwrap(), [0.125 * 0.25 / 16.0]);
    let [levels, scale, _] = &find("Conv", 1, 1)[..] else {
        panic!("three operands")
    };
    assert_eq!(levels.values::<i8>().unwrap()[..], [4, 8], "eight bits are not shifted");
    assert_eq!(scale.to_f32().unwrap(), [0.25]);
}

#[test]
fn a_bounded_relu_moves_into_the_integer_clip() {
    let text = format!("{FIRST}  r = Clip (c, zero, six)  rq = fq4 (r, s)  uq = sq8 (u, t)  y = Conv (rq, uq)");
    let (model, sites) = lower(&text);
    assert!(nodes(&model).contains("= QuantizeLinear (c, s"), "{}", nodes(&model));
    assert_eq!(last(&sites), (0, (0, 12)), "6/0.5");
    let (_, sites) = lower(&text.replace("fq4 (r, s)", "fq4 (r, t)"));
    assert_eq!(last(&sites), (0, (0, 15)), "6/0.25 is beyond 4 bits");
    let (_, sites) = lower(&text.replace("fq4 (r, s)", "sq5 (r, s)"));
    assert_eq!(
        last(&sites),
        (128, (128, 140)),
        "signed levels of a clamp begin at the zero point"
    );
}

#[test]
fn clamps_one_behind_another_leave_what_the_last_one_leaves() {
    let last_of = |clamps: &str, quantizer: &str| {
        let text = format!("{FIRST}  {clamps}  rq = {quantizer} (r, s)  uq = sq8 (u, t)  y = Conv (rq, uq)");
        last(&lower(&text).1)
    };
    assert_eq!(last_of("i = Clip (c, zero, six)  r = Clip (i, s)", "fq4"), (0, (1, 12)));
    assert_eq!(
        last_of("i = Clip (c, six, hundred)  r = Clip (i, zero, s)", "fq4"),
        (0, (1, 1)),
        "the outer one wins"
    );
    assert_eq!(
        last_of("i = Clip (c, zero, s)  r = Clip (i, six, hundred)", "fq4"),
        (0, (12, 12))
    );
    assert_eq!(
        last_of("r = Clip (c, hundred)", "fq4"),
        (0, (15, 15)),
        "a floor above every level"
    );
    assert_eq!(last_of("r = Clip (c, hundred)", "sq4"), (128, (135, 135)));
    assert_eq!(
        last_of("r = Clip (c, six, zero)", "fq4"),
        (0, (0, 0)),
        "an empty range is its upper bound"
    );
}

#[test]
fn a_relu_with_another_user_stays() {
    let (model, sites) = lower(&format!(
        "{FIRST}  r = Relu (c)  rq = fq4 (r, s)  uq = sq8 (u, t)  d = Conv (rq, uq)  y = Add (d, r)"
    ));
    assert!(nodes(&model).contains("r = Relu (c)"), "{}", nodes(&model));
    assert_eq!(last(&sites), (0, (0, 15)));
}

#[test]
fn signed_levels_have_the_zero_point_128() {
    let (model, sites) = lower(&format!("{FIRST}  q = sq4 (c, s)  uq = sq8 (u, t)  y = Conv (q, uq)"));
    assert_eq!(last(&sites), (128, (120, 135)));
    let levels = nodes(&model)
        .lines()
        .filter(|line| line.starts_with(r#""q/"#))
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .join("\n");
    assert_snapshot!(levels, @r#"
    "q/quantized" = QuantizeLinear (c, s, "uint8/128")
    "q/levels" = Clip ("q/quantized", "uint8/120", "uint8/135")
    "q/dequantized" = DequantizeLinear ("q/levels", s, "uint8/128")
    "#);
    assert_eq!(elements(&model, "uint8/120"), [120.0]);
}

#[test]
fn a_quantizer_behind_another_keeps_its_clip_at_full_range() {
    let (model, sites) = lower(&format!(
        "{FIRST}  p = fq8 (c, s)  q = fq8 (p, t)  uq = sq8 (u, t)  y = Conv (q, uq)"
    ));
    assert_eq!(last(&sites), (0, (0, 255)));
    let clips: Vec<String> = nodes(&model)
        .lines()
        .filter(|line| line.contains("= Clip"))
        .map(str::to_owned)
        .collect();
    assert_eq!(clips, [r#""q/levels" = Clip ("q/quantized", "uint8/0", "uint8/255")"#]);
}

#[test]
fn the_quantizer_is_repeated_behind_moves() {
    let body = format!("{FIRST}  q = fq8 (c, s)  m = MaxPool <kernel_shape = [4, 4]> (q)  uq = sq8 (u, t)  y = Conv (m, uq)");
    let (model, sites) = lower(&body);
    assert_snapshot!(nodes(&model), @r#"
    "xq/quantized" = QuantizeLinear (x, sx, "uint8/128")
    "xq/dequantized" = DequantizeLinear ("xq/quantized", sx, "uint8/128")
    "w/dequantized" = DequantizeLinear ("w/int8", "w/scale", "w/zero_point")
    "b/dequantized" = DequantizeLinear ("b/int32", "b/scale")
    c = Conv ("xq/dequantized", "w/dequantized", "b/dequantized")
    "q/quantized" = QuantizeLinear (c, s, "uint8/0")
    "q/dequantized" = DequantizeLinear ("q/quantized", s, "uint8/0")
    m = MaxPool <kernel_shape = [4, 4]> ("q/dequantized")
    "m/levels" = QuantizeLinear (m, s, "uint8/0")
    "m/dequantized" = DequantizeLinear ("m/levels", s, "uint8/0")
    "u/dequantized" = DequantizeLinear ("u/int8", "u/scale", "u/zero_point")
    y = Conv ("m/dequantized", "u/dequantized")
    "#);
    assert_eq!(sites.len(), 2, "a repetition is no site of its own");
    let (model, _) = lower(&body.replace(
        "m = MaxPool <kernel_shape = [4, 4]> (q)",
        "f = Flatten <axis = 2> (q)  m = Reshape (f, shape)",
    ));
    let repeated = nodes(&model);
    assert!(
        repeated.contains(r#""f/levels" = QuantizeLinear (f, s, "uint8/0")"#),
        "{repeated}"
    );
}

#[test]
fn the_quantizer_is_repeated_behind_a_concat_of_one_grid() {
    let body = format!(
        "{FIRST}  p = fq8 (c, s)  d = Abs (c)  q = fq8 (d, s)  j = Concat <axis = 2> (p, q)  uq = sq8 (u, t)  y = Conv (j, uq)"
    );
    let repeated = r#""j/levels" = QuantizeLinear (j, s, "uint8/0")"#;
    let (model, _) = lower(&body);
    assert!(nodes(&model).contains(repeated), "{}", nodes(&model));
    for other in [
        body.replace("q = fq8 (d, s)", "q = fq8 (d, t)"),
        body.replace("q = fq8 (d, s)", "q = sq8 (d, s)"),
    ] {
        let (model, _) = lower(&other);
        assert!(!nodes(&model).contains("(j, s"), "two grids: {}", nodes(&model));
    }
}

#[test]
fn steps_for_each_channel_become_scales_along_the_axis() {
    let text = "g (float[1,1,4,4] x) => (y) <float[2,1,1,1] w = {0.5, -1}, float[2] b = {0.5, -1.5}, float sx = {0.125}, float[2] sw = {0.25, 0.5}>
        {
          xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
          wq = lsqc.FakeQuantize <bits = 8, signed = 1, axis = 0> (w, sw)
          y = Conv (xq, wq, b)
        }";
    let (model, _) = try_lower(text).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    "xq/quantized" = QuantizeLinear (x, sx, "uint8/128")
    "xq/dequantized" = DequantizeLinear ("xq/quantized", sx, "uint8/128")
    "w/dequantized" = DequantizeLinear <axis = 0> ("w/int8", "w/scale", "w/zero_point")
    "b/dequantized" = DequantizeLinear <axis = 0> ("b/int32", "b/scale")
    y = Conv ("xq/dequantized", "w/dequantized", "b/dequantized")
    "#);
    assert_eq!(elements(&model, "b/scale"), [0.125 * 0.25, 0.125 * 0.5]);
    assert_eq!(elements(&model, "b/int32"), [16.0, -24.0]);
    let old = format!("<ir_version: 5, opset_import: [\"\" : 12]> {text}");
    assert_eq!(try_lower(&old).unwrap_err(), "lowering needs operator set 13");
}

/// A bias [N] of a MatMul of rank 3 becomes [1, 1, N], which keeps ONNX Runtime from making a Gemm of the two; of rank 2 it stays.
#[test]
fn biases_of_matmuls_are_rows() {
    let text = |rank: &str| {
        format!(
            "g (float[{rank}] x) => (y) <float[2,2] w = {{1, -2, 3, 4}}, float s = {{0.5}}, float t = {{0.25}}, float[2] b = {{1, 2}}>
            {{
              xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, s)
              wq = lsqc.FakeQuantize <bits = 8, signed = 1> (w, t)
              m = MatMul (xq, wq)
              y = Add (b, m)
            }}"
        )
    };
    for (rank, line) in [("1,3,2", "y = Add (\"b/row\", m)"), ("3,2", "y = Add (b, m)")] {
        let (model, _) = try_lower(&text(rank)).unwrap();
        assert!(nodes(&model).contains(line), "{}", nodes(&model));
    }
    let (model, _) = try_lower(&text("1,3,2")).unwrap();
    let row = model.graph.find("b/row").unwrap();
    assert_eq!(model.graph[row].constant().unwrap().shape(), [1, 1, 2]);
}
