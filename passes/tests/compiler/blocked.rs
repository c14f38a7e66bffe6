//! `legalize` with blocks of channels: how convolutions are spelled, and which are not.

use crate::common::{nodes, run_in};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Model;
use lsqc_passes::legalize::{Dialect, LEGALIZE};
use lsqc_passes::pass::{NoEvaluator, PassCx};

/// The model, legalized for an engine with blocks of 4 channels.
fn legalized(text: &str) -> Model {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(Dialect {
        channel_block: Some(4),
        ..Dialect::default()
    });
    run_in(&[&INFER_TYPES, &LEGALIZE], &mut cx, text).unwrap()
}

fn is_blocked(text: &str) -> bool {
    nodes(&legalized(text)).contains("com.microsoft.nchwc")
}

#[test]
fn a_convolution_between_reorders() {
    let model = legalized(
        "g (float[1,4,5,5] x, float[8,4,3,3] w, float[8] b) => (float[1,8,5,5] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }",
    );
    assert_snapshot!(nodes(&model), @r#"
    "Conv -> y/Reshape" = Reshape (w, "Conv -> y/const")
    "Conv -> y/Transpose" = Transpose <perm = [0, 2, 4, 3, 1]> ("Conv -> y/Reshape")
    "Conv -> y/Reshape_1" = Reshape ("Conv -> y/Transpose", "Conv -> y/const_1")
    "Conv -> y/ReorderInput" = com.microsoft.nchwc.ReorderInput (x)
    "Conv -> y/Conv" = com.microsoft.nchwc.Conv <kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1], group = 1> ("Conv -> y/ReorderInput", "Conv -> y/Reshape_1", b)
    y = com.microsoft.nchwc.ReorderOutput <channels = 8> ("Conv -> y/Conv")
    "#);
    assert!(
        model
            .opset_imports
            .iter()
            .any(|import| import.domain == "com.microsoft.nchwc")
    );
}

#[test]
fn a_depthwise_convolution() {
    assert_snapshot!(nodes(&legalized(
        "g (float[1,8,5,5] x, float[8,1,3,3] w) => (float[1,8,3,3] y) { y = Conv <group = 8, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w) }",
    )), @r#"
    "Conv -> y/Reshape" = Reshape (w, "Conv -> y/const")
    "Conv -> y/Transpose" = Transpose <perm = [0, 2, 1]> ("Conv -> y/Reshape")
    "Conv -> y/Reshape_1" = Reshape ("Conv -> y/Transpose", "Conv -> y/const_1")
    "Conv -> y/ReorderInput" = com.microsoft.nchwc.ReorderInput (x)
    "Conv -> y/Conv" = com.microsoft.nchwc.Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], group = 8> ("Conv -> y/ReorderInput", "Conv -> y/Reshape_1")
    y = com.microsoft.nchwc.ReorderOutput <channels = 8> ("Conv -> y/Conv")
    "#);
}

#[test]
fn a_gradient_of_stride_1_is_a_convolution_with_reversed_taps() {
    assert_snapshot!(nodes(&legalized(
        "g (float[1,8,4,5] dy, float[8,4,3,2] w) => (float[1,4,6,4] dx)
        { dx = lsqc.ConvGradInput <input_shape = [1, 4, 6, 4], pads = [0, 1, 0, 1], strides = [1, 1], group = 1> (dy, w) }",
    )), @r#"
    "lsqc.ConvGradInput -> dx/Reshape" = Reshape (w, "lsqc.ConvGradInput -> dx/const")
    "lsqc.ConvGradInput -> dx/Gather" = Gather <axis = 4> ("lsqc.ConvGradInput -> dx/Reshape", "lsqc.ConvGradInput -> dx/const_1")
    "lsqc.ConvGradInput -> dx/Transpose" = Transpose <perm = [2, 0, 4, 1, 3]> ("lsqc.ConvGradInput -> dx/Gather")
    "lsqc.ConvGradInput -> dx/Reshape_1" = Reshape ("lsqc.ConvGradInput -> dx/Transpose", "lsqc.ConvGradInput -> dx/const_2")
    "lsqc.ConvGradInput -> dx/ReorderInput" = com.microsoft.nchwc.ReorderInput (dy)
    "lsqc.ConvGradInput -> dx/Conv" = com.microsoft.nchwc.Conv <kernel_shape = [3, 2], strides = [1, 1], pads = [2, 0, 2, 0], group = 1> ("lsqc.ConvGradInput -> dx/ReorderInput", "lsqc.ConvGradInput -> dx/Reshape_1")
    dx = com.microsoft.nchwc.ReorderOutput <channels = 4> ("lsqc.ConvGradInput -> dx/Conv")
    "#);
}

#[test]
fn what_is_not_taken() {
    let conv =
        |x: &str, w: &str, more: &str| is_blocked(&format!("g (float{x} x, float{w} w) => (y) {{ y = Conv {more} (x, w) }}"));
    assert!(conv("[1,4,5,5]", "[4,4,3,3]", ""));
    assert!(!conv("[1,4,5,5]", "[4,4,1,1]", ""), "1x1");
    assert!(!conv("[1,3,5,5]", "[4,3,3,3]", ""), "channels that fill no block");
    assert!(!conv("[1,4,5,5]", "[6,4,3,3]", ""), "filters that fill no block");
    assert!(!conv("[1,8,5,5]", "[8,4,3,3]", "<group = 2>"), "groups");
    assert!(!conv("[1,4,5,5]", "[8,1,3,3]", "<group = 4>"), "several filters to a channel");
    assert!(!conv("[1,4,5]", "[4,4,3]", ""), "one axis");
    let double = "g (double[1,4,5,5] x, double[4,4,3,3] w) => (y) { y = Conv (x, w) }";
    assert!(!is_blocked(double), "double precision");
    let gradient = |dy: &str, more: &str| {
        is_blocked(&format!(
            "g (float{dy} dy, float[4,4,3,3] w) => (dx) {{ dx = lsqc.ConvGradInput <input_shape = [1, 4, 6, 6], group = 1, {more}> (dy, w) }}"
        ))
    };
    assert!(gradient("[1,4,4,4]", "strides = [1, 1], pads = [0, 0, 0, 0]"));
    assert!(!gradient("[1,4,3,3]", "strides = [2, 2], pads = [1, 1, 1, 1]"), "stride 2");
    assert!(
        !gradient("[1,4,10,10]", "strides = [1, 1], pads = [3, 3, 3, 3]"),
        "pads beyond the window"
    );
}
