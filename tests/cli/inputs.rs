//! What `quantize` makes of a model's inputs: flags that settle them, batches that the exporter fixed, inputs without an axis for the batch;
//! and of what stands in the way of quantization: branches, recurrent layers, weights that are quantized already.

use std::fs;
use std::path::Path;

use crate::common::commands::{QUICK, changed, json, quick, small, text};
use crate::common::{lsqc, noise, refuses, unlabelled};
use serde_json::Value;

fn warnings(report: &Value) -> String {
    let warnings = report["warnings"].as_array().unwrap().iter();
    warnings
        .map(|warning| warning.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The layers of a report that have a weight, without the quantizers that stand elsewhere.
fn weighted(report: &Value) -> Vec<&Value> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers.filter(|layer| layer["weights"].is_object()).collect()
}

fn write(folder: &Path, model: &str) {
    fs::write(folder.join("model.onnxtxt"), model).unwrap();
}

/// The small model with a state `[2, B, 6]` that is added to its features, and data for one sample at a time.
fn with_state(batch: &str) -> String {
    changed(&[
        ("(float[N,3,8,8] x)", &format!("(float[N,3,8,8] x, float[2,{batch},6] s)")),
        (
            "[fc] y = Gemm <transB = 1> (f, v)",
            "[zero] zero = Constant <value = int64[1] {0}> ()\n  [sum] t = ReduceSum <keepdims = 0> (s, zero)\n  [add] a = Add (f, t)\n  [fc] y = Gemm <transB = 1> (a, v)",
        ),
    ])
}

#[test]
fn a_fixed_batch_is_opened_and_kept_in_the_file() {
    let small = small();
    let fixed = [
        ("float[N,3,8,8] x", "float[1,3,8,8] x"),
        ("float[N,4] y", "float[1,4] y"),
        (
            "[flat] f = Flatten (p)",
            "[to] to = Constant <value = int64[2] {1, 6}> ()\n  [flat] f = Reshape (p, to)",
        ),
    ];
    write(small.path(), &changed(&fixed));
    let report = quick(small.path(), "");
    assert_eq!(report["settings"]["batch"], 8);
    assert!(
        warnings(&report).contains("input 'x' has a fixed batch of 1: it is calibrated"),
        "{report}"
    );
    let written = json(small.path(), "inspect out.onnx");
    let shape = |port: &str| written[port][0]["shape"].to_string();
    assert_eq!(
        (shape("inputs"), shape("outputs")),
        ("[1,3,8,8]".to_owned(), "[1,4]".to_owned())
    );
    assert!(json(small.path(), "inspect model.onnxtxt")["refusal"].is_null());
}

#[test]
fn a_batch_whose_samples_see_each_other_is_not_opened() {
    let small = small();
    // 1/n stands for a number that the exporter computed: alone a sample is divided by 1.
    let mixed = [
        ("float[N,3,8,8] x", "float[1,3,8,8] x"),
        ("float[N,4] y", "float[1,4] y"),
        (
            "[fc] y = Gemm <transB = 1> (f, v)",
            "[fc] g = Gemm <transB = 1> (f, v)\n  [zero] zero = Constant <value = int64[1] {0}> ()\n  [mean] m = ReduceSum <keepdims = 1> (g, zero)\n  [add] y = Add (g, m)",
        ),
    ];
    write(small.path(), &changed(&mixed));
    let report = quick(small.path(), "");
    assert_eq!(report["settings"]["batch"], 1);
    let said = warnings(&report);
    assert!(
        said.contains("cannot be opened (in a batch 'y' is another than by itself)"),
        "{said}"
    );
    assert_eq!(report["settings"]["batch_norm"], "frozen");
}

#[test]
fn a_fixed_batch_of_several_that_cannot_be_opened_is_refused() {
    let small = small();
    let fixed = [
        ("float[N,3,8,8] x", "float[2,3,8,8] x"),
        ("float[N,4] y", "float[2,4] y"),
        ("float[4,6] v", "float[2,4] k = normal(seed = 4, scale = 1), float[4,6] v"),
        (
            "[fc] y = Gemm <transB = 1> (f, v)",
            "[fc] g = Gemm <transB = 1> (f, v)\n  [add] y = Add (g, k)",
        ),
    ];
    write(small.path(), &changed(&fixed));
    refuses(
        small.path(),
        QUICK,
        4,
        &[
            "input 'x' has a fixed batch of 2, which cannot be opened",
            "'y'",
            "dynamic batch axis",
        ],
    );
}

#[test]
fn inputs_without_an_axis_for_the_batch_go_one_by_one() {
    let small = small();
    write(small.path(), &with_state("N"));
    let fields = [("x", &[3, 8, 8][..], noise(16 * 192)), ("s", &[2, 1, 6][..], noise(16 * 12))];
    fs::write(small.path().join("data.npz"), unlabelled(&fields, 16)).unwrap();
    let report = quick(small.path(), "");
    assert_eq!(report["settings"]["batch"], 1);
    assert!(
        warnings(&report).contains("input 's' is float[2,N,6], without an axis for the batch"),
        "{report}"
    );
    text(&lsqc(
        small.path(),
        "eval model.onnxtxt --against out.onnx --data data.npz --engine tract",
    ));
}

#[test]
fn a_fixed_input_is_a_constant_of_the_extents_of_others() {
    let small = small();
    write(small.path(), &with_state("N"));
    let report = quick(small.path(), "--fix-input s=0.5");
    assert_eq!(report["settings"]["batch"], 8);
    let written = json(small.path(), "inspect out.onnx");
    let names: Vec<_> = written["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|input| input["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["x"]);
}

#[test]
fn shapes_and_axes_are_settled_by_flags_and_settings() {
    let small = small();
    write(small.path(), &changed(&[("float[N,3,8,8] x", "float[N,3,H,W] x")]));
    let counted = |flags: &str| json(small.path(), &format!("inspect model.onnxtxt {flags}"))["multiply_adds"]["total"].clone();
    assert!(counted("").is_null());
    assert_eq!(counted("--shape x=Nx3x8x8"), 36 * 6 * 27 + 24);
    assert_eq!(counted("--axis H=8 --axis W=8"), 36 * 6 * 27 + 24);
    assert_eq!(counted("--shape x=N,3,H,8 --axis H=8"), 36 * 6 * 27 + 24);
    fs::write(
        small.path().join("lsqc.toml"),
        "[model]\nshapes = { x = \"Nx3xHx8\" }\naxes = { H = 10 }\n",
    )
    .unwrap();
    assert_eq!(counted(""), 8 * 6 * 6 * 27 + 24);
    assert_eq!(counted("--axis H=8"), 36 * 6 * 27 + 24);
}

#[test]
fn wrong_inputs_are_refused() {
    let small = small();
    write(small.path(), &with_state("B"));
    let cases: &[(&str, &[&str])] = &[
        (
            "--shape z=1x3",
            &["--shape z: the model has no such input", "its inputs are x, s"],
        ),
        (
            "--shape x=1x3",
            &["--shape x: 2 extents are given, and the input is float[N,3,8,8]"],
        ),
        ("--shape x=1x0x8x8", &["no shape: write 1x3x224x224"]),
        (
            "--axis C=3",
            &["--axis C: no input has an axis of that name", "the named axes are N, B"],
        ),
        ("--axis N=0", &["--axis"]),
        ("--fix-input z=1", &["--fix-input z: the model has no such input"]),
        (
            "--fix-input s=0",
            &["--fix-input s: no other input has the axis B", "--axis NAME=SIZE"],
        ),
        ("--fix-input s=loud", &["\"loud\" is no number"]),
        ("--axis N=1 --axis B=1 --fix-input s=0 --fix-input x=0", &["no input is left"]),
    ];
    for (flags, parts) in cases {
        refuses(
            small.path(),
            &format!("quantize model.onnxtxt --engine tract {flags}"),
            2,
            parts,
        );
    }
    let ids = "g (int64[N] i, float[N,4] x) => (float[N,4] y) { y = Relu (x) }";
    write(small.path(), ids);
    refuses(
        small.path(),
        "inspect model.onnxtxt --axis N=2 --fix-input i=0.5",
        2,
        &["0.5 is no int64"],
    );
}

/// The branch that a fixed input decides on is quantized; one that is decided at run time stays as it is, and the rest is quantized.
#[test]
fn branches() {
    let branch = [
        ("(float[N,3,8,8] x)", "(float[N,3,8,8] x, bool fast)"),
        (
            "[flat] f = Flatten (p)",
            "[flat] e = Flatten (p)\n  [if] f = If <then_branch = yes () => (a) { [inner] a = MatMul (e, u) }, else_branch = no () => (b) { b = Relu (e) }> (fast)",
        ),
        ("float[4,6] v", "float[6,6] u = normal(seed = 5, scale = 0.5), float[4,6] v"),
    ];
    let small = small();
    write(small.path(), &changed(&branch));
    let layers = |report: &Value| -> Vec<String> {
        let layers = report["layers"].as_array().unwrap().iter();
        // Without weights it is an addition, or the like.
        layers
            .filter(|layer| layer["weights"].is_object())
            .map(|layer| layer["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(layers(&quick(small.path(), "--fix-input fast=1")), ["conv", "inner", "fc"]);
    assert_eq!(layers(&quick(small.path(), "--fix-input fast=0")), ["conv", "fc"]);
    let computed = [
        ("(float[N,3,8,8] x, bool fast)", "(float[N,3,8,8] x)"),
        (
            "[flat] e",
            "[most] top = ReduceMax <keepdims = 0> (x)\n  [zero] null = Constant <value = float {0}> ()\n  [over] fast = Greater (top, null)\n  [flat] e",
        ),
    ];
    let open = changed(&branch);
    write(
        small.path(),
        &computed.iter().fold(open, |model, (from, to)| model.replace(from, to)),
    );
    // tract takes no second If, which the teacher of distillation would have.
    let report = quick(small.path(), "--loss ce");
    assert_eq!(layers(&report), ["conv", "fc"]);
    assert_eq!(report["not_quantized"][0]["name"], "inner");
    assert!(
        report["not_quantized"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("in a branch or a loop"),
        "{report}"
    );
}

/// Behind a recurrent layer there is no gradient: what stands before it keeps 8 bits and the step of least error, and the report says so.
#[test]
fn layers_that_no_gradient_reaches_are_calibrated() {
    let recurrent = [
        (
            "[flat] f = Flatten (p)",
            "[to] to = Constant <value = int64[3] {1, -1, 6}> ()\n  [steps] e = Reshape (q, to)\n  [gru] \"\", h = GRU <hidden_size = 6> (e, gw, gr)\n  [last] zero = Constant <value = int64[1] {0}> ()\n  [one] f = Squeeze (h, zero)",
        ),
        (
            "[pool] p = GlobalAveragePool (r)",
            "[mid] m = Conv (r, w2)\n  [act] n = Relu (m)\n  [late] o = Conv (n, w2)\n  [pool] q = GlobalAveragePool (o)",
        ),
        (
            "float[4,6] v",
            "float[6,6,1,1] w2 = normal(seed = 6, scale = 0.5), float[1,18,6] gw = normal(seed = 7, scale = 0.5), float[1,18,6] gr = normal(seed = 8, scale = 0.5), float[4,6] v",
        ),
    ];
    let small = small();
    write(small.path(), &changed(&recurrent));
    let report = quick(small.path(), "--bits 3");
    let said = warnings(&report);
    assert!(
        said.contains("no gradient reaches 3 of 4 layers ('gru': gradients stop here"),
        "{said}"
    );
    assert!(said.contains("conv, mid, late"), "{said}");
    for layer in weighted(&report) {
        assert_eq!(layer["weights"]["bits"], 8, "{layer}");
    }
}

/// Weights that another tool stored as levels are left as they are.
#[test]
fn what_is_quantized_is_not_quantized_again() {
    let dequantized = [
        (
            "float[4,6] v = normal(seed = 3, scale = 0.5)",
            "int8[4,6] v8 = fill(3), float vs = {0.1}",
        ),
        ("[fc] y", "[dq] v = DequantizeLinear (v8, vs)\n  [fc] y"),
    ];
    let cast = [
        (
            "float[4,6] v = normal(seed = 3, scale = 0.5)",
            "int8[4,6] v8 = fill(3), float vs = {0.1}",
        ),
        (
            "[fc] y",
            "[cast] vf = Cast <to = 1> (v8)\n  [scale] v = Mul (vf, vs)\n  [fc] y",
        ),
    ];
    for pieces in [&dequantized, &cast] {
        let small = small();
        write(small.path(), &changed(pieces));
        let report = quick(small.path(), "");
        assert_eq!(weighted(&report).len(), 1);
        assert_eq!(
            report["not_quantized"][0]["reason"],
            "its weight is quantized already, and is not quantized twice"
        );
        let only = "g (float[N,6] f) => (float[N,4] y) <int8[4,6] v8 = fill(3), float vs = {0.1}>";
        let body = match pieces[1].1.contains("Cast") {
            true => "vf = Cast <to = 1> (v8)\n v = Mul (vf, vs)",
            false => "v = DequantizeLinear (v8, vs)",
        };
        write(
            small.path(),
            &format!("<ir_version: 8, opset_import: [\"\" : 17]> {only} {{ {body}\n y = Gemm <transB = 1> (f, v) }}"),
        );
        refuses(
            small.path(),
            "quantize model.onnxtxt --engine tract",
            4,
            &["the model is quantized already", "help:"],
        );
    }
}

/// A model in half precision is trained in single precision, and its file has the inputs and outputs that the model had.
#[test]
fn half_precision_is_widened_and_comes_back() {
    for dtype in ["float16", "bfloat16"] {
        let small = small();
        write(small.path(), &changed(&[("float[", &format!("{dtype}["))]));
        let report = quick(small.path(), "--bits 3");
        assert!(
            warnings(&report).contains(&format!("the model computes in {dtype}")),
            "{report}"
        );
        assert_eq!(weighted(&report).len(), 2);
        let found = json(small.path(), "inspect out.onnx");
        for border in [&found["inputs"][0], &found["outputs"][0]] {
            assert_eq!(border["dtype"], dtype);
        }
    }
    let small = small();
    write(small.path(), &changed(&[("float[", "bfloat16[")]));
    refuses(
        small.path(),
        &format!("{QUICK} --deploy handover"),
        2,
        &["--deploy", "'x'", "bfloat16", "numpy", "leave --deploy out"],
    );
    // tract computes in float16 too: what it gives of the file is what it gives of the model, but for 8 bits.
    write(small.path(), &changed(&[("float[", "float16[")]));
    quick(small.path(), "--bits 8 --lr 1e-6 --deploy handover");
    let loss = |file: &str| {
        let line = format!("eval {file} --data data.npz --engine tract");
        json(small.path(), &line)["model"]["metric"]["loss"].as_f64().unwrap()
    };
    let (file, model) = (loss("handover/model.onnx"), loss("model.onnxtxt"));
    assert!((file - model).abs() < 0.02 * model, "{file} {model}");
}
