//! The two engines give the same numbers, from one run and over many steps. The models are made by tests/data/make_engine_models.py.

use std::path::{Path, PathBuf};

use lsqc::engine::ort::OrtEngine;
use lsqc::engine::tract::TractEngine;
use lsqc::engine::{Engine, EngineError, LoadOptions, QdqFusion, StateBinding, Tensors};
use lsqc_passes::ir::{DType, Tensor};

/// Float32 sums of at most some hundred products of numbers near 1, taken in another order: tens of units in the last place.
const SINGLE_TOLERANCE: f64 = 1e-5;
/// As [`SINGLE_TOLERANCE`], where each of 20 steps starts from the one before.
const STEPPED_TOLERANCE: f64 = 1e-4;
/// A level is rounded from a float32; a value this near to a half, in levels, may go either way.
const TIE: f64 = 2e-4;

#[test]
fn a_classifier_gives_the_same_on_every_engine() {
    let feeds = |batch: usize| tensors([("x", wave(&[batch, 2, 8, 8], 1.0))]);
    let mut sessions: Vec<_> = engines()
        .iter()
        .map(|engine| engine.load(&model("cnn"), &options(&[])).expect("the model loads"))
        .collect();
    // The batch is symbolic: the same session takes any.
    for batch in [3, 1, 5, 3] {
        let results: Vec<Tensors> = sessions
            .iter_mut()
            .map(|session| session.run(&feeds(batch)).expect("it runs"))
            .collect();
        for result in &results {
            assert_eq!(shape(result, "y"), [batch, 3]);
            assert_eq!(shape(result, "p1"), [batch, 4, 4, 4]);
            assert_close(result, &results[0], SINGLE_TOLERANCE);
        }
        let total: f64 = numbers(&results[0], "y").iter().take(3).map(|value| value.exp()).sum();
        assert!((total - 1.0).abs() < SINGLE_TOLERANCE, "probabilities sum to {total}");
    }
}

#[test]
fn threads_change_nothing_beyond_rounding() {
    let feeds = tensors([("x", wave(&[16, 2, 8, 8], 1.0))]);
    for engine in engines() {
        let run = |threads: usize| {
            let options = LoadOptions { threads, ..options(&[]) };
            engine
                .load(&model("cnn"), &options)
                .expect("loads")
                .run(&feeds)
                .expect("runs")
        };
        assert_close(&run(2), &run(1), SINGLE_TOLERANCE);
        assert_close(&run(0), &run(1), SINGLE_TOLERANCE);
    }
}

#[test]
fn twenty_steps_keep_their_state() {
    for engine in engines() {
        let mut session = engine.load(&model("momentum"), &options(&MOMENTUM)).expect("the model loads");
        let mut reference = Regression::new();
        session
            .set_state(&tensors([
                ("w", single(&[4, 1], &reference.w)),
                ("m", single(&[4, 1], &reference.m)),
            ]))
            .expect("it fits");
        for step in 0..20 {
            // The last batch of an epoch is a short one.
            let batch = if step % 7 == 6 { 3 } else { 8 };
            let (x, y) = Regression::data(step, batch);
            let results = session.step(&Regression::feeds(&x, &y)).expect("it steps");
            let loss = reference.step(&x, &y);
            assert_eq!(results.keys().collect::<Vec<_>>(), ["loss"], "state is not among the results");
            assert_near(
                numbers(&results, "loss")[0],
                loss,
                STEPPED_TOLERANCE,
                &format!("{} loss {step}", engine.name()),
            );
        }
        let state = session.state().expect("it is set");
        assert_eq!(
            state.keys().collect::<Vec<_>>(),
            ["m", "w"],
            "state goes by the inputs' names"
        );
        for (name, expected) in [("w", &reference.w), ("m", &reference.m)] {
            for (found, expected) in numbers(&state, name).iter().zip(expected) {
                assert_near(*found, *expected, STEPPED_TOLERANCE, &format!("{} {name}", engine.name()));
            }
        }
    }
}

