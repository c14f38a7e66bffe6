//! The engine ort-cuda on a machine without a GPU, with stand-ins for CUDA's libraries (tests/cuda_stand_in): where ONNX Runtime's real CUDA
//! provider places nodes, and in which memory state lies. Nothing is computed, so no number is looked at but those that were set.
//!
//! `LSQC_CUDA_ORT` names the library of the wheel onnxruntime-gpu, `LSQC_CUDA_STAND_IN` the folder of the stand-ins. Without them the tests
//! are skipped, unless `LSQC_REQUIRE_CUDA_STAND_IN` is 1, as `tests/run` sets it.
#![cfg(target_os = "linux")]

mod common;
mod cuda_stand_in;
mod sample_support;
mod step_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cuda_stand_in::StandIn;
use lsqc::compiler::serialize;
use lsqc::engine::ort::{OrtEngine, OrtSession};
use lsqc::engine::{CpuFallback, Engine, EngineChoice, EngineError, LoadOptions, Session, Tensors, select};
use lsqc::model_file;
use lsqc::tune::{Gradients, StepGraph, dialect};
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Tensor;
use lsqc_passes::legalize::LEGALIZE;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::ops::{self, Gradient};
use lsqc_passes::pass::{NoEvaluator, Pass, PassCx, run_quietly};
use lsqc_passes::text;
use lsqc_passes::train::{DIFFERENTIATE, names};
use sample_support::with_loss;
use step_support::{Bench, options};

const BATCH: usize = 8;
const RATE: f32 = 0.01;

#[test]
fn every_node_of_a_step_runs_on_cuda() {
    let Some((_, cuda)) = engine() else { return };
    for fixture in ["resnet20", "mobilenet"] {
        let graph = step_graph(Bench::new(fixture, BATCH, RATE), &cuda);
        // The teacher is part of the step.
        let teacher = |node: &lsqc_passes::ir::Node| {
            let output = node.output(0).map(|value| graph.model.graph[value].name().to_owned());
            output.is_some_and(|name| name.starts_with("teacher/"))
        };
        assert!(graph.model.graph.nodes().any(|(_, node)| teacher(node)), "{fixture}");
        let placed = place(
            &cuda,
            &serialize(&graph.model, OwnOps::Refuse).unwrap(),
            &graph.bindings,
            CpuFallback::Refused,
        );
        let ops = placed.unwrap_or_else(|error| panic!("{fixture}: {error}"));
        println!("{fixture}: {} nodes", ops.len());
        assert!(ops.len() > 500, "{fixture}: {} nodes", ops.len());
        assert_eq!(copies(&ops), 0, "{fixture}");
    }
}

/// What the test above looks at would be seen: a node without a kernel is refused, or else runs on the CPU between two copies.
#[test]
fn a_node_that_cuda_lacks_is_seen() {
    let Some((_, cuda)) = engine() else { return };
    let model = |op: &str, result: &str| {
        let text = format!("g (float[2,3,3] x) => (float[{result}] y) {{ a = Relu (x) b = {op} (a) y = Relu (b) }}");
        serialize(&text::parse(&text).unwrap(), OwnOps::Refuse).unwrap()
    };
    let error = place(&cuda, &model("Det", "2"), &[], CpuFallback::Refused).expect_err("CUDA has no Det");
    assert!(matches!(error, EngineError::Refused { engine: "ort-cuda", .. }), "{error}");
    assert!(
        error.to_string().contains("fallback to CPU EP has been explicitly disabled"),
        "{error}"
    );
    let ops = place(&cuda, &model("Det", "2"), &[], CpuFallback::Allowed).unwrap();
    assert_eq!(copies(&ops), 2, "{ops:?}");
    let ops = place(&cuda, &model("Sigmoid", "2,3,3"), &[], CpuFallback::Refused);
    assert_eq!(ops.unwrap(), ["Relu", "Sigmoid", "Relu"]);
}

/// Ops of which ONNX Runtime has no CUDA kernel for some sample case, so that their gradients have nothing to run beside.
const WITHOUT_KERNEL: &[&str] = &[
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Celu",
    "ConvTranspose",
    "Cosh",
    "GlobalLpPool",
    "Mean",
    "MeanVarianceNormalization",
    "Sinh",
    "Tan",
];

