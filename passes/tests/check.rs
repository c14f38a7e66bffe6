//! Every rule of `check` on files that break it, and on the right ones beside them: for each target one file that is right, and what changes
//! of it break which rules. The rules that are broken must be just those that are named.

use std::collections::BTreeSet;

use lsqc_passes::check::{Finding, check, rules_of};
use lsqc_passes::target::{OPENVINO, ORT, PORTABLE, TARGETS, TENSORRT, Target, Version};
use lsqc_passes::text::parse;

/// A residual block for ONNX Runtime. Scales are powers of two, so that their products are exact.
const ORT_FILE: &str = r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[1,2,4,4] x) => (float[1,3] y)
    <float sx = {0.015625}, uint8 zx = {128}, float sc = {0.0625}, uint8 zc = {128}, float sa = {0.03125}, uint8 za = {0},
     int8[2,2,1,1] w = {3, -5, 7, 9}, float sw = {0.03125}, int8 zw = {0}, int32[2] b = {100, -300}, float sb = {0.00048828125}, int32 zb = {0},
     int8[3,32] h = fill(7), int32[3] k = {1, 2, 3}, float sk = {0.0009765625}, uint8 lo = {120}, uint8 hi = {135}, float[2] bf = {0.5, -0.25},
     float f0 = {0}, float f1 = {1}, float[2] s2 = {0.03125, 0.0625}, int8[2] z2 = {0, 0}, float[3] s3 = {1, 2, 3}, int8[3] z3 = {0, 0, 0}>
    {
      xq = QuantizeLinear (x, sx, zx)  xd = DequantizeLinear (xq, sx, zx)
      wd = DequantizeLinear (w, sw, zw)  bd = DequantizeLinear (b, sb, zb)
      [conv] c = Conv (xd, wd, bd)
      cq = QuantizeLinear (c, sc, zc)  cl = Clip (cq, lo, hi)  cd = DequantizeLinear (cl, sc, zc)
      [add] a = Add (cd, xd)  aq = QuantizeLinear (a, sa, za)  ad = DequantizeLinear (aq, sa, za)
      f = Flatten (ad)  fq = QuantizeLinear (f, sa, za)  fd = DequantizeLinear (fq, sa, za)
      hd = DequantizeLinear (h, sw, zw)  kd = DequantizeLinear (k, sk, zb)
      [gemm] y = Gemm <transB = 1> (fd, hd, kd)
    }"#;

/// The same for OpenVINO: no quantizer between the convolution and the addition.
const OPENVINO_CHANGES: &[(&str, &str)] = &[
    (
        "cq = QuantizeLinear (c, sc, zc)  cl = Clip (cq, lo, hi)  cd = DequantizeLinear (cl, sc, zc)",
        "",
    ),
    ("Add (cd, xd)", "Add (c, xd)"),
];

/// A residual block for TensorRT and for every runtime.
const INT8_FILE: &str = r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[1,2,4,4] x) => (float[1,3] y)
    <float sx = {0.0173}, int8 z = {0}, float sc = {0.0625}, float sa = {0.03125}, float sp = {0.041},
     int8[2,2,1,1] w = {3, -5, 7, 9}, float sw = {0.03125}, float[2] b = {0.5, -0.25}, int8[2,2,1,1] u = {3, -5, 7, 9}, float[2] su = {0.011, 0.012},
     int8[2] zu = {0, 0}, int8[3,2] h = fill(7), float[3] k = {1, 2, 3}, float f0 = {0}, float f6 = {6}, int32[2] bi = {100, -300},
     int32 zi = {0}, float[2,2,1,1] wf = {0.3, -0.5, 0.7, 0.9}, float[3] s3 = {1, 2, 3}, int8[3] z3 = {0, 0, 0}, int8 lo = {-8}, int8 hi = {7}>
    {
      xq = QuantizeLinear (x, sx, z)  xd = DequantizeLinear (xq, sx, z)
      wd = DequantizeLinear (w, sw, z)  [first] c = Conv (xd, wd, b)
      r = Clip (c, f0, f6)  rq = QuantizeLinear (r, sc, z)  rd = DequantizeLinear (rq, sc, z)
      ud = DequantizeLinear <axis = 0> (u, su, zu)  [second] e = Conv (rd, ud, b)
      [add] a = Add (e, rd)  aq = QuantizeLinear (a, sa, z)  ad = DequantizeLinear (aq, sa, z)
      [pool] p = AveragePool <kernel_shape = [4, 4]> (ad)  pq = QuantizeLinear (p, sp, z)  pd = DequantizeLinear (pq, sp, z)
      f = Flatten (pd)  hd = DequantizeLinear (h, sw, z)
      [gemm] y = Gemm <transB = 1> (f, hd, k)
    }"#;

