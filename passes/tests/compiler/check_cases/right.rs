//! Changes that look like what a rule is against, and are right.

use lsqc_passes::target::{ORT, TENSORRT, Target};

use super::{Changes, INT8, LIKE_ORT, OPSET_21};

/// Changes that look like what a rule is against, and are right.
pub static RIGHT: &[(&[&Target], Changes)] = &[
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
            (
                "int8[3,2] h = fill(7)",
                "int4[64,3] h = fill(7), float[1,3] sb = fill(0.5), int64[2] often = {1, 32}",
            ),
            (
                "hd = DequantizeLinear (h, sw, z)",
                "hd = DequantizeLinear <axis = 0, block_size = 64> (h, sb)",
            ),
            ("Gemm <transB = 1> (f, hd, k)", "Gemm (g, hd, k)"),
            ("f = Flatten (pd)", "v = Elu (pd)  fv = Flatten (v)  g = Tile (fv, often)"),
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
