//! `check` has nothing to say of right files: what lsqc itself writes for each target, and what other tools write.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{run_in, run_on};
use lsqc_passes::check::check;
use lsqc_passes::ir::Model;
use lsqc_passes::lower::Form;
use lsqc_passes::onnx::{NoExternalData, read};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::pipelines::{FINISH, LOWER, QUANTIZE};
use lsqc_passes::quantize::{ActivationSteps, Bits, Granularity, QuantizePlan, SET_STEPS, Sign, Sites};
use lsqc_passes::target::{OPENVINO, ORT, PORTABLE, Placement, Storage, TARGETS, TENSORRT, Target};

/// Nets with the shapes that rules look at.
const NETS: &[(&str, &str)] = &[
    (
        "a residual block with a convolution on its shortcut",
        "g (float[N,2,8,8] x) => (float[N,3] y)
         <float[4,2,3,3] a = normal(seed = 1), float[4] ab = normal(seed = 2), float[4,4,3,3] b = normal(seed = 3), float[4] bb = normal(seed = 4),
          float[4,4,1,1] c = normal(seed = 5), float[4] cb = normal(seed = 6), float[4,4,3,3] d = normal(seed = 7), float[4] db = normal(seed = 8),
          float[3,4] h = normal(seed = 9), float[3] hb = normal(seed = 10)>
         {
           t = Conv <pads = [1, 1, 1, 1]> (x, a, ab)  r = Relu (t)
           u = Conv <pads = [1, 1, 1, 1]> (r, b, bb)  v = Conv (r, c, cb)  w = Add (u, v)  s = Relu (w)
           q = Conv <pads = [1, 1, 1, 1]> (s, d, db)  z = Add (q, s)  o = Relu (z)
           p = GlobalAveragePool (o)  f = Flatten (p)  y = Gemm <transB = 1> (f, h, hb)
         }",
    ),
    (
        "bottlenecks with depthwise convolutions",
        "g (float[N,2,8,8] x) => (float[N,3] y)
         <float[4,2,1,1] a = normal(seed = 1), float[4] ab = normal(seed = 2), float[4,1,3,3] b = normal(seed = 3), float[4] bb = normal(seed = 4),
          float[4,4,1,1] c = normal(seed = 5), float[4] cb = normal(seed = 6), float[4,4,1,1] d = normal(seed = 7), float[3,64] h = normal(seed = 8),
          float[3] hb = normal(seed = 9), float zero = {0}, float six = {6}>
         {
           t = Conv (x, a, ab)  r = Clip (t, zero, six)
           u = Conv <group = 4, pads = [1, 1, 1, 1]> (r, b, bb)  s = Clip (u, zero, six)
           v = Conv (s, c, cb)  w = Conv (v, d)  z = Add (v, w)
           m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (z)  f = Flatten (m)  y = Gemm <transB = 1> (f, h, hb)
         }",
    ),
    (
        "branches that are joined, and an average pool",
        "g (float[N,2,8,8] x) => (float[N,3] y)
         <float[4,2,1,1] a = normal(seed = 1), float[2,4,1,1] b = normal(seed = 2), float[2,4,3,3] c = normal(seed = 3), float[4,4,1,1] d = normal(seed = 4),
          float[4,3] h = normal(seed = 5), int64[2] shape = {-1, 4}>
         {
           t = Conv (x, a)  r = Relu (t)
           u = Conv (r, b)  v = Relu (u)  w = Conv <pads = [1, 1, 1, 1]> (r, c)  k = Relu (w)
           j = Concat <axis = 1> (v, k)  o = AveragePool <kernel_shape = [8, 8]> (j)  e = Conv (o, d)  l = Relu (e)
           f = Reshape (l, shape)  y = MatMul (f, h)
         }",
    ),
    (
        "matrix products with a transpose between",
        "g (float[N,5,4] x) => (float[N,4,4] y)
         <float[4,4] a = normal(seed = 1), float[4] ab = normal(seed = 2), float[4,4] b = normal(seed = 3), float[5,4] c = normal(seed = 4)>
         {
           t = MatMul (x, a)  u = Add (t, ab)  r = Relu (u)  v = MatMul (r, b)  s = Relu (v)
           w = Transpose <perm = [0, 2, 1]> (s)  y = MatMul (w, c)
         }",
    ),
];