#[test]
fn gradients_run_on_cuda() {
    let Some((_, cuda)) = engine() else { return };
    let (mut seen, mut beyond, mut without) = (0, Vec::new(), BTreeSet::new());
    for entry in ops::entries() {
        if !matches!(entry.gradient, Gradient::Rule(_)) {
            continue;
        }
        for sample in (entry.samples)() {
            seen += 1;
            let placed = |passes: &[&'static Pass]| {
                let (mut model, _) = with_loss(entry, &sample).unwrap();
                run_quietly(passes, &mut model, &mut PassCx::new(&NoEvaluator)).unwrap();
                let bytes = serialize(&model, OwnOps::Refuse).unwrap();
                place(&cuda, &bytes, &[], CpuFallback::Refused)
            };
            match placed(&[&INFER_TYPES, &DIFFERENTIATE, &LEGALIZE]) {
                Ok(ops) => assert_eq!(copies(&ops), 0, "{}, {}: {ops:?}", entry.name, sample.about),
                Err(_) if placed(&[&INFER_TYPES, &LEGALIZE]).is_err() => drop(without.insert(entry.name)),
                Err(error) => beyond.push(format!("{}, {}: {error}", entry.name, sample.about)),
            }
        }
    }
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
    assert_eq!(without.into_iter().collect::<Vec<_>>(), WITHOUT_KERNEL);
    assert!(seen > 50, "the op table has samples");
}

#[test]
fn state_stays_in_device_memory_and_swaps() {
    let Some((_, cuda)) = engine() else { return };
    let folder = mlp();
    let mut bench = Bench::open(&folder.path().join("model.onnxtxt"), BATCH, RATE);
    let (student, sites) = bench.quantized(&cuda.on_cpu());
    let graph = bench.assemble(&student, &sites, Gradients::Hidden, dialect(&cuda));
    for (engine, device) in [(cuda.on_cpu(), "Cpu"), (cuda, "Cuda")] {
        let load = LoadOptions {
            state: graph.bindings.clone(),
            ..options()
        };
        let mut session = engine
            .session(&serialize(&graph.model, OwnOps::Refuse).unwrap(), &load)
            .unwrap();
        assert!(session.state_places().is_empty());
        session.set_state(&graph.state).unwrap();
        assert_eq!(session.state().unwrap(), graph.state, "{device}: what is set is what is got");

        let even = addresses(&session, device, &graph);
        step(&mut session, &bench, 0);
        let odd = addresses(&session, device, &graph);
        assert!(even.is_disjoint(&odd), "{device}: a step writes other buffers than it reads");
        step(&mut session, &bench, 1);
        assert_eq!(addresses(&session, device, &graph), even, "{device}: the buffers swap");
        step(&mut session, &bench, 2);
        assert_eq!(addresses(&session, device, &graph), odd, "{device}: the buffers swap");
        let after = session.state().unwrap();
        assert_eq!(shapes(&after), shapes(&graph.state), "{device}");

        let other: Tensors = (graph.state.iter())
            .map(|(name, tensor)| (name.clone(), Tensor::new(tensor.shape(), vec![0.5f32; tensor.len()])))
            .collect();
        session.set_state(&other).unwrap();
        assert_eq!(session.state().unwrap(), other, "{device}: state can be set again");
        let error = session
            .set_state(&Tensors::new())
            .expect_err("all of it is missing")
            .to_string();
        assert!(error.contains("was not fed"), "{error}");
    }
}

#[test]
fn auto_takes_cuda_for_training_and_the_cpu_for_the_proof() {
    let Some((stand_in, _)) = engine() else { return };
    let selected = select(EngineChoice::Auto, Some(&stand_in.library)).unwrap();
    assert_eq!((selected.engine.name(), selected.judge.name()), ("ort-cuda", "ort"));
    assert!(
        selected.engine.version().ends_with("(CUDA, stand-in)"),
        "{}",
        selected.engine.version()
    );
    assert_eq!(
        (selected.engine.device_bytes(), selected.judge.device_bytes()),
        (Some(80 << 30), None)
    );
    assert_eq!(selected.reason, "ONNX Runtime was named by --ort-lib, and CUDA works");
    let selected = select(EngineChoice::AutoCpu, Some(&stand_in.library)).unwrap();
    assert_eq!((selected.engine.name(), selected.judge.name()), ("ort", "ort"));
    let selected = select(EngineChoice::Ort, Some(&stand_in.library)).unwrap();
    assert_eq!(selected.engine.name(), "ort");
}

/// The stand-ins, loaded into this process, and the engine on them.
fn engine() -> Option<(StandIn, OrtEngine)> {
    let stand_in = StandIn::at_hand()?;
    stand_in.load();
    let engine = OrtEngine::find(Some(&stand_in.library))
        .unwrap()
        .on_cuda()
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(engine.name(), "ort-cuda");
    Some((stand_in, engine))
}

