//! Both engines carry the same state from step to step.

use crate::engine_support::{assert_near, engines, feed_error, model, numbers, options, single, tensors, wave};
use lsqc::engine::{EngineError, Tensors};
use lsqc_passes::ir::Tensor;

/// Float32 sums of a few products of numbers near 1, where each of 20 steps starts from the one before.
const STEPPED_TOLERANCE: f64 = 1e-4;

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

const MOMENTUM: [(&str, &str); 2] = [("w", "w_next"), ("m", "m_next")];

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