#[test]
fn state_that_was_read_out_can_be_put_back() {
    for engine in engines() {
        let (x, y) = Regression::data(0, 8);
        let feeds = Regression::feeds(&x, &y);
        let mut session = engine.load(&model("momentum"), &options(&MOMENTUM)).expect("loads");
        session
            .set_state(&tensors([("w", wave(&[4, 1], 0.5)), ("m", wave(&[4, 1], 0.0))]))
            .expect("fits");
        session.step(&feeds).expect("steps");
        let kept = session.state().expect("set");
        let once: Vec<Tensors> = (0..3).map(|_| session.step(&feeds).expect("steps")).collect();
        session.set_state(&kept).expect("fits");
        let again: Vec<Tensors> = (0..3).map(|_| session.step(&feeds).expect("steps")).collect();
        assert_eq!(once, again, "{}: the same state gives the same bytes", engine.name());
        assert_eq!(kept, kept.clone(), "what was read out is not overwritten");
    }
}

#[test]
fn a_step_session_also_runs_from_feeds() {
    for engine in engines() {
        let (x, y) = Regression::data(1, 8);
        let mut feeds = Regression::feeds(&x, &y);
        feeds.extend(tensors([("w", wave(&[4, 1], 0.5)), ("m", wave(&[4, 1], 0.1))]));
        let mut session = engine.load(&model("momentum"), &options(&MOMENTUM)).expect("loads");
        let results = session.run(&feeds).expect("runs without state");
        assert_eq!(results.keys().collect::<Vec<_>>(), ["loss", "m_next", "w_next"]);
    }
}

#[test]
fn a_lowered_convolution_gives_the_levels_of_its_integers() {
    let x = wave(&[2, 3, 5, 5], 0.6);
    for engine in engines() {
        for fusion in [QdqFusion::Default, QdqFusion::Off] {
            let options = LoadOptions {
                qdq_fusion: fusion,
                ..options(&[])
            };
            let mut session = engine.load(&model("qdq"), &options).expect("the model loads");
            let results = session.run(&tensors([("x", x.clone())])).expect("it runs");
            let what = format!("{} {fusion:?}", engine.name());
            assert_eq!(results["x_levels"].dtype(), DType::U8, "{what}");
            let input = numbers(&results, "x_levels");
            for (value, level) in x.to_f64().expect("floats").iter().zip(&input) {
                assert_level(value / f64::from(SX), *level, 0.0, [0.0, 15.0], &what);
            }
            let levels = numbers(&results, "y_levels");
            for (at, (value, level)) in convolve(&input).iter().zip(&levels).enumerate() {
                assert_level(*value, *level, 128.0, [124.0, 131.0], &format!("{what} at {at}"));
            }
            for (value, level) in numbers(&results, "y").iter().zip(&levels) {
                assert_near(*value, (level - 128.0) * f64::from(0.117f32), SINGLE_TOLERANCE, &what);
            }
        }
    }
}

