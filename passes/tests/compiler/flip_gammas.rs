//! `flip-gammas`: which parameters change sign, and what does not fold.

use crate::common::{elements, notes, run_in};
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Model;
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::quantize::FLIP_GAMMAS;

/// The model after the pass, and the notes.
fn flip(text: &str) -> (Model, String) {
    let mut cx = PassCx::new(&NoEvaluator);
    let model = run_in(&[&INFER_TYPES, &FLIP_GAMMAS], &mut cx, text).unwrap();
    (model, notes(&cx))
}

#[test]
fn a_filter_with_negative_gamma_changes_sign_with_its_bias_and_mean() {
    let (model, notes) = flip(
        "g (float[1,1,2,2] x) => (float[1,2,2,2] y)
        <float[2,1,1,1] w = {2, 4}, float[2] b = {1, 3}, float[2] s = {-5, 6}, float[2] beta = {7, 8}, float[2] m = {9, 10}, float[2] v = {1, 1}>
        { c = Conv (x, w, b)  y = BatchNormalization (c, s, beta, m, v) }",
    );
    assert_eq!(elements(&model, "w"), [-2.0, 4.0]);
    assert_eq!(elements(&model, "b"), [-1.0, 3.0]);
    assert_eq!(elements(&model, "s"), [5.0, 6.0]);
    assert_eq!(elements(&model, "beta"), [7.0, 8.0]);
    assert_eq!(elements(&model, "m"), [-9.0, 10.0]);
    assert_eq!(elements(&model, "v"), [1.0, 1.0]);
    assert_eq!(notes, "");
}

#[test]
fn the_sign_follows_the_axis_of_output_channels() {
    let norm = "float[4] s = {-1, 1, -1, 1}, float[4] beta = {0, 0, 0, 0}, float[4] m = {1, 1, 1, 1}, float[4] v = {1, 1, 1, 1}";
    let depthwise = format!(
        "g (float[1,4,2,2] x) => (y) <float[4,1,1,2] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, {norm}>
        {{ c = Conv <group = 4> (x, w)  y = BatchNormalization (c, s, beta, m, v) }}"
    );
    assert_eq!(
        elements(&flip(&depthwise).0, "w"),
        [-1.0, -2.0, 3.0, 4.0, -5.0, -6.0, 7.0, 8.0]
    );
    let grouped = depthwise.replace("[4,1,1,2]", "[4,2,1,1]").replace("group = 4", "group = 2");
    assert_eq!(elements(&flip(&grouped).0, "w"), [-1.0, -2.0, 3.0, 4.0, -5.0, -6.0, 7.0, 8.0]);
    let rows = format!(
        "g (float[1,2] x) => (y) <float[4,2] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, {norm}>
        {{ c = Gemm <transB = 1> (x, w)  y = BatchNormalization (c, s, beta, m, v) }}"
    );
    assert_eq!(elements(&flip(&rows).0, "w"), [-1.0, -2.0, 3.0, 4.0, -5.0, -6.0, 7.0, 8.0]);
    let columns = rows.replace("[4,2]", "[2,4]").replace("transB = 1", "transB = 0");
    assert_eq!(elements(&flip(&columns).0, "w"), [-1.0, 2.0, -3.0, 4.0, -5.0, 6.0, -7.0, 8.0]);
}

#[test]
fn a_gamma_that_others_use_is_copied() {
    let (model, _) = flip(
        "g (float[1,1,1,1] x) => (y, z)
        <float[1,1,1,1] w = {2}, float[1,1,1,1] u = {3}, float[1] s = {-1}, float[1] zero = {0}, float[1] m = {4}, float[1] n = {5}, float[1] v = {1}>
        {
          c = Conv (x, w)  y = BatchNormalization (c, s, zero, m, v)
          d = Abs (x)  z = BatchNormalization (d, s, zero, n, v)
        }",
    );
    assert_eq!(elements(&model, "s"), [-1.0]);
    assert_eq!(elements(&model, "s/flipped"), [1.0]);
    assert_eq!(elements(&model, "w"), [-2.0]);
    assert_eq!(elements(&model, "m"), [-4.0]);
    assert_eq!(elements(&model, "n"), [5.0]);
}

#[test]
fn what_does_not_fold_keeps_its_sign() {
    let graph = |body: &str| {
        flip(&format!(
            "g (float[1,1,1,1] x) => (y, z)
            <float[1,1,1,1] w = {{2}}, float[1] s = {{-1}}, float[1] zero = {{0}}, float[1] m = {{4}}, float[1] v = {{1}}> {{ {body} }}"
        ))
    };
    for (body, why) in [
        (
            "c = Conv (x, w)  y = BatchNormalization (c, s, zero, m, v)  z = Abs (c)",
            "the result of the op before it has other uses",
        ),
        (
            "c = Conv (x, w)  y = BatchNormalization (c, s, zero, m, v)  z = Conv (y, w)",
            "the weight of the op before it is shared",
        ),
        (
            "c = Abs (x)  y = BatchNormalization (c, s, zero, m, v)  z = Conv (y, w)",
            "no weighted op stands directly before it",
        ),
    ] {
        let (model, notes) = graph(body);
        assert_eq!(
            notes,
            format!("BatchNormalization -> y (BatchNormalization): stays in floats: {why}")
        );
        assert_eq!((elements(&model, "w"), elements(&model, "s")), (vec![2.0], vec![-1.0]));
    }
}