type Changes<'a> = &'a [(&'a str, &'a str)];

fn changed(text: &str, changes: Changes) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn right(target: &Target) -> String {
    match target.name {
        "ort" => ORT_FILE.to_owned(),
        "openvino" => changed(ORT_FILE, OPENVINO_CHANGES),
        _ => INT8_FILE.to_owned(),
    }
}

fn findings(text: &str, target: &'static Target, runtime: Option<Version>) -> Vec<Finding> {
    let model = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    check(&model, target, runtime)
}

fn broken(text: &str, target: &'static Target) -> Vec<&'static str> {
    ids(&findings(text, target, None))
}

fn ids(findings: &[Finding]) -> Vec<&'static str> {
    let mut ids: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
    ids.dedup();
    ids
}

/// What must break which rules.
struct Case {
    targets: &'static [&'static Target],
    breaks: &'static [&'static str],
    changes: Changes<'static>,
}

const fn case(targets: &'static [&'static Target], breaks: &'static [&'static str], changes: Changes<'static>) -> Case {
    Case {
        targets,
        breaks,
        changes,
    }
}

const LIKE_ORT: &[&Target] = &[&ORT, &OPENVINO];
const INT8: &[&Target] = &[&TENSORRT, &PORTABLE];
const OPSET_21: (&str, &str) = (
    "ir_version: 8, opset_import: [\"\" : 17",
    "ir_version: 10, opset_import: [\"\" : 21",
);