#[test]
fn every_type_goes_in_and_comes_out() {
    let half = |value: f32| half::f16::from_f32(value);
    let feeds = tensors([
        ("f32_in", Tensor::new(&[2, 3], vec![1.5f32, -2.0, 0.0, 3.25, 1e20, -1e-20])),
        ("f64_in", Tensor::new(&[2, 3], vec![1.5f64, -2.0, 0.1, 3.25, 1e200, -1e-200])),
        (
            "f16_in",
            Tensor::new(&[2, 3], [1.5, -2.0, 0.1, 3.25, 100.0, -7.0].map(half).to_vec()),
        ),
        ("i64_in", Tensor::new(&[2, 3], vec![1i64, -2, 3, 1 << 40, -(1 << 50), 0])),
        ("i32_in", Tensor::new(&[2, 3], vec![1i32, -2, 3, 1 << 20, -(1 << 29), 0])),
        ("u8_in", Tensor::new(&[2, 3], vec![0u8, 1, 127, 128, 254, 255])),
        ("i8_in", Tensor::new(&[2, 3], vec![0i8, 1, 127, -128, -1, 5])),
        ("bool_in", boolean(&[1, 0, 0, 1, 1, 0])),
    ]);
    for engine in engines() {
        let results = engine
            .load(&model("dtypes"), &options(&[]))
            .expect("loads")
            .run(&feeds)
            .expect("runs");
        for (name, tensor) in &feeds {
            let result = &results[&name.replace("_in", "_out")];
            assert_eq!(result.dtype(), tensor.dtype());
            let expected = match tensor.dtype() {
                DType::F32 | DType::F64 | DType::I64 | DType::I32 => {
                    tensor.to_f64().expect("numbers").iter().map(|v| v + v).collect()
                }
                DType::Bool => tensor.to_f64().expect("numbers").iter().map(|v| 1.0 - v).collect(),
                _ => tensor.to_f64().expect("numbers"),
            };
            // Sums of a number with itself are exact in every format.
            assert_eq!(result.to_f64(), Some(expected), "{} {name}", engine.name());
        }
    }
}

#[test]
fn wrong_feeds_are_named_alike_on_every_engine() {
    let cases = [
        (tensors([]), "the input `x` (float[?, 2, 8, 8]) was not fed"),
        (
            tensors([("x", wave(&[2, 3, 8, 8], 1.0))]),
            "the input `x` is float[?, 2, 8, 8], but was fed float[2, 3, 8, 8]",
        ),
        (
            tensors([("x", wave(&[128], 1.0))]),
            "the input `x` is float[?, 2, 8, 8], but was fed float[128]",
        ),
        (
            tensors([("x", Tensor::new(&[1, 2, 8, 8], vec![0i64; 128]))]),
            "the input `x` is float[?, 2, 8, 8], but was fed int64[1, 2, 8, 8]",
        ),
        (
            tensors([("x", wave(&[1, 2, 8, 8], 1.0)), ("z", wave(&[1], 1.0))]),
            "`z` was fed, but it is not an input of the model",
        ),
    ];
    for engine in engines() {
        let mut session = engine.load(&model("cnn"), &options(&[])).expect("loads");
        for (feeds, message) in &cases {
            assert_eq!(feed_error(session.run(feeds)), *message, "{}", engine.name());
        }
    }
}

#[test]
fn wrong_state_is_named_alike_on_every_engine() {
    let (x, y) = Regression::data(0, 8);
    let feeds = Regression::feeds(&x, &y);
    for engine in engines() {
        let mut session = engine.load(&model("momentum"), &options(&MOMENTUM)).expect("loads");
        assert_eq!(
            feed_error(session.step(&feeds)),
            "the session has no state yet: set it before the first step"
        );
        assert_eq!(
            feed_error(session.state()),
            "the session has no state yet: set it before the first step"
        );
        let missing = session.set_state(&tensors([("w", wave(&[4, 1], 1.0))]));
        assert_eq!(feed_error(missing), "the input `m` (float[4, 1]) was not fed");
        session
            .set_state(&tensors([("w", wave(&[4, 1], 1.0)), ("m", wave(&[4, 1], 1.0))]))
            .expect("fits");
        let mut twice = feeds.clone();
        twice.insert("w".to_string(), wave(&[4, 1], 1.0));
        assert_eq!(
            feed_error(session.step(&twice)),
            "`w` was fed, but it is state, which a step does not take as a feed"
        );
        session.step(&feeds).expect("errors leave the state as it was");
        for (current, next, message) in [
            (
                "w",
                "nothing",
                "state cannot go from `nothing` to `w`: the model has no such output",
            ),
            (
                "nothing",
                "w_next",
                "state cannot go from `w_next` to `nothing`: the model has no such input",
            ),
        ] {
            let error = engine
                .load(&model("momentum"), &options(&[(current, next)]))
                .err()
                .expect("no such binding");
            assert_eq!(error.to_string(), message);
            assert!(error.is::<EngineError>());
        }
    }
}