/// The step of the network in 3 bits; calibrated on the CPU, where numbers are numbers.
fn step_graph(mut bench: Bench, cuda: &OrtEngine) -> StepGraph {
    let (student, sites) = bench.quantized(&cuda.on_cpu());
    bench.assemble(&student, &sites, Gradients::Hidden, dialect(cuda))
}

/// Starts a session, and gives the ops of its graph as it would run.
fn place(
    engine: &OrtEngine,
    model: &[u8],
    state: &[lsqc::engine::StateBinding],
    cpu_fallback: CpuFallback,
) -> Result<Vec<String>, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimized.onnx");
    let load = LoadOptions {
        state: state.to_vec(),
        cpu_fallback,
        optimized_model: Some(path.clone()),
        ..options()
    };
    engine.session(model, &load)?;
    let optimized = model_file::read(&path).unwrap().model;
    Ok(optimized.graph.nodes().map(|(_, node)| node.op.to_string()).collect())
}

/// Copies between the two memories: MemcpyFromHost, MemcpyToHost.
fn copies(ops: &[String]) -> usize {
    ops.iter().filter(|op| op.contains("Memcpy")).count()
}

/// A network without convolutions, the only kind whose step runs on the stand-ins, with data.
fn mlp() -> tempfile::TempDir {
    let text = "mlp (float[N,6] x) => (float[N,4] y) <float[6,8] v = normal(seed = 1, scale = 0.3), float[8] b = normal(seed = 2, scale = 0.1),
        float[8,4] w = normal(seed = 3, scale = 0.3)> { a = MatMul (x, v) c = Add (a, b) h = Relu (c) y = MatMul (h, w) }";
    let settings = "[data]\ntrain = \"data.npz\"\ntest = \"data.npz\"\n";
    let data = common::data("x", &[6], 4 * BATCH);
    common::folder(&[
        ("model.onnxtxt", text.as_bytes()),
        ("data.npz", &data),
        ("lsqc.toml", settings.as_bytes()),
    ])
}

/// The addresses of the state, all of which must be on `device`.
fn addresses(session: &OrtSession, device: &str, graph: &StepGraph) -> BTreeSet<usize> {
    let places = session.state_places();
    assert_eq!(places.len(), graph.bindings.len());
    for place in &places {
        assert_eq!(place.device, device, "{}", place.name);
    }
    let addresses: BTreeSet<usize> = places.iter().map(|place| place.address).collect();
    assert_eq!(addresses.len(), places.len(), "each has its own");
    addresses
}

/// One step; the loss is all that it gives.
fn step(session: &mut OrtSession, bench: &Bench, number: usize) {
    let results = session.step(&bench.feeds(number)).unwrap();
    assert_eq!(results.keys().collect::<Vec<_>>(), [names::LOSS]);
}

fn shapes(of: &Tensors) -> Vec<(&String, &[usize])> {
    of.iter().map(|(name, tensor)| (name, tensor.shape())).collect()
}

// ---- the command line ----

/// Runs `lsqc` on the small network in an environment that has nothing but `variables`.
fn quantize(engine: &str, library: Option<&Path>, variables: &[(&str, &str)]) -> std::process::Output {
    let data = common::data("x", &[3, 8, 8], 32);
    let folder = common::folder(&[("model.onnxtxt", common::SMALL.as_bytes()), ("data.npz", &data)]);
    let line = format!(
        "quantize model.onnxtxt --data data.npz --test-fraction 0.5 --bits 3 --threads 1 --steps 1 --batch 8 -o out.onnx --engine {engine}"
    );
    let mut command = common::command(folder.path(), &line);
    command.args(library.into_iter().flat_map(|library| [Path::new("--ort-lib"), library]));
    command.env_clear().envs(variables.iter().copied());
    let output = command.output().unwrap();
    let written = common::names(folder.path()).iter().any(|name| name.starts_with("out."));
    assert_eq!(written, output.status.success(), "files are written whole or not at all");
    output
}

const INSTALL: &str = "`pip install \"onnxruntime-gpu[cuda,cudnn]\"`";

#[test]
fn without_onnx_runtime_the_error_says_what_to_install() {
    let output = quantize("ort-cuda", None, &[]);
    // A machine may have an ONNX Runtime in its system folders; one without CUDA meets the next error.
    common::is_refusal(&output, "no ONNX Runtime", 5, &["ONNX Runtime", INSTALL]);
}