static CASES: &[Case] = &[
    // Every target.
    case(
        LIKE_ORT,
        &["own-ops"],
        &[("f = Flatten (ad)", "l = lsqc.StopGradient (ad)  f = Flatten (l)")],
    ),
    case(
        INT8,
        &["own-ops"],
        &[("f = Flatten (pd)", "l = lsqc.StopGradient (pd)  f = Flatten (pd)")],
    ),
    case(LIKE_ORT, &["ir-version"], &[("ir_version: 8", "ir_version: 3")]),
    case(INT8, &["ir-version"], &[("ir_version: 8", "ir_version: 3")]),
    case(
        LIKE_ORT,
        &["scale"],
        &[
            ("sa = {0.03125}", "sa = {0}"),
            ("kd = DequantizeLinear (k, sk, zb)", ""),
            ("hd, kd)", "hd)"),
        ],
    ),
    case(INT8, &["scale"], &[("sa = {0.03125}", "sa = {-0.03125}")]),
    case(INT8, &["scale"], &[("su = {0.011, 0.012}", "su = {0.011, nan}")]),
    case(INT8, &["scale"], &[("su = {0.011, 0.012}", "su = {inf, 0.012}")]),
    case(
        LIKE_ORT,
        &["pair"],
        &[("ad = DequantizeLinear (aq, sa, za)", "ad = DequantizeLinear (aq, sc, za)")],
    ),
    case(
        LIKE_ORT,
        &["pair"],
        &[("ad = DequantizeLinear (aq, sa, za)", "ad = DequantizeLinear (aq, sa, zc)")],
    ),
    case(
        &[&ORT],
        &["pair"],
        &[("cd = DequantizeLinear (cl, sc, zc)", "cd = DequantizeLinear (cl, sa, zc)")],
    ),
    case(
        INT8,
        &["pair"],
        &[("rd = DequantizeLinear (rq, sc, z)", "rd = DequantizeLinear (rq, sa, z)")],
    ),
    case(
        LIKE_ORT,
        &["axis"],
        &[
            (
                "wd = DequantizeLinear (w, sw, zw)",
                "wd = DequantizeLinear <axis = 0> (w, s3, z3)",
            ),
            ("xd, wd, bd", "xd, wd"),
        ],
    ),
    case(INT8, &["axis"], &[("<axis = 0> (u, su, zu)", "<axis = 0> (u, s3, z3)")]),
    case(
        &[&PORTABLE],
        &["axis"],
        &[("<axis = 0> (u, su, zu)", "<axis = 4> (u, su, zu)")],
    ),
    case(
        LIKE_ORT,
        &["opset-forms"],
        &[
            ("int8[2,2,1,1] w", "int4[2,2,1,1] v"),
            ("= {3, -5, 7, 9}", "= {3, -5, 7, 6}"),
            ("wd = ", "w = Cast <to = 3> (v)  wd = "),
        ],
    ),
    case(
        &[&TENSORRT],
        &["opset-forms"],
        &[("opset_import: [\"\" : 17", "opset_import: [\"\" : 12")],
    ),
    case(
        &[&PORTABLE],
        &["opset-13", "opset-forms"],
        &[("opset_import: [\"\" : 17", "opset_import: [\"\" : 12")],
    ),
    // ONNX Runtime.
    case(&[&ORT], &["activation-uint8"], &[("uint8 zx = {128}", "int8 zx = {0}")]),
    case(
        &[&ORT],
        &["activation-uint8"],
        &[OPSET_21, ("uint8 zx = {128}", "uint16 zx = {128}")],
    ),
    case(
        &[&ORT],
        &["activation-uint8"],
        &[OPSET_21, ("uint8 zx = {128}", "uint4 zx = {8}")],
    ),
    case(
        &[&ORT],
        &["activation-per-tensor"],
        &[
            ("uint8 zx = {128}", "uint8[2] zx = {128, 128}"),
            ("QuantizeLinear (x, sx, zx)", "QuantizeLinear <axis = 1> (x, s2, zx)"),
            ("DequantizeLinear (xq, sx, zx)", "DequantizeLinear <axis = 1> (xq, s2, zx)"),
        ],
    ),
    case(&[&ORT], &["integer-clip"], &[("Clip (cq, lo, hi)", "Clip (cq, hi, lo)")]),
    case(
        &[&ORT],
        &["integer-clip"],
        &[
            ("(float[1,2,4,4] x)", "(float[1,2,4,4] x, uint8 top)"),
            ("Clip (cq, lo, hi)", "Clip (cq, lo, top)"),
        ],
    ),
    case(
        &[&ORT],
        &["integer-clip"],
        &[("uint8 lo = {120}", "uint8[2] lo = {120, 121}")],
    ),
    case(
        &[&ORT],
        &["activation-uint8", "integer-clip"],
        &[
            ("uint8 zc = {128}", "int8 zc = {0}"),
            ("uint8 lo = {120}, uint8 hi = {135}", "int8 lo = {-8}, int8 hi = {7}"),
        ],
    ),
    case(
        &[&ORT],
        &["zero-point-written"],
        &[("fd = DequantizeLinear (fq, sa, za)", "fd = DequantizeLinear (fq, sa)")],
    ),
    case(
        &[&ORT],
        &["zero-point-written"],
        &[("hd = DequantizeLinear (h, sw, zw)", "hd = DequantizeLinear (h, sw)")],
    ),
    case(
        &[&ORT],
        &["clamp-before-quantizer"],
        &[("cq = QuantizeLinear (c,", "r = Relu (c)  cq = QuantizeLinear (r,")],
    ),
    case(
        &[&ORT],
        &["clamp-before-quantizer"],
        &[
            ("cq = QuantizeLinear (c,", "r = Clip (c, f0, f1)  cq = QuantizeLinear (r,"),
            ("zc = {128}", "zc = {0}"),
        ],
    ),
    case(
        &[&ORT],
        &["clamp-before-quantizer"],
        &[("aq = QuantizeLinear (a,", "r = Clip (a, f0, f1)  aq = QuantizeLinear (r,")],
    ),
    case(
        &[&ORT],
        &["one-quantizer"],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, v)"),
            (
                "[add]",
                "dq = QuantizeLinear (c, sa, za)  v = DequantizeLinear (dq, sa, za) [add]",
            ),
        ],
    ),
    case(
        &[&ORT],
        &["second-clip"],
        &[(
            "f = Flatten (ad)",
            "eq = QuantizeLinear (ad, sc, za)  ed = DequantizeLinear (eq, sc, za)  f = Flatten (ed)",
        )],
    ),
    case(
        &[&ORT],
        &["repeat-behind-moves"],
        &[
            ("fq = QuantizeLinear (f, sa, za)  fd = DequantizeLinear (fq, sa, za)", ""),
            ("(fd, hd, kd)", "(f, hd, kd)"),
        ],
    ),
    case(
        LIKE_ORT,
        &["weight-axis"],
        &[
            (
                "wd = DequantizeLinear (w, sw, zw)",
                "wd = DequantizeLinear <axis = 1> (w, s2, z2)",
            ),
            ("xd, wd, bd", "xd, wd"),
        ],
    ),
    case(
        &[&ORT],
        &["packed-cast"],
        &[
            OPSET_21,
            (
                "int8[2,2,1,1] w = {3, -5, 7, 9}",
                "int4[2,2,1,1] w = {3, -5, 7, 6}, int4 z4 = {0}",
            ),
            ("(w, sw, zw)", "(w, sw, z4)"),
        ],
    ),
    case(
        &[&ORT],
        &["packed-cast"],
        &[
            OPSET_21,
            ("int8[3,32] h = fill(7)", "int4[3,32] h = fill(7), int4 z4 = {0}"),
            ("(h, sw, zw)", "(h, sw, z4)"),
        ],
    ),
    case(&[&ORT], &["bias-int32"], &[("(xd, wd, bd)", "(xd, wd, bf)")]),
    case(&[&ORT], &["bias-grid"], &[("sb = {0.00048828125}", "sb = {0.00048828128}")]),
    case(
        &[&ORT],
        &["bias-grid"],
        &[
            (
                "bd = DequantizeLinear (b, sb, zb)",
                "bd = DequantizeLinear <axis = 0> (b, s2, zz)",
            ),
            ("int32 zb = {0}", "int32 zb = {0}, int32[2] zz = {0, 0}"),
        ],
    ),
    case(
        &[&ORT],
        &["bias-grid"],
        &[
            ("int32 zb = {0}", "int32 zb = {0}, int32 zo = {1}"),
            ("(b, sb, zb)", "(b, sb, zo)"),
        ],
    ),
    case(
        &[&ORT],
        &["matmul-bias"],
        &[
            ("int8[3,32] h", "int8[32,3] h"),
            (
                "[gemm] y = Gemm <transB = 1> (fd, hd, kd)",
                "m = MatMul (fd, hd)  y = Add (m, s3)",
            ),
        ],
    ),
    case(&[&ORT], &["add-sides"], &[("Add (cd, xd)", "Add (cd, x)")]),
    case(
        &[&ORT],
        &["add-sides"],
        &[
            ("f = Flatten (ad)", "f = Flatten (a)"),
            (
                "aq = QuantizeLinear (a, sa, za)  ad = DequantizeLinear (aq, sa, za)",
                "e = Elu (a)",
            ),
            ("Flatten (a)", "Flatten (e)"),
        ],
    ),
    case(
        &[&ORT],
        &["gather-levels"],
        &[
            ("(float[1,2,4,4] x)", "(float[1,2,4,4] x, int64[1] i)"),
            ("=> (float[1,3] y)", "=> (float[1,3] y, t)"),
            ("[add]", "t = Gather (hd, i) [add]"),
            ("hd = DequantizeLinear (h, sw, zw)", ""),
            ("wd = ", "hd = DequantizeLinear (h, sw, zw)  wd = "),
        ],
    ),
    // OpenVINO.
    case(
        &[&OPENVINO],
        &["narrow-types"],
        &[OPSET_21, ("uint8 zx = {128}", "uint4 zx = {8}")],
    ),
    case(
        &[&OPENVINO],
        &["packed-conv"],
        &[
            OPSET_21,
            (
                "int8[2,2,1,1] w = {3, -5, 7, 9}",
                "int4[2,2,1,1] w = {3, -5, 7, 6}, int4 z4 = {0}",
            ),
            ("(w, sw, zw)", "(w, sw, z4)"),
        ],
    ),
    case(
        &[&OPENVINO],
        &["shortcut-add"],
        &[
            ("Add (c, xd)", "Add (cd, xd)"),
            (
                "[add]",
                "cq = QuantizeLinear (c, sc, zc)  cl = Clip (cq, lo, hi)  cd = DequantizeLinear (cl, sc, zc) [add]",
            ),
        ],
    ),
    // TensorRT, and any runtime.
    case(
        &[&TENSORRT],
        &["signed-types"],
        &[
            ("int8 z = {0}", "int8 z = {0}, uint8 zx = {0}"),
            ("(x, sx, z)", "(x, sx, zx)"),
            ("(xq, sx, z)", "(xq, sx, zx)"),
        ],
    ),
    case(
        &[&TENSORRT],
        &["signed-types"],
        &[
            OPSET_21,
            ("int8 z = {0}", "int8 z = {0}, int16 zx = {0}"),
            ("(x, sx, z)", "(x, sx, zx)"),
            ("(xq, sx, z)", "(xq, sx, zx)"),
        ],
    ),
    case(
        &[&PORTABLE],
        &["int8-levels"],
        &[
            ("int8 z = {0}", "int8 z = {0}, uint8 zx = {0}"),
            ("(x, sx, z)", "(x, sx, zx)"),
            ("(xq, sx, z)", "(xq, sx, zx)"),
        ],
    ),
    case(
        INT8,
        &["zero-point"],
        &[
            ("int8 z = {0}", "int8 z = {0}, int8 zx = {-3}"),
            ("(x, sx, z)", "(x, sx, zx)"),
            ("(xq, sx, z)", "(xq, sx, zx)"),
        ],
    ),
    case(INT8, &["zero-point"], &[("zu = {0, 0}", "zu = {0, 1}")]),
    case(
        &[&TENSORRT],
        &["activation-per-tensor"],
        &[("(x, sx, z)", "(x, su, zu)"), ("(xq, sx, z)", "(xq, su, zu)")],
    ),
    case(
        &[&TENSORRT],
        &["nothing-between"],
        &[(
            "rd = DequantizeLinear (rq,",
            "rl = Clip (rq, lo, hi)  rd = DequantizeLinear (rl,",
        )],
    ),
    case(
        &[&TENSORRT],
        &["nothing-between"],
        &[
            OPSET_21,
            ("int8[2,2,1,1] w = {3, -5, 7, 9}", "int4[2,2,1,1] v = {3, -5, 7, 6}"),
            ("wd = ", "w = Cast <to = 3> (v)  wd = "),
        ],
    ),
    case(
        INT8,
        &["integer-ops"],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, v)"),
            ("[add]", "v, vs, vz = DynamicQuantizeLinear (e) [add]"),
        ],
    ),
    case(
        &[&TENSORRT],
        &["integer-ops"],
        &[
            ("[add]", "v = com.microsoft.QLinearAdd (xq, sx, z, xq, sx, z, sx, z) [add]"),
            ("xd = D", "xx = Identity (xq)  xd = D"),
            ("QLinearAdd (xq, sx, z, xq,", "QLinearAdd (u, sx, z, u,"),
        ],
    ),
    case(
        &[&PORTABLE],
        &["standard-ops"],
        &[("r = Clip (c, f0, f6)", "g = com.microsoft.Gelu (c)  r = Clip (g, f0, f6)")],
    ),
    case(
        INT8,
        &["bias-float"],
        &[
            ("wd = ", "bd = DequantizeLinear (bi, sw, zi)  wd = "),
            ("(xd, wd, b)", "(xd, wd, bd)"),
        ],
    ),
    case(
        &[&TENSORRT],
        &["weight-axis"],
        &[("<axis = 0> (u, su, zu)", "<axis = 1> (u, su, zu)")],
    ),
    case(
        &[&TENSORRT],
        &["weight-axis"],
        &[(
            "hd = DequantizeLinear (h, sw, z)",
            "hd = DequantizeLinear <axis = -1> (h, su, zu)",
        )],
    ),
    case(&[&TENSORRT], &["weight-and-input"], &[("(xd, wd, b)", "(x, wd, b)")]),
    case(&[&TENSORRT], &["weight-and-input"], &[("(xd, wd, b)", "(xd, wf, b)")]),
    case(
        &[&TENSORRT],
        &["weight-and-input"],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, v)"),
            ("[add]", "v = MatMul (xd, x) [add]"),
        ],
    ),
    case(
        &[&TENSORRT],
        &["int4-weights"],
        &[
            OPSET_21,
            (
                "int8[2,2,1,1] w = {3, -5, 7, 9}",
                "int4[2,2,1,1] w = {3, -5, 7, 6}, int4 z4 = {0}",
            ),
            ("(w, sw, z)", "(w, sw, z4)"),
        ],
    ),
    case(
        &[&TENSORRT],
        &["int4-weights"],
        &[
            OPSET_21,
            ("int8 z = {0}", "int8 z = {0}, int4 z4 = {0}"),
            ("(r, sc, z)", "(r, sc, z4)"),
            ("(rq, sc, z)", "(rq, sc, z4)"),
        ],
    ),
    case(
        &[&TENSORRT],
        &["shortcut-add"],
        &[(
            "[add] a = Add (e, rd)",
            "eq = QuantizeLinear (e, sa, z)  ed = DequantizeLinear (eq, sa, z)  [add] a = Add (ed, rd)",
        )],
    ),
    case(
        &[&TENSORRT],
        &["shortcut-add"],
        &[
            ("float f0 = {0}", "float f0 = {0}, float fl = {-0.25}"),
            (
                "[add] a = Add (e, rd)",
                "ec = Clip (e, fl, f6)  eq = QuantizeLinear (ec, sa, z)  ed = DequantizeLinear (eq, sa, z)  [add] a = Add (ed, rd)",
            ),
        ],
    ),
    case(
        &[&TENSORRT],
        &["both-sides"],
        &[
            (
                "pq = QuantizeLinear (p, sp, z)  pd = DequantizeLinear (pq, sp, z)",
                "pd = Elu (p)",
            ),
            ("(f, hd, k)", "(fd, hd, k)"),
            (
                "hd = ",
                "fq = QuantizeLinear (f, sp, z)  fd = DequantizeLinear (fq, sp, z)  hd = ",
            ),
        ],
    ),
    case(
        &[&TENSORRT],
        &["both-sides"],
        &[(
            "[pool]",
            "t = Concat <axis = 1> (ad, a)  tq = QuantizeLinear (t, sa, z)  [pool]",
        )],
    ),
    case(
        &[&TENSORRT],
        &["both-sides"],
        &[("[pool]", "t = Mul (ad, rd)  v = Elu (t)  [pool]")],
    ),
];

