//! The files that `check` is tried on: a right one for each kind of target, and what is changed of it.

pub mod right;
pub mod wrong;

use lsqc_passes::target::{OPENVINO, ORT, PORTABLE, TENSORRT, Target};

/// A residual block for ONNX Runtime. Scales are powers of two, so that their products are exact.
pub const ORT_FILE: &str = r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
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
pub const OPENVINO_CHANGES: &[(&str, &str)] = &[
    (
        "cq = QuantizeLinear (c, sc, zc)  cl = Clip (cq, lo, hi)  cd = DequantizeLinear (cl, sc, zc)",
        "",
    ),
    ("Add (cd, xd)", "Add (c, xd)"),
];

/// A residual block for TensorRT and for every runtime.
pub const INT8_FILE: &str = r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
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

pub type Changes<'a> = &'a [(&'a str, &'a str)];

/// What must break which rules.
pub struct Case {
    /// The targets that it is for.
    pub targets: &'static [&'static Target],
    /// The rules that it breaks.
    pub breaks: &'static [&'static str],
    /// What it changes of the right file.
    pub changes: Changes<'static>,
}

pub const fn case(targets: &'static [&'static Target], breaks: &'static [&'static str], changes: Changes<'static>) -> Case {
    Case {
        targets,
        breaks,
        changes,
    }
}

pub const LIKE_ORT: &[&Target] = &[&ORT, &OPENVINO];
pub const INT8: &[&Target] = &[&TENSORRT, &PORTABLE];
pub const OPSET_21: (&str, &str) = (
    "ir_version: 8, opset_import: [\"\" : 17",
    "ir_version: 10, opset_import: [\"\" : 21",
);
