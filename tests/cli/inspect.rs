//! `lsqc inspect`: what it prints, that it shows what `quantize` does, and its refusals.

use std::fs;
use std::path::Path;

use crate::common::commands::{changed, json, quick, small, text};
use crate::common::{SMALL, data, folder, lsqc, names, refuses};
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn inspect_counts() {
    let small = small();
    let before = names(small.path());
    let found = json(small.path(), "inspect model.onnxtxt --bits w3a4");
    assert_eq!(names(small.path()), before);
    let layers = found["layers"].as_array().unwrap();
    let shown: Vec<_> = layers
        .iter()
        .map(|layer| {
            let number = |key: &str| layer[key].as_u64().unwrap();
            let words = (layer["name"].as_str().unwrap(), layer["op"].as_str().unwrap());
            (words, number("weight_bits"), number("parameters"), number("multiply_adds"))
        })
        .collect();
    // 6×6 positions of 6 channels, each 3·3·3 products; 4 classes of 6.
    assert_eq!(
        shown,
        [(("conv", "Conv"), 8, 6 * 27 + 6, 36 * 6 * 27), (("fc", "Gemm"), 8, 24, 24)]
    );
    assert_eq!(found["multiply_adds"]["total"], 36 * 6 * 27 + 24);
    assert_eq!(found["multiply_adds"]["share"], 1.0);
    assert_eq!(found["bits"], "w3a4");
    assert_eq!(layers[0]["gradient"]["reaches"], true);
    assert!(found["refusal"].is_null() && found["quantized_already"].is_null());
}

/// What `inspect` shows is what `quantize` reports, with bits and rules from lsqc.toml.
#[test]
fn inspect_shows_what_quantize_does() {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join("tests/data").join(name)).unwrap();
    for (model, shape, rules, flags) in [
        (SMALL.to_owned(), &[3, 8, 8][..], "fc = \"w5a6\"", ""),
        (
            read("preact.onnxtxt"),
            &[3, 8, 8],
            "\"*c2\" = \"float\"",
            "--placement shared",
        ),
        (read("channels_last.onnxtxt"), &[9, 9, 3], "\"*c3\" = 4", "--placement paper"),
        (read("gammas.onnxtxt"), &[3, 8, 8], "\"*c1\" = 2", "--bits 4"),
    ] {
        let toml = format!("[quantize]\nbits = 3\nlayers = {{ {rules} }}\n");
        let folder = folder(&[
            ("model.onnxtxt", model.as_bytes()),
            ("data.npz", &data("x", shape, 32)),
            ("lsqc.toml", toml.as_bytes()),
        ]);
        let report = quick(folder.path(), flags);
        let found = json(folder.path(), &format!("inspect model.onnxtxt {flags}"));
        let of_report: Vec<_> = report["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|layer| layer["weights"].is_object())
            .map(|layer| {
                (
                    layer["name"].clone(),
                    layer["weights"]["bits"].clone(),
                    layer["activations"][0]["bits"].clone(),
                )
            })
            .collect();
        let of_inspect: Vec<_> = found["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| {
                (
                    layer["name"].clone(),
                    layer["weight_bits"].clone(),
                    layer["activation_bits"].clone(),
                )
            })
            .collect();
        assert_eq!(of_inspect, of_report, "{rules} {flags}");
        // What quantize says of single sites, inspect says too.
        for site in report["not_quantized"].as_array().unwrap() {
            let sites = found["not_quantized"].as_array().unwrap();
            let same = |other: &&Value| other["name"] == site["name"] && other["reason"] == site["reason"];
            assert!(sites.iter().any(|other| same(&other)), "{site}\n{found}");
        }
        let untrained = |note: &Value| {
            note["message"]
                .as_str()
                .is_some_and(|text| text.ends_with("no gradient reaches it"))
        };
        assert_eq!(
            found.to_string().contains("\"reaches\":false"),
            report["notes"].as_array().unwrap().iter().any(untrained),
            "{rules} {flags}"
        );
    }
}