/// Changes that look like what a rule is against, and are right.
static RIGHT: &[(&[&Target], Changes)] = &[
    // The zero point of uint8 holds the Relu, and the Clip is wider than the levels.
    (
        &[&ORT],
        &[
            ("cq = QuantizeLinear (c,", "r = Relu (c)  cq = QuantizeLinear (r,"),
            ("zc = {128}", "zc = {0}"),
        ],
    ),
    (
        &[&ORT],
        &[
            ("cq = QuantizeLinear (c,", "r = Clip (c, f0, big)  cq = QuantizeLinear (r,"),
            ("zc = {128}", "zc = {0}"),
            ("float f1", "float big = {16}, float f1"),
        ],
    ),
    // Another takes the Relu's result in floats, and the layer stays in floats knowingly.
    (
        &[&ORT],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, r)"),
            ("cq = QuantizeLinear (c,", "r = Relu (c)  cq = QuantizeLinear (r,"),
        ],
    ),
    // Two quantizers of one grid are one.
    (
        &[&ORT],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, v)"),
            (
                "[add]",
                "dq = QuantizeLinear (c, sc, zc)  v = DequantizeLinear (dq, sc, zc) [add]",
            ),
        ],
    ),
    // A second pair of the same grid, behind a Clip, with one, or behind a value that others take.
    (
        &[&ORT],
        &[(
            "f = Flatten (ad)",
            "eq = QuantizeLinear (ad, sa, za)  ed = DequantizeLinear (eq, sa, za)  f = Flatten (ed)",
        )],
    ),
    (
        &[&ORT],
        &[
            ("lo = {120}", "lo = {0}"),
            (
                "ad = DequantizeLinear (aq, sa, za)",
                "al = Clip (aq, lo, hi)  ad = DequantizeLinear (al, sa, za)",
            ),
            (
                "f = Flatten (ad)",
                "eq = QuantizeLinear (ad, sc, za)  ed = DequantizeLinear (eq, sc, za)  f = Flatten (ed)",
            ),
        ],
    ),
    (
        &[&ORT],
        &[
            ("lo = {120}", "lo = {0}"),
            (
                "f = Flatten (ad)",
                "eq = QuantizeLinear (ad, sc, za)  el = Clip (eq, lo, hi)  ed = DequantizeLinear (el, sc, za)  f = Flatten (ed)",
            ),
        ],
    ),
    (
        &[&ORT],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, v)"),
            (
                "f = Flatten (ad)",
                "v = Elu (ad)  eq = QuantizeLinear (ad, sc, za)  ed = DequantizeLinear (eq, sc, za)  f = Flatten (ed)",
            ),
        ],
    ),
    // ONNX Runtime carries a quantizer through these.
    (
        &[&ORT],
        &[
            (
                "f = Flatten (ad)  fq = QuantizeLinear (f, sa, za)  fd = DequantizeLinear (fq, sa, za)",
                "fd = Reshape (ad, flat)",
            ),
            ("float f0", "int64[2] flat = {1, 32}, float f0"),
        ],
    ),
    (
        &[&ORT],
        &[
            ("[conv]", "xm = MaxPool <kernel_shape = [1, 1]> (xd)  [conv]"),
            ("Conv (xd,", "Conv (xm,"),
        ],
    ),
    // A bias that does not become a Gemm's, or goes to a quantizer.
    (
        &[&ORT],
        &[
            ("int8[3,32] h", "float[1,1,3] b3 = {1, 2, 3}, int8[4,3] h"),
            (
                "[gemm] y = Gemm <transB = 1> (fd, hd, kd)",
                "m = MatMul (ad, hd)  y = Add (m, b3)",
            ),
            ("h = fill(7)", "h = fill(7)"),
            ("(float[1,3] y)", "(float[1,2,4,3] y)"),
        ],
    ),
    (
        &[&ORT],
        &[
            ("int8[3,32] h", "int8[32,3] h"),
            (
                "[gemm] y = Gemm <transB = 1> (fd, hd, kd)",
                "m = MatMul (fd, hd)  n = Add (m, s3)  nq = QuantizeLinear (n, sc, zc)  y = DequantizeLinear (nq, sc, zc)",
            ),
        ],
    ),
    // What is broadcast is no residual.
    (
        &[&ORT],
        &[
            ("(float[1,2,4,4] x)", "(float[1,2,4,4] x, float[1,1,4,4] mask)"),
            ("[add] a = Add (cd, xd)", "n = Add (cd, mask)  [add] a = Add (cd, xd)"),
        ],
    ),
    // A layer that ends in floats is computed in floats whatever its bias is.
    (
        &[&ORT],
        &[
            ("=> (float[1,3] y)", "=> (float[1,3] y, v)"),
            ("[add]", "v = Conv (xd, wd, bf) [add]"),
        ],
    ),
    // No zero points but a Gemm's need be written.
    (
        &[&ORT],
        &[(
            "wd = DequantizeLinear (w, sw, zw)  bd = DequantizeLinear (b, sb, zb)",
            "wd = DequantizeLinear (w, sw)  bd = DequantizeLinear (b, sb)",
        )],
    ),
    // Weights as other tools write them: floats behind a quantizer of their own, scales that a Constant gives, a Transpose behind.
    (
        LIKE_ORT,
        &[
            ("int8[2,2,1,1] w = {3, -5, 7, 9}", "float[2,2,1,1] wf = {0.1, -0.2, 0.3, 0.4}"),
            ("wd = ", "w = QuantizeLinear (wf, sw, zw)  wd = "),
        ],
    ),
    (
        INT8,
        &[(
            "wd = DequantizeLinear (w, sw, z)",
            "wq = QuantizeLinear (wf, sw, z)  wd = DequantizeLinear (wq, sw, z)",
        )],
    ),
    (
        INT8,
        &[
            ("xq = ", "st = Constant <value = float {0.0173}> ()  xq = "),
            ("(x, sx, z)", "(x, st, z)"),
            ("(xq, sx, z)", "(xq, sx, z)"),
        ],
    ),
    (
        &[&TENSORRT],
        &[
            ("int8[3,2] h", "float[3] sh = {0.1, 0.2, 0.3}, int8[3,2] h"),
            (
                "hd = DequantizeLinear (h, sw, z)",
                "he = DequantizeLinear <axis = 0> (h, sh, z3)  hd = Transpose (he)",
            ),
            ("Gemm <transB = 1> (f, hd, k)", "Gemm (f, hd, k)"),
        ],
    ),
    // A layer that is not quantized, and zero points that are left out.
    (INT8, &[("(xd, wd, b)", "(x, wf, b)")]),
    (INT8, &[("hd = DequantizeLinear (h, sw, z)", "hd = DequantizeLinear (h, sw)")]),
    // int4 beside activations in floats.
    (
        &[&TENSORRT],
        &[
            OPSET_21,
            ("int8[3,2] h = fill(7)", "int4[2,3] h = fill(7), float[1,3] sb = {1, 2, 3}"),
            (
                "hd = DequantizeLinear (h, sw, z)",
                "hd = DequantizeLinear <axis = 0, block_size = 2> (h, sb)",
            ),
            ("Gemm <transB = 1> (f, hd, k)", "Gemm (g, hd, k)"),
            ("f = Flatten (pd)", "v = Elu (pd)  g = Flatten (v)"),
        ],
    ),
    // float8 is TensorRT's own.
    (
        &[&TENSORRT],
        &[
            OPSET_21,
            ("int8 z = {0}", "int8 z = {0}, float8e4m3fn z8 = {0x00}"),
            ("(r, sc, z)", "(r, sc, z8)"),
            ("(rq, sc, z)", "(rq, sc, z8)"),
        ],
    ),
    // Levels of a Relu, on both sides of an addition.
    (
        &[&TENSORRT],
        &[(
            "[add] a = Add (e, rd)",
            "ec = Clip (e, f0, f6)  eq = QuantizeLinear (ec, sa, z)  ed = DequantizeLinear (eq, sa, z)  [add] a = Add (ed, rd)",
        )],
    ),
    // A pool in floats before a quantizer.
    (
        INT8,
        &[(
            "AveragePool <kernel_shape = [4, 4]> (ad)",
            "AveragePool <kernel_shape = [4, 4]> (a)",
        )],
    ),
    // A scale of one element is a scale.
    (INT8, &[("float sc = {0.0625}", "float[1] sc = {0.0625}")]),
    // IR versions of older tools.
    (LIKE_ORT, &[("ir_version: 8", "ir_version: 6")]),
];

