//! The two engines give the same numbers, and the same errors. The models are made by tests/data/make_engine_models.py.

use crate::engine_support::{
    assert_close, assert_near, boolean, engines, feed_error, model, numbers, options, shape, tensors, wave,
};
use lsqc::engine::{EngineError, LoadOptions, QdqFusion, Tensors};
use lsqc_passes::ir::{DType, Tensor};

/// Float32 sums of at most some hundred products of numbers near 1, taken in another order: tens of units in the last place.
const SINGLE_TOLERANCE: f64 = 1e-5;
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
fn a_failure_in_mid_run_is_an_error_and_the_session_lives_on() {
    let feeds = |index: i64| tensors([("i", Tensor::vector(vec![0i64, index, 2]))]);
    // On CUDA a Gather does not look whether its indices are there.
    for engine in engines().into_iter().filter(|engine| engine.name() != "ort-cuda") {
        let mut session = engine.load(&model("gather"), &options(&[])).expect("loads");
        let error = session.run(&feeds(99)).expect_err("there is no row 99");
        assert!(matches!(error.downcast_ref(), Some(EngineError::Failed { .. })), "{error:?}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("the engine {} failed: ", engine.name())),
            "{error}"
        );
        assert_eq!(
            numbers(&session.run(&feeds(1)).expect("there is a row 1"), "y"),
            [0.0, 1.0, 2.0]
        );
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
        assert_eq!(path.is_file(), engine.name() != "tract");
        if engine.name() == "ort" {
            let bytes = std::fs::read(&path).expect("written");
            assert!(
                bytes.windows(11).any(|window| window == b"QLinearConv"),
                "the runtime fuses a lowered convolution"
            );
        }
    }
}

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