#[test]
fn inspect_says_why() {
    let preact = fs::read_to_string(Path::new(ROOT).join("tests/data/preact.onnxtxt")).unwrap();
    // A pool that lets no gradient back.
    let stopped = preact.replace(
        "c2 = Conv (l, w2)",
        "lp = LpPool <kernel_shape = [1, 1]> (l)  c2 = Conv (lp, w2)",
    );
    assert_ne!(stopped, preact);
    let folder = folder(&[("model.onnxtxt", stopped.as_bytes())]);
    let found = json(folder.path(), "inspect model.onnxtxt --bits 3");
    let of = |list: &str, name: &str| {
        let list = found[list].as_array().unwrap();
        list.iter().find(|site| site["name"] == name).unwrap().clone()
    };
    assert_eq!(
        of("batch_norms", "BatchNormalization -> n0")["reason"],
        "the result of the op before it has other uses"
    );
    let reach = &of("layers", "Conv -> c0")["gradient"];
    assert_eq!(reach["reaches"], false);
    assert!(reach["reason"].as_str().unwrap().contains("LpPool -> lp"), "{reach}");
    assert_eq!(of("layers", "Conv -> c2")["gradient"]["reaches"], true);
    // Each of its 6·8·8 elements goes into 5·2·2 products.
    assert_eq!(of("not_quantized", "ConvTranspose -> ct")["multiply_adds"], 6 * 64 * 20);
    assert!(found["multiply_adds"]["share"].as_f64().unwrap() < 1.0);
    let text = text(&lsqc(folder.path(), "inspect model.onnxtxt"));
    for part in [
        "0 of 1 fold exactly",
        "training reaches 2 of 4 layers",
        "not trained: Conv -> c0",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn inspect_of_models_that_quantize_refuses() {
    let small = small();
    let write = |name: &str, pieces: &[(&str, &str)]| fs::write(small.path().join(name), changed(pieces)).unwrap();
    write("open.onnxtxt", &[("float[N,3,8,8]", "float[N,3,H,W]")]);
    let open = json(small.path(), "inspect open.onnxtxt");
    let because = open["multiply_adds"]["unknown_because"].as_str().unwrap();
    assert!(because.contains("'x'") && because.contains("H, W"), "{because}");
    assert!(open["multiply_adds"]["total"].is_null() && open["layers"][0]["multiply_adds"].is_null());
    assert!(open["gradients_unknown"].is_string() && open["layers"][0]["gradient"].is_null());
    let shown = text(&lsqc(small.path(), "inspect open.onnxtxt"));
    assert!(shown.contains("unknown (input 'x' is symbolic"), "{shown}");

    write(
        "fixed.onnxtxt",
        &[("float[N,3,8,8]", "float[2,3,8,8]"), ("float[N,4]", "float[2,4]")],
    );
    let fixed = json(small.path(), "inspect fixed.onnxtxt");
    assert!(fixed["refusal"].is_null(), "{fixed}");
    assert!(fixed["warnings"][0].as_str().unwrap().contains("fixed batch of 2"), "{fixed}");
    assert_eq!(fixed["multiply_adds"]["total"], 36 * 6 * 27 + 24);

    let relu = "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }";
    fs::write(small.path().join("relu.onnxtxt"), relu).unwrap();
    let nothing = json(small.path(), "inspect relu.onnxtxt");
    assert!(
        nothing["refusal"].as_str().unwrap().contains("nothing to quantize"),
        "{nothing}"
    );

    quick(small.path(), "--bits 3");
    let already = json(small.path(), "inspect out.onnx");
    assert_eq!(already["quantized_already"]["bits"], "w3a3");
    let shown = text(&lsqc(small.path(), "inspect out.onnx"));
    assert!(
        shown.contains("quantized already, by lsqc") && shown.contains("QuantizeLinear"),
        "{shown}"
    );
}

#[test]
fn inspect_refuses() {
    let small = small();
    let dir = small.path();
    refuses(dir, "inspect none.onnx", 4, &["model none.onnx is not there", "help:"]);
    refuses(dir, "inspect model.onnxtxt --bits 9", 2, &["--bits", "9 bits"]);
    refuses(dir, "inspect model.onnxtxt --config none.toml", 2, &["none.toml"]);
    refuses(dir, "inspect data.npz", 4, &["data.npz", "help:"]);
    let nan = changed(&[("b = normal(seed = 2, scale = 0.1)", "b = fill(nan)")]);
    fs::write(dir.join("nan.onnxtxt"), nan).unwrap();
    refuses(dir, "inspect nan.onnxtxt", 4, &["nan.onnxtxt", "'b'", "NaN"]);
    let old = changed(&[("\"\" : 17", "\"\" : 99")]);
    fs::write(dir.join("new.onnxtxt"), old).unwrap();
    refuses(dir, "inspect new.onnxtxt", 4, &["new.onnxtxt", "99", "help:"]);
    fs::write(dir.join("lsqc.toml"), "[quantize]\nlayers = { \"/no/*\" = 3 }\n").unwrap();
    refuses(
        dir,
        "inspect model.onnxtxt",
        2,
        &["lsqc.toml", "/no/*", "matches no layer", "conv"],
    );
}

/// The layers of a network with a residual addition that run in integers, and why the others do not.
fn fits(flags: &str) -> Vec<(String, Option<String>)> {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join("tests/data").join(name)).unwrap();
    let folder = folder(&[("model.onnxtxt", read("preact.onnxtxt").as_bytes())]);
    let found = json(folder.path(), &format!("inspect model.onnxtxt --bits 4 {flags}"));
    let layers = found["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| {
            let reason = layer["float_reason"].as_str().map(str::to_owned);
            assert_eq!(layer["integers"].as_bool().unwrap(), reason.is_none());
            (layer["name"].as_str().unwrap().to_owned(), reason)
        })
        .collect()
}

