//! Changes that break rules, each with the rules that it breaks, and no others.

use lsqc_passes::target::{OPENVINO, ORT, PORTABLE, TENSORRT};

use super::{Case, INT8, LIKE_ORT, OPSET_21, case};

/// All of them.
pub static CASES: &[Case] = &[
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
            (
                "int8[3,2] h = fill(7)",
                "int4[64,3] h = fill(7), float[2,3] sb = fill(0.5), int64[2] often = {1, 32}",
            ),
            (
                "hd = DequantizeLinear (h, sw, z)",
                "hd = DequantizeLinear <axis = 0, block_size = 32> (h, sb)",
            ),
            ("Gemm <transB = 1> (f, hd, k)", "Gemm (g, hd, k)"),
            ("f = Flatten (pd)", "v = Elu (pd)  fv = Flatten (v)  g = Tile (fv, often)"),
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