#[test]
fn a_refused_model_says_why() {
    for engine in engines() {
        let error = |bytes: &[u8]| match engine.load(bytes, &options(&[])) {
            Ok(_) => panic!("{} took it", engine.name()),
            Err(error) => {
                assert!(matches!(error.downcast_ref(), Some(EngineError::Refused { .. })), "{error:?}");
                error.to_string()
            }
        };
        let unknown = error(&model("unknown"));
        assert!(
            unknown.starts_with(&format!("the engine {} refuses the model: ", engine.name())),
            "{unknown}"
        );
        assert!(unknown.contains("Frobnicate"), "{unknown}");
        error(b"this is not a model");
        error(&model("cnn")[..700]);
    }
}

#[test]
fn an_optimised_model_is_written_where_the_engine_can() {
    let folder = tempfile::tempdir().expect("a folder");
    for engine in engines() {
        let path = folder.path().join(format!("{}.onnx", engine.name()));
        let options = LoadOptions {
            optimized_model: Some(path.clone()),
            ..options(&[])
        };
        engine.load(&model("qdq"), &options).expect("loads");
        assert_eq!(path.is_file(), engine.name() == "ort");
        if engine.name() == "ort" {
            let bytes = std::fs::read(&path).expect("written");
            assert!(
                bytes.windows(11).any(|window| window == b"QLinearConv"),
                "the runtime fuses a lowered convolution"
            );
        }
    }
}

const MOMENTUM: [(&str, &str); 2] = [("w", "w_next"), ("m", "m_next")];
/// The input's scale in engine_qdq.onnx.
const SX: f32 = 0.0314;

/// The convolution of engine_qdq.onnx in double precision, in output levels before rounding and without the zero point.
fn convolve(levels: &[f64]) -> Vec<f64> {
    const BIAS: [f64; 4] = [40.0, -700.0, 1300.0, 0.0];
    let mut values = Vec::new();
    for (image, o, row, column) in grid([2, 4, 5, 5]) {
        let mut sum = BIAS[o];
        for (c, i, j, _) in grid([3, 3, 3, 1]) {
            let (y, x) = ((row + i).wrapping_sub(1), (column + j).wrapping_sub(1));
            if y < 5 && x < 5 {
                let weight = ((7 * o + 5 * c + 3 * i + 2 * j) % 15) as f64 - 7.0;
                sum += 8.0 * weight * levels[((image * 3 + c) * 5 + y) * 5 + x];
            }
        }
        let scale = (0.00271 * (1.0 + o as f64)) as f32;
        values.push(sum * f64::from(SX) * f64::from(scale) / f64::from(0.117f32));
    }
    values
}

fn grid([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |at| (at / (b * c * d), at / (c * d) % b, at / d % c, at % d))
}

fn assert_level(value: f64, level: f64, zero: f64, [low, high]: [f64; 2], what: &str) {
    let tie = (value.fract().abs() - 0.5).abs() < TIE;
    let expected = (value.round_ties_even() + zero).clamp(low, high);
    assert!(
        level == expected || (tie && (level - expected).abs() == 1.0),
        "{what}: {value} became level {level}, not {expected}"
    );
}

/// The model of engine_momentum.onnx in double precision.
struct Regression {
    w: Vec<f64>,
    m: Vec<f64>,
}

impl Regression {
    const LR: f64 = 0.05;

    fn new() -> Regression {
        let start = |scale| wave(&[4, 1], scale).to_f64().expect("floats");
        Regression {
            w: start(0.5),
            m: start(0.0),
        }
    }

    fn data(step: usize, batch: usize) -> (Vec<f64>, Vec<f64>) {
        let x: Vec<f64> = (0..batch * 4)
            .map(|at| f64::from(((at + 31 * step) as f32 * 0.37).sin()))
            .collect();
        let y = x
            .chunks(4)
            .map(|row| f64::from((row[0] - 2.0 * row[1] + 0.5 * row[3]) as f32))
            .collect();
        (x, y)
    }