/// What a run of `lsqc quantize` writes, without training.
fn lowered(
    target: &'static Target,
    placement: Placement,
    granularity: Granularity,
    storage: Storage,
    bits: u32,
    net: &str,
) -> Model {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(QuantizePlan {
        bits: Bits {
            weight: bits,
            activation: bits,
            sign: None,
        },
        placement,
        requantizing: target.requantizing,
        results: target.results,
        granularity,
        ..QuantizePlan::default()
    });
    let opset = storage.opset().max(17);
    let header = format!(
        "<ir_version: {}, opset_import: [\"\" : {opset}]>",
        if opset > 17 { 13 } else { 8 }
    );
    let mut model = run_in(&[&lsqc_passes::analyze::INFER_TYPES], &mut cx, &format!("{header} {net}")).unwrap();
    run_on(QUANTIZE, &mut cx, &mut model).unwrap();
    let sites: Sites = cx.take().unwrap();
    let steps: BTreeMap<_, _> = sites
        .activations
        .iter()
        .zip(0u8..)
        .map(|(site, index)| {
            let unsigned = site.non_negative && site.bits <= target.widest_unsigned;
            let sign = if unsigned { Sign::Unsigned } else { Sign::Signed };
            (site.value.clone(), (0.0173 + 0.0031 * f32::from(index), sign))
        })
        .collect();
    cx.set(ActivationSteps(steps));
    cx.set(Form {
        storage,
        ..Form::of(target)
    });
    run_on(&[&SET_STEPS], &mut cx, &mut model).unwrap();
    run_on(FINISH, &mut cx, &mut model).unwrap();
    run_on(LOWER, &mut cx, &mut model).unwrap();
    model
}

fn found(model: &Model, target: &'static Target) -> Vec<String> {
    let text = |finding: lsqc_passes::check::Finding| format!("{} {:?}: {}", finding.rule, finding.node, finding.what);
    check(model, target, None).into_iter().map(text).collect()
}