#[test]
fn a_cpu_build_has_no_cuda() {
    let Some(library) = std::env::var_os("ORT_DYLIB_PATH") else {
        assert_ne!(
            std::env::var("LSQC_REQUIRE_ORT").as_deref(),
            Ok("1"),
            "ORT_DYLIB_PATH is not set"
        );
        return println!("skipped: no ONNX Runtime");
    };
    let output = quantize("ort-cuda", Some(Path::new(&library)), &[]);
    let parts = [
        "does not run on CUDA: it was built for the CPU and has no CUDA provider (named by --ort-lib)",
        INSTALL,
        "pip uninstall onnxruntime",
    ];
    common::is_refusal(&output, "a CPU build", 5, &parts);
}

#[test]
fn what_cuda_lacks_is_named() {
    let Some(stand_in) = StandIn::at_hand() else { return };
    let library = Some(stand_in.library.as_path());
    let (toolkit, all) = (stand_in.toolkit(), stand_in.all());

    let output = quantize("ort-cuda", library, &[]);
    let parts = [
        "its CUDA provider does not load, since libcu",
        "is not found",
        INSTALL,
        "site-packages/nvidia/*/lib",
    ];
    common::is_refusal(&output, "no libraries of CUDA", 5, &parts);

    let output = quantize("ort-cuda", library, &[("LD_LIBRARY_PATH", &toolkit)]);
    let parts = [
        "its CUDA provider does not load, since libcuda.so.1 is not found",
        "NVIDIA's driver",
    ];
    common::is_refusal(&output, "no driver", 5, &parts);

    // The provider itself starts without cuDNN, and would fail at the first convolution.
    let without_cudnn = tempfile::tempdir().unwrap();
    for part in ["toolkit", "driver"] {
        for entry in fs::read_dir(stand_in.folder.join(part)).unwrap() {
            let from = entry.unwrap().path();
            let name = from.file_name().unwrap().to_str().unwrap();
            if !name.contains("cudnn") {
                fs::copy(&from, without_cudnn.path().join(name)).unwrap();
            }
        }
    }
    let path = without_cudnn.path().to_str().unwrap();
    let output = quantize("ort-cuda", library, &[("LD_LIBRARY_PATH", path)]);
    let parts = ["since libcudnn.so.9 is not found", INSTALL];
    common::is_refusal(&output, "no cuDNN", 5, &parts);

    let variables = [("LD_LIBRARY_PATH", all.as_str()), ("LSQC_STAND_IN_DEVICES", "0")];
    let output = quantize("ort-cuda", library, &variables);
    let parts = [
        "no CUDA-capable device is detected (named by --ort-lib)",
        "CUDA_VISIBLE_DEVICES",
    ];
    common::is_refusal(&output, "no device", 5, &parts);

    let output = quantize("auto", library, &variables);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("(CPU) from") && text.contains("; not on CUDA: "), "{text}");
    assert!(text.contains("no CUDA-capable device is detected"), "{text}");
}

#[test]
fn libraries_of_nvidias_wheels_are_found() {
    let Some(stand_in) = StandIn::at_hand() else { return };
    // Site-packages as pip leaves them; links would lead back to the folder of the wheel, which has no libraries of CUDA beside it.
    let packages = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let capi = packages.path().join("onnxruntime/capi");
    let wheel = packages.path().join("nvidia/cu13/lib");
    for folder in [&capi, &wheel] {
        fs::create_dir_all(folder).unwrap();
    }
    for entry in fs::read_dir(stand_in.library.parent().unwrap()).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_str().unwrap();
        if name.starts_with("libonnxruntime") && !name.contains("tensorrt") {
            let to = capi.join(name);
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(|_| ()))
                .unwrap();
        }
    }
    for entry in fs::read_dir(stand_in.folder.join("toolkit")).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, wheel.join(from.file_name().unwrap())).unwrap();
    }
    let library = capi.join(stand_in.library.file_name().unwrap());
    // The driver is never in a wheel.
    let driver = stand_in.folder.join("driver");
    let output = quantize("ort-cuda", Some(&library), &[("LD_LIBRARY_PATH", driver.to_str().unwrap())]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.starts_with("engine: ONNX Runtime ") && text.contains("(CUDA, stand-in) from "),
        "{text}"
    );
    // As far as stand-ins go: cuDNN's has no algorithm for a convolution.
    common::is_refusal(
        &output,
        "a convolution",
        5,
        &["the engine ort-cuda failed: ", "Conv", "CUDNN_FE failure"],
    );
}