    fn feeds(x: &[f64], y: &[f64]) -> Tensors {
        tensors([
            ("x", single(&[y.len(), 4], x)),
            ("y", single(&[y.len(), 1], y)),
            ("lr", Tensor::scalar(Self::LR as f32)),
        ])
    }

    fn step(&mut self, x: &[f64], y: &[f64]) -> f64 {
        let batch = y.len() as f64;
        let errors: Vec<f64> = x
            .chunks(4)
            .zip(y)
            .map(|(row, y)| row.iter().zip(&self.w).map(|(x, w)| x * w).sum::<f64>() - y)
            .collect();
        for (at, (w, m)) in self.w.iter_mut().zip(&mut self.m).enumerate() {
            let gradient: f64 = x.chunks(4).zip(&errors).map(|(row, error)| row[at] * error).sum();
            *m = 0.9 * *m + 2.0 / batch * gradient;
            *w -= Self::LR * *m;
        }
        errors.iter().map(|error| error * error).sum::<f64>() / batch
    }
}

/// tract, and ONNX Runtime where the environment has it; demanded if LSQC_REQUIRE_ORT is 1.
fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(TractEngine)];
    let local = || {
        let lib = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib")).ok()?;
        let capi = lib.flatten().map(|entry| entry.path().join("site-packages/onnxruntime/capi"));
        let mut files: Vec<PathBuf> = capi
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.retain(|file| {
            file.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime."))
        });
        files.pop()
    };
    let file = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).or_else(local);
    match file.as_deref().map(|file| OrtEngine::find(Some(file))) {
        Some(Ok(engine)) => engines.push(Box::new(engine)),
        Some(Err(error)) => panic!("{error}"),
        None if std::env::var("LSQC_REQUIRE_ORT").is_ok_and(|value| value == "1") => {
            panic!("LSQC_REQUIRE_ORT is 1, but neither ORT_DYLIB_PATH nor .venv has an ONNX Runtime")
        }
        None => println!("skipped: no ONNX Runtime"),
    }
    engines
}

fn options(state: &[(&str, &str)]) -> LoadOptions {
    LoadOptions {
        threads: 1,
        qdq_fusion: QdqFusion::Default,
        state: state
            .iter()
            .map(|(current, next)| StateBinding {
                current: (*current).to_string(),
                next: (*next).to_string(),
            })
            .collect(),
        optimized_model: None,
    }
}

fn model(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/engine_{name}.onnx"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tensors<const N: usize>(named: [(&str, Tensor); N]) -> Tensors {
    named.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect()
}

fn wave(shape: &[usize], scale: f32) -> Tensor {
    Tensor::new(
        shape,
        (0..shape.iter().product())
            .map(|at: usize| scale * (at as f32 * 0.73 + 0.1).sin())
            .collect(),
    )
}

fn single(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(shape, values.iter().map(|&value| value as f32).collect())
}

fn boolean(values: &[u8]) -> Tensor {
    Tensor::from_bytes(DType::Bool, &[2, 3], values.to_vec().into()).expect("one byte each")
}

fn numbers(of: &Tensors, name: &str) -> Vec<f64> {
    of[name].to_f64().expect("numbers")
}

fn shape<'t>(of: &'t Tensors, name: &str) -> &'t [usize] {
    of[name].shape()
}

fn feed_error<T>(result: anyhow::Result<T>) -> String {
    let error = result.err().expect("it is refused");
    assert!(matches!(error.downcast_ref(), Some(EngineError::Feed(_))), "{error:?}");
    error.to_string()
}

fn assert_close(found: &Tensors, expected: &Tensors, tolerance: f64) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in expected {
        assert_eq!(found[name].shape(), tensor.shape(), "{name}");
        for (found, expected) in numbers(found, name).iter().zip(tensor.to_f64().expect("numbers")) {
            assert_near(*found, expected, tolerance, name);
        }
    }
}

fn assert_near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{what}: {found}, expected {expected}"
    );
}