#[test]
fn what_only_looks_wrong_breaks_no_rule() {
    for (targets, changes) in RIGHT {
        for &target in *targets {
            let text = changed(&right(target), changes);
            assert_eq!(findings(&text, target, None), [], "{}: {changes:?}", target.name);
        }
    }
}

#[test]
fn right_files_break_no_rule() {
    for &target in TARGETS {
        assert_eq!(findings(&right(target), target, None), [], "{}", target.name);
    }
}

#[test]
fn wrong_files_break_the_rules_that_are_named() {
    for Case {
        targets,
        breaks,
        changes,
    } in CASES
    {
        for &target in *targets {
            let text = changed(&right(target), changes);
            assert_eq!(broken(&text, target), *breaks, "{}: {changes:?}", target.name);
        }
    }
}

#[test]
fn every_rule_of_every_target_is_broken_by_some_file() {
    let mut tried: BTreeSet<(&str, &str)> = BTreeSet::new();
    for case in CASES {
        for target in case.targets {
            tried.extend(case.breaks.iter().map(|&rule| (target.name, rule)));
        }
    }
    // These look at the whole file, and have tests of their own.
    tried.insert(("ort", "runtime"));
    tried.extend(TARGETS.iter().map(|target| (target.name, "quantized")));
    for target in TARGETS {
        for rule in rules_of(target) {
            assert!(tried.contains(&(target.name, rule.id)), "{}/{}", target.name, rule.id);
        }
    }
}