#[test]
fn what_runs_in_floats_is_said_with_its_reason() {
    let paper = fits("--placement paper");
    let floats: Vec<_> = paper.iter().filter_map(|(_, reason)| reason.as_deref()).collect();
    assert!(
        floats
            .iter()
            .any(|reason| reason.contains("(Add) takes its result in floats")),
        "{floats:?}"
    );
    assert!(
        fits("--target openvino").iter().all(|(_, reason)| reason.is_none()),
        "OpenVINO takes floats from convolutions"
    );
}

/// ONNX Runtime's own graph has in integers what `inspect` says.
#[test]
fn the_runtime_confirms() {
    if crate::common::ort().is_none() {
        return;
    }
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join("tests/data").join(name)).unwrap();
    for model in ["preact.onnxtxt", "gammas.onnxtxt"] {
        let folder = folder(&[("model.onnxtxt", read(model).as_bytes())]);
        for placement in ["q8", "shared", "paper"] {
            let found = json(
                folder.path(),
                &format!("inspect model.onnxtxt --bits 4 --placement {placement} --confirm"),
            );
            let layers = found["layers"].as_array().unwrap();
            let integers = layers.iter().filter(|layer| layer["integers"] == true).count();
            assert_eq!(found["confirmation"]["integer_layers"], integers, "{model} {placement}");
            assert_eq!(found["confirmation"]["differ"], Value::Array(vec![]), "{model} {placement}");
        }
    }
}

/// OpenVINO's ops are in integers where `inspect` says so.
#[test]
fn openvino_confirms() {
    if !crate::common::has_openvino() {
        return;
    }
    let data = Path::new(ROOT).join("tests/data");
    let fixtures = Path::new(ROOT).join("fixtures");
    let models = [
        (fixtures.join("fashion-resnet20/model.onnx"), ["--bits 8", "--bits 4"]),
        (fixtures.join("fashion-mobilenet/model.onnx"), ["--bits 8", "--bits 4"]),
        (data.join("attention.onnxtxt"), ["--bits 8 --per-channel", "--bits 4"]),
        (data.join("gammas.onnxtxt"), ["--bits 4 --no-vnni", "--placement paper"]),
        // A ConvTranspose stays in floats, and what it gives goes on into a layer.
        (data.join("preact.onnxtxt"), ["--bits 4", "--placement paper"]),
    ];
    for (model, settings) in models {
        for setting in settings {
            let line = format!("inspect {} --target openvino {setting} --confirm", model.display());
            let (all, integers) = confirmed(&data, &line);
            assert_eq!(all, integers, "{line}");
        }
    }
}

/// OpenVINO takes no second operand of 8 bits without a sign in integers. So it gets a sign where its source has none; and where the settings
/// say otherwise, OpenVINO computes the product in floats, and `inspect` says so.
#[test]
fn openvino_shows_a_product_in_floats() {
    if !crate::common::has_openvino() {
        return;
    }
    let model = "<ir_version: 8, opset_import: [\"\" : 17]>
        g (float[N,4,8] x) => (float[N,4,4] y)
        <float[8,8] wa = normal(seed = 1, scale = 0.4), float[8,8] wb = normal(seed = 2, scale = 0.4)>
        {
          [a] a0 = MatMul (x, wa)  a1 = Relu (a0)
          [b] b0 = MatMul (x, wb)  b1 = Relu (b0)  b2 = Transpose <perm = [0, 2, 1]> (b1)
          [product] m = MatMul (a1, b2)
          y = Mul (m, m)
        }";
    let folder = folder(&[("model.onnxtxt", model.as_bytes())]);
    let line = "inspect model.onnxtxt --target openvino --bits 8 --confirm";
    assert_eq!(confirmed(folder.path(), line), (3, 3));
    fs::write(
        folder.path().join("lsqc.toml"),
        "[quantize]\nlayers = { product = \"w8a8u\" }\n",
    )
    .unwrap();
    assert_eq!(confirmed(folder.path(), line), (3, 2));
    let shown = text(&lsqc(folder.path(), line));
    assert!(
        shown.contains("in floats: product: 8 bits without a sign are asked for"),
        "{shown}"
    );
}

