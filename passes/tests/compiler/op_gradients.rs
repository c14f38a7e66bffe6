//! What gradient rules refuse: the gradient stops there, and the note says why. That they are right is `tests/library/gradients.rs`'s.

use crate::common::{notes, run_in, run_on};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Model, Role};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::train::DIFFERENTIATE;

/// A graph with the loss Σ y, and `p` to be trained.
fn graph(inputs: &str, nodes: &str, y: &str) -> Model {
    let text = format!("g ({inputs}) => (loss) <{y} y> {{ {nodes}  loss = ReduceSum <keepdims = 0> (y) }}");
    let mut model = run_in(&[&INFER_TYPES], &mut PassCx::new(&NoEvaluator), &text).unwrap();
    for (name, role) in [("p", Role::Parameter), ("loss", Role::Loss)] {
        let value = model.graph.find(name).unwrap();
        model.graph[value].role = role;
    }
    model
}

/// Why no gradient comes back through `nodes` from `y`, of this type, to `p`.
fn refusal((inputs, nodes, y): &(&str, &str, &str)) -> String {
    let mut cx = PassCx::new(&NoEvaluator);
    run_on(&[&DIFFERENTIATE], &mut cx, &mut graph(inputs, nodes, y)).unwrap();
    let noted = notes(&cx);
    let first = noted.lines().next().unwrap_or("nothing is noted");
    first
        .rsplit_once("gradients stop here: ")
        .map_or(first, |(_, why)| why)
        .to_owned()
}

#[test]
fn forms_without_a_gradient_are_noted_with_the_reason() {
    let doubled = "float[4] s = {1, 1, 2, 2}, float[1,1,4,4]";
    let cropped = "y = Resize <coordinate_transformation_mode = \"tf_crop_and_resize\"> (p, \"\", s)";
    let smooth = "y = Resize <antialias = 1> (p, \"\", s)";
    let refused = [
        ("float[2,3] p, int64[1] axes", "y = ReduceSum (p, axes)", "float[2,1]"),
        (
            "float[2,3] p",
            "y = ReduceL2 <noop_with_empty_axes = 1> (p, none)",
            "int64[0] none = {}, float[2,3]",
        ),
        ("float[2,3] p", "y = LpNormalization <p = 3> (p)", "float[2,3]"),
        (
            "float[2,3,4] p, float[2] s",
            "y = GroupNormalization <num_groups = 2> (p, s, s)",
            "float[2,3,4]",
        ),
        (
            "float[2,3] p, float[3] s",
            "a, y = LayerNormalization (p, s, s)",
            "float[2,1]",
        ),
        (
            "float[1,2,3] p, float[2,2,1] w",
            "y = ConvTranspose <output_shape = [9]> (p, w)",
            "float[1,2,9]",
        ),
        ("float[2,2] p", "y = Einsum <equation = \"ii->i\"> (p)", "float[2]"),
        ("float[100000,1] p, int64[1000] i", "y = Gather (p, i)", "float[1000,1]"),
        ("float[2,2] p", "y = Gather (p, i)", "int64[1] i = {2}, float[1,2]"),
        ("float[2,2] p, int64[1,0] i", "y = GatherND (p, i)", "float[1,2,2]"),
        (
            "float[2,2] p, int64[2,2] i",
            "y = ScatterElements <reduction = \"mul\"> (p, i, p)",
            "float[2,2]",
        ),
        ("float[2,2] p, int64[4] pads", "y = Pad (p, pads)", "float[2,3]"),
        (
            "float[2,2] p",
            "y = Pad <mode = \"mirror\", pads = [0, 1, 0, 0]> (p)",
            "float[2,3]",
        ),
        (
            "float[2,4] p",
            "y = Pad <mode = \"edge\", pads = [0, 1, 0, -1]> (p)",
            "float[2,4]",
        ),
        ("float[1,1,2,2] p, float[4] s", "y = Resize (p, \"\", s)", "float[1,1,4,4]"),
        ("float[1,1,2,2] p", cropped, doubled),
        ("float[1,1,2,2] p", smooth, doubled),
        ("float[2] p, int64[1] n", "y = Tile (p, n)", "float[4]"),
        (
            "float[1,4,1,1] p",
            "y = DepthToSpace <blocksize = 2, mode = \"RCD\"> (p)",
            "float[1,1,2,2]",
        ),
        ("float[2,3] p, bool[3] keep", "y = Compress (p, keep)", "float[4]"),
        (
            "float[2,1,3] p, float[1,4,3] w, float[1,4,1] r",
            "y = LSTM (p, w, r)",
            "float[2,1,1,1]",
        ),
    ];
    assert_snapshot!(refused.iter().map(refusal).collect::<Vec<_>>().join("\n"), @"
    the axes of the reduction are computed
    over no axes it is the identity to some engines, and a function of each element to others
    p is 1 or 2, not 3
    3 channels do not divide into 2 groups
    the gradient of the statistics that it gives is not written
    it is asked for more than its window writes
    the gradient of a diagonal is not written
    its gradient needs a one-hot tensor of shape [100000, 1000]
    an index lies outside its axis
    its indices name no axis
    the gradient of a scatter by mul is not written
    the pads are computed
    the mode mirror is not known
    its pads crop what it copies from
    the scales are computed
    the gradient of Resize by tf_crop_and_resize is not written
    the gradient of Resize by antialias, or by a kept aspect ratio, is not written
    the repeats are computed
    the mode RCD is not known
    how many elements it takes is not known before it runs
    gradients through the steps of a recurrent layer are not written
    ");
}

#[test]
fn a_shape_that_is_not_fixed_is_an_error_and_no_note() {
    let mut model = graph(
        "float[N,3] p",
        "n = Constant <value_ints = [1, 1]> ()  y = Tile (p, n)",
        "float[2,3]",
    );
    let error = run_on(&[&DIFFERENTIATE], &mut PassCx::new(&NoEvaluator), &mut model).unwrap_err();
    assert_snapshot!(error, @"Tile -> y (Tile): its gradient cannot be built: the shape of 'p' is not fixed");
}