#[test]
fn rules_are_told_apart_by_their_ids() {
    for target in TARGETS {
        let ids: BTreeSet<&str> = rules_of(target).iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), rules_of(target).len(), "{}", target.name);
    }
}

#[test]
fn a_file_without_quantizers_is_told() {
    for &target in TARGETS {
        assert_eq!(
            broken("g (float[1] x) => (float[1] y) { y = Relu (x) }", target),
            ["quantized"]
        );
    }
}

#[test]
fn a_version_of_the_runtime_loads_the_file_or_not() {
    let with = |changes: Changes, runtime: Version| {
        let found = findings(&changed(ORT_FILE, changes), &ORT, Some(runtime));
        let of_runtime = |finding: Finding| (finding.rule == "runtime").then_some(finding.what);
        found.into_iter().filter_map(of_runtime).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(with(&[], Version(1, 12)), "");
    assert_eq!(
        with(&[], Version(1, 11)),
        "operator set 17: ONNX Runtime 1.11 does not load it, 1.12 and later do"
    );
    assert_eq!(
        with(&[("ir_version: 8", "ir_version: 10")], Version(1, 17)),
        "IR version 10: ONNX Runtime 1.17 does not load it, 1.18 and later do"
    );
    let packed: Changes = &[
        OPSET_21,
        ("int8[2,2,1,1] w = {3, -5, 7, 9}", "int4[2,2,1,1] v = {3, -5, 7, 6}"),
        ("wd = ", "w = Cast <to = 3> (v)  wd = "),
    ];
    assert_eq!(with(packed, Version(1, 23)), "");
    assert_eq!(
        with(packed, Version(1, 22)),
        "weights of int4: ONNX Runtime 1.22 does not load it, 1.23 and later do"
    );
}

#[test]
fn findings_name_the_node_and_the_cure() {
    let text = changed(ORT_FILE, &[("(xd, wd, bd)", "(xd, wd, bf)")]);
    let found = findings(&text, &ORT, None);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!((finding.node.as_deref(), finding.op.as_deref()), (Some("conv"), Some("Conv")));
    assert_eq!(finding.what, "its bias is in floats");
    assert!(
        finding.cure.contains("int32") && finding.says.contains("int32"),
        "{finding:?}"
    );
}

#[test]
fn rules_look_into_subgraphs() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        g (bool t, float[1,2] x) => (float[1,2] y) <float s = {0.1}, uint8 z = {0}, float zero = {0}>
        {
          q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)
          y = If (t) <then_branch = one () => (a) { b = QuantizeLinear (d, zero, z)  a = DequantizeLinear (b, zero, z) },
                      else_branch = two () => (c) { c = Identity (d) }>
        }"#;
    // The scale is a constant of the graph around it.
    assert_eq!(broken(text, &ORT), ["scale"]);
}