/// OpenVINO moves the strides of a convolution whose kernel is a point away, unless something else takes its input: then it runs in floats.
#[test]
fn openvino_moves_strides() {
    if !crate::common::has_openvino() {
        return;
    }
    let model = |name: &str, taken: &str| {
        let model = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>
            g (float[N,3,16,16] x) => (float[N,4] y)
            <float[8,3,3,3] w = normal(seed = 1, scale = 0.3), float[8,8,1,1] p = normal(seed = 2, scale = 0.4),
             float[8,8,1,1] q = normal(seed = 5, scale = 0.4), float[8,8,3,3] k = normal(seed = 3, scale = 0.2), float[8,4] v = normal(seed = 4)>
            {{
              c = Conv (x, w)  r = Relu (c)
              [point] a = Conv <strides = [2, 2]> (r, p)
              [beside] b = Conv <{taken}
              s = Add (a, b)  m = GlobalAveragePool (s)  f = Flatten (m)  y = MatMul (f, v)
            }}"
        );
        (name.to_owned(), model)
    };
    let models = [
        model("moved.onnxtxt", "strides = [2, 2]> (r, q)"),
        model("kept.onnxtxt", "strides = [2, 2], pads = [1, 1, 1, 1]> (r, k)"),
    ];
    let files: Vec<(&str, &[u8])> = models.iter().map(|(name, model)| (name.as_str(), model.as_bytes())).collect();
    let folder = folder(&files);
    for bits in [4, 8] {
        for (name, integers) in [("moved", 2), ("kept", 4)] {
            let line = format!("inspect {name}.onnxtxt --target openvino --bits {bits} --confirm");
            assert_eq!(confirmed(folder.path(), &line), (4, integers), "{line}");
        }
    }
}

/// OpenVINO 2026.4 crashes on this one. Whatever it does, lsqc ends with a word.
#[test]
fn openvino_crashes() {
    if !crate::common::has_openvino() {
        return;
    }
    let model = "<ir_version: 8, opset_import: [\"\" : 17]>
        g (float[N,3,16,16] x) => (float[N,4] y)
        <float[8,3,3,3] w = normal(seed = 1, scale = 0.4), float[8,8,1,1] a = normal(seed = 2, scale = 0.4),
         float[8,8,1,1] b = normal(seed = 3, scale = 0.4), float[16,4] v = normal(seed = 8)>
        {
          c = Conv (x, w)  r = Relu (c)
          c0 = Conv <strides = [2, 2]> (r, a)  p0 = GlobalAveragePool (c0)
          c1 = Conv (r, b)  p1 = GlobalAveragePool (c1)
          p = Concat <axis = 1> (p0, p1)  f = Flatten (p)  y = MatMul (f, v)
        }";
    let folder = folder(&[("model.onnxtxt", model.as_bytes())]);
    let line = "inspect model.onnxtxt --target openvino --bits 4 --confirm --quiet";
    let output = lsqc(folder.path(), line);
    if output.status.code() != Some(0) {
        crate::common::is_refusal(&output, line, 5, &["OpenVINO crashed", "help:"]);
    }
}

/// How many layers and products there are, and how many of them the runtime computes in integers: it shows all, and they are those of which
/// `inspect` says so.
fn confirmed(folder: &Path, line: &str) -> (usize, usize) {
    let found = json(folder, line);
    let of = |list: &str| found[list].as_array().unwrap().clone();
    let all = [of("layers"), of("products")].concat();
    let integers = all.iter().filter(|layer| layer["integers"] == true).count();
    let confirmation = &found["confirmation"];
    assert!(confirmation["engine"].as_str().unwrap().contains("OpenVINO"), "{line}");
    assert_eq!(confirmation["integer_layers"], integers, "{line}");
    for list in ["differ", "hidden"] {
        assert_eq!(confirmation[list], Value::Array(vec![]), "{line} {list}");
    }
    (all.len(), integers)
}

/// The result keeps the model's operator set, which the oldest runtime must have.
#[test]
fn a_model_too_new_for_the_oldest_runtime() {
    let small = small();
    let line = "inspect model.onnxtxt --runtime-min 1.6";
    let output = lsqc(small.path(), line);
    let parts = ["operator set", "ONNX Runtime 1.6 does not load", "--runtime-min 1."];
    crate::common::is_refusal(&output, line, 2, &parts);
    let fine = lsqc(small.path(), "inspect model.onnxtxt --runtime-min 1.24");
    assert_eq!(fine.status.code(), Some(0));
}