#[test]
fn what_lsqc_writes_passes() {
    for &target in TARGETS {
        for (name, net) in NETS {
            for &placement in target.placements {
                for granularity in [Granularity::PerTensor, Granularity::PerChannel] {
                    for bits in [3, 8] {
                        let model = lowered(target, placement, granularity, Storage::Int8, bits, net);
                        let what = format!("{}: {name}, {placement:?}, {granularity:?}, {bits} bits", target.name);
                        assert_eq!(found(&model, target), Vec::<String>::new(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn packed_weights_of_lsqc_pass() {
    for (storage, bits) in [(Storage::Int4, 3), (Storage::Int4, 4), (Storage::Int2, 2)] {
        let model = lowered(
            &ORT,
            Placement::EightBitAdds,
            Granularity::PerTensor,
            storage,
            bits,
            NETS[0].1,
        );
        assert_eq!(found(&model, &ORT), Vec::<String>::new(), "{storage}");
    }
}

/// A file for one target is none for another, where they differ.
#[test]
fn what_lsqc_writes_for_another_target_does_not_pass() {
    let file = |target: &'static Target| {
        lowered(
            target,
            target.placements[0],
            Granularity::PerTensor,
            Storage::Int8,
            8,
            NETS[0].1,
        )
    };
    for (of, others) in [
        (&ORT, &[&OPENVINO, &TENSORRT, &PORTABLE][..]),
        (&OPENVINO, &[&TENSORRT, &PORTABLE]),
        (&TENSORRT, &[&ORT]),
        (&PORTABLE, &[&ORT, &TENSORRT]),
    ] {
        for &other in others {
            assert_ne!(
                found(&file(of), other),
                Vec::<String>::new(),
                "{} for {}",
                of.name,
                other.name
            );
        }
    }
}

/// A name, the targets whose rules the file keeps, and the rules of others that it breaks.
type File = (&'static str, &'static [&'static Target], &'static [Broken]);
/// A target, and the rules of it that a file breaks.
type Broken = (&'static Target, &'static [&'static str]);

/// Files of fixtures/checked, the targets whose rules they keep, and rules that they break: each file is in its README.
const FILES: &[File] = &[
    (
        "ort_uint8",
        &[&ORT],
        &[
            (&TENSORRT, &["signed-types", "zero-point", "bias-float", "shortcut-add"]),
            (&OPENVINO, &["shortcut-add"]),
        ],
    ),
    (
        "ort_uint8_per_tensor",
        &[&ORT],
        &[(&PORTABLE, &["int8-levels", "zero-point", "bias-float"])],
    ),
    (
        "ort_uint8_symmetric",
        &[&ORT],
        &[(&TENSORRT, &["signed-types", "zero-point", "bias-float", "shortcut-add"])],
    ),
    ("ort_uint8_float_bias", &[], &[(&ORT, &["bias-int32"])]),
    (
        "ort_int8",
        &[],
        &[
            (&ORT, &["activation-uint8"]),
            (&TENSORRT, &["zero-point", "bias-float", "shortcut-add"]),
        ],
    ),
    (
        "ort_uint16",
        &[],
        &[
            (&ORT, &["activation-uint8"]),
            (&PORTABLE, &["int8-levels", "zero-point", "bias-float"]),
        ],
    ),
    (
        "ort_operators",
        &[&ORT, &OPENVINO],
        &[(&TENSORRT, &["integer-ops", "signed-types", "zero-point", "nothing-between"])],
    ),
    (
        "ort_dynamic",
        &[&ORT, &OPENVINO],
        &[(&TENSORRT, &["integer-ops"]), (&PORTABLE, &["integer-ops"])],
    ),
    (
        "ort_for_tensorrt",
        &[&TENSORRT, &OPENVINO, &PORTABLE],
        &[(&ORT, &["activation-uint8", "bias-int32", "add-sides"])],
    ),
    (
        "ort_int8_all_sides",
        &[&PORTABLE],
        &[(&TENSORRT, &["shortcut-add"]), (&ORT, &["activation-uint8", "bias-int32"])],
    ),
    (
        "ort_int4",
        &[],
        &[(&ORT, &["packed-cast"]), (&OPENVINO, &["packed-conv", "shortcut-add"])],
    ),
    (
        "torch_int8",
        &[&TENSORRT, &OPENVINO, &PORTABLE],
        &[(&ORT, &["activation-uint8", "bias-int32", "add-sides"])],
    ),
    (
        "torch_uint8",
        &[&OPENVINO],
        &[
            (&ORT, &["clamp-before-quantizer", "bias-int32", "add-sides"]),
            (&TENSORRT, &["signed-types", "zero-point"]),
        ],
    ),
    (
        "brevitas_w4a4",
        &[&OPENVINO],
        &[
            (&ORT, &["activation-uint8"]),
            (&TENSORRT, &["signed-types", "nothing-between"]),
        ],
    ),
    (
        "brevitas_w8a8",
        &[&OPENVINO],
        &[(&ORT, &["activation-uint8"]), (&PORTABLE, &["int8-levels"])],
    ),
];

#[test]
fn files_of_other_tools() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/checked");
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        FILES.len(),
        "files without a line here"
    );
    for (name, keeps, breaks) in FILES {
        let bytes = std::fs::read(folder.join(format!("{name}.onnx"))).unwrap();
        let (model, _) = read(bytes.into(), &NoExternalData).unwrap();
        for &target in *keeps {
            assert_eq!(found(&model, target), Vec::<String>::new(), "{name} for {}", target.name);
        }
        for (target, rules) in *breaks {
            let mut ids: Vec<&str> = check(&model, target, None).into_iter().map(|finding| finding.rule).collect();
            ids.dedup();
            assert_eq!(ids, *rules, "{name} for {}", target.name);
        }
    }
}
