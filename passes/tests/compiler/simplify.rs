//! The simplifying passes, text in and text out, and each of their refusals.

use insta::assert_snapshot;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::pass::{self, Evaluator, NoEvaluator, Pass, PassCx};
use lsqc_passes::pipelines::SIMPLIFY;
use lsqc_passes::simplify::{
    FOLD_CONSTANTS, FOLD_SHAPES, FREEZE_DEFAULTS, LIFT_CONSTANTS, REMOVE_DEAD, REMOVE_IDENTITIES, TargetOpset, UPGRADE_OPSET,
};
use lsqc_passes::text::{InnerTypes, PrintOptions, parse, print};

/// Runs a pass; gives the graph and the notes, or the error and its cure.
fn run(pass: &'static Pass, text: &str) -> String {
    run_in(&[pass], &mut PassCx::new(&Adder), text)
}

fn run_in(passes: &[&'static Pass], cx: &mut PassCx, text: &str) -> String {
    let mut model = parse(text).unwrap_or_else(|error| panic!("{error}"));
    match pass::run_quietly(passes, &mut model, cx) {
        Ok(()) => {
            let options = PrintOptions {
                inner_types: InnerTypes::Listed,
                ..PrintOptions::default()
            };
            let notes: String = cx
                .notes
                .iter()
                .map(|note| format!("# {} ({}): {}\n", note.node, note.op, note.reason))
                .collect();
            print(&model, &options) + &notes
        }
        Err(failed) => format!("{failed}\nhelp: {}", failed.error.help.as_deref().unwrap_or_default()),
    }
}

/// Upgrades `body`, a graph of operator set `from`, to `to`.
fn upgrade(from: i64, to: i64, body: &str) -> String {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(TargetOpset(to));
    let text = format!("<ir_version: 3, opset_import: [\"\" : {from}]> {body}");
    let upgraded = run_in(&[&UPGRADE_OPSET], &mut cx, &text);
    upgraded
        .lines()
        .filter(|line| !line.starts_with('<'))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Adds floats of equal shapes, and can do nothing else.
struct Adder;

impl Evaluator for Adder {
    fn evaluate(&self, model: &Model) -> Result<Vec<Tensor>, String> {
        let graph = &model.graph;
        let mut known: Vec<(_, Tensor)> = graph
            .values()
            .filter_map(|(id, value)| Some((id, value.constant()?.clone())))
            .collect();
        for (_, node) in graph.nodes() {
            let find = |index: usize| {
                known
                    .iter()
                    .find(|(id, _)| Some(*id) == node.input(index))
                    .map(|(_, tensor)| tensor)
            };
            let (Some(a), Some(b), true) = (find(0), find(1), node.op.is("Add")) else {
                return Err(format!("{} is no Add", node.op));
            };
            let sum = a
                .to_f32()
                .into_iter()
                .flatten()
                .zip(b.to_f32().into_iter().flatten())
                .map(|(a, b)| a + b);
            let sum = Tensor::new(a.shape(), sum.collect());
            known.extend(node.output(0).map(|output| (output, sum)));
        }
        let outputs = graph.outputs().iter();
        Ok(outputs
            .filter_map(|output| known.iter().find(|(id, _)| id == output))
            .map(|(_, tensor)| tensor.clone())
            .collect())
    }
}

#[test]
fn constants_are_lifted_under_their_names() {
    assert_snapshot!(run(&LIFT_CONSTANTS, r#"
        g (float[2] x) => (float[2] y, out)
        {
            c = Constant <value = float[2] {1, 2}> ()
            i = Constant <value_ints = [3, 4]> ()
            f = Constant <value_float = 0.5> ()
            s = Constant <value_string = "text"> ()
            a = Add (x, c)
            y = Mul (a, f)
            u = some.domain.Use (i, s)
            out = Constant <value_int = 7> ()
            odd = Constant <value_odd = 7> ()
        }"#), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y, out)
    <float[2] c = {1.0, 2.0},
      int64[2] i = {3, 4},
      float f = {0.5},
      string s = {"text"}>
    {
      a = Add (x, c)
      y = Mul (a, f)
      u = some.domain.Use (i, s)
      out = Constant <value_int = 7> ()
      odd = Constant <value_odd = 7> ()
    }
    # Constant -> out (Constant): an output must be made by a node
    # Constant -> odd (Constant): its value is sparse or missing
    "#);
}

#[test]
fn inputs_with_defaults_become_constants() {
    assert_snapshot!(run(&FREEZE_DEFAULTS, "
        g (float[2] x, float[2] w = {1, 2}) => (float[2] y)
        {
            y = Add (x, w)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y)
    <float[2] w = {1.0, 2.0}>
    {
      y = Add (x, w)
    }
    "#);
}

#[test]
fn what_nothing_uses_is_removed() {
    assert_snapshot!(run(&REMOVE_DEAD, "
        g (float[2] x, float[2] unused) => (float[2] y)
        <float[2] w = {1, 2}, float[2] v = {3, 4}>
        {
            a = Add (x, v)
            b = Neg (a)
            y = Add (x, w)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x, float[2] unused) => (float[2] y)
    <float[2] w = {1.0, 2.0}>
    {
      y = Add (x, w)
    }
    "#);
}

#[test]
fn constants_are_folded_up_to_what_depends_on_inputs() {
    assert_snapshot!(run(&FOLD_CONSTANTS, "
        g (float[2] x) => (float[2] y, float[2] z)
        <float[2] a = {1, 2}, float[2] b = {3, 4}>
        {
            c = Add (a, b)
            d = Add (c, a)
            y = Add (x, d)
            z = Add (a, a)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y, float[2] z)
    <float[2] a = {1.0, 2.0},
      float[2] b = {3.0, 4.0},
      float[2] d = {5.0, 8.0}>
    {
      y = Add (x, d)
      z = Add (a, a)
    }
    "#);
}

#[test]
fn what_the_evaluator_cannot_compute_stays() {
    assert_snapshot!(run(&FOLD_CONSTANTS, "
        g (float[2] x) => (float[2] y)
        <float[2] a = {1, 2}, float[2] b = {3, 4}>
        {
            c = Add (a, b)
            d = Neg (c)
            e = Add (d, a)
            y = Add (x, e)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y)
    <float[2] a = {1.0, 2.0},
      float[2] b = {3.0, 4.0},
      float[2] c = {4.0, 6.0}>
    {
      d = Neg (c)
      e = Add (d, a)
      y = Add (x, e)
    }
    # Neg -> d (Neg): left to run time: Neg is no Add
    "#);
}

#[test]
fn random_quantized_large_and_foreign_nodes_are_not_folded() {
    let text = "
        g (float[2] x) => (y)
        <float[2] a = {1, 2}, float s = {0.5}, int64[2] large = {9999, 9999}>
        {
            r = RandomUniformLike (a)
            q = QuantizeLinear (a, s)
            e = Expand (s, large)
            f = some.domain.Add (a, a)
            y = some.domain.Use (x, r, q, e, f)
        }";
    let before = print(&parse(text).unwrap(), &PrintOptions::default());
    let after = run(&FOLD_CONSTANTS, text);
    assert_eq!(after.matches(" = ").count(), before.matches(" = ").count(), "{after}");
}

#[test]
fn shape_arithmetic_over_a_symbolic_batch_becomes_a_target() {
    assert_snapshot!(run(&FOLD_SHAPES, "
        g (float[N,3,4,5] x) => (y, c)
        <int64 zero = {0}, int64[1] axes = {0}, int64[1] rest = {60}, int64[1] from = {1}, int64[1] to = {3}>
        {
            s = Shape (x)
            n = Gather (s, zero)
            v = Unsqueeze (n, axes)
            t = Concat <axis = 0> (v, rest)
            y = Reshape (x, t)
            k = Slice (s, from, to)
            c = some.domain.Use (k)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,4,5] x) => (float[N,60] y, c)
    <int64 zero = {0},
      int64[1] axes = {0},
      int64[1] rest = {60},
      int64[1] from = {1},
      int64[1] to = {3},
      int64[2] k = {3, 4},
      int64[2] "y/shape" = {-1, 60}>
    {
      s = Shape (x)
      n = Gather (s, zero)
      v = Unsqueeze (n, axes)
      t = Concat <axis = 0> (v, rest)
      y = Reshape (x, "y/shape")
      "k/computed" = Slice (s, from, to)
      c = some.domain.Use (k)
    }
    "#);
}

#[test]
fn several_symbols_are_copied_from_the_input() {
    assert_snapshot!(run(&FOLD_SHAPES, "
        g (float[N,3,H,W] x, float[1,3,1,1] small) => (y, w, z, kept)
        <int64 zero = {0}, int64 two = {2}, int64[1] axes = {0}, int64[1] c = {3}, int64[1] most = {-1}>
        {
            s = Shape (x)
            n = Gather (s, zero)
            h = Gather <axis = 0> (s, two)
            nv = Unsqueeze (n, axes)
            hv = Unsqueeze (h, axes)
            t = Concat <axis = 0> (nv, c, hv, most)
            y = Reshape (x, t)
            o = Concat <axis = 0> (nv, most, hv, hv)
            w = Reshape (x, o)
            z = Expand (x, s)
            kept = Expand (small, s)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,H,W] x, float[1,3,1,1] small) => (float[N,3,H,W] y, float[N,?,H,H] w, float[N,3,H,W] z, float[N,3,H,W] kept)
    <int64 zero = {0},
      int64 two = {2},
      int64[1] axes = {0},
      int64[1] c = {3},
      int64[1] most = {-1},
      int64[4] "y/shape" = {0, 3, 0, -1},
      int64[4] "z/shape" = {1, 3, 1, 1}>
    {
      s = Shape (x)
      n = Gather (s, zero)
      h = Gather <axis = 0> (s, two)
      nv = Unsqueeze (n, axes)
      hv = Unsqueeze (h, axes)
      t = Concat <axis = 0> (nv, c, hv, most)
      y = Reshape (x, "y/shape")
      o = Concat <axis = 0> (nv, most, hv, hv)
      w = Reshape (x, o)
      z = Expand (x, "z/shape")
      kept = Expand (small, s)
    }
    "#);
}

#[test]
fn identities_are_removed() {
    assert_snapshot!(run(&REMOVE_IDENTITIES, r#"
        g (float[N,3,4] x) => (y)
        <float zero = {0}, float[1,1] one = {1}, int64[3] same = {0, 3, 4}, int64[6] pads = {0, 0, 0, 0, 0, 0},
         int64[1] from = {0}, int64[1] to = {4}, int64[1] axis = {2}>
        {
            a = Identity (x)
            b, mask = Dropout (a)
            c = Cast <to = 1> (b)
            d = Transpose <perm = [0, 1, 2]> (c)
            e = Reshape (d, same)
            f = Pad (e, pads)
            h = Concat <axis = 1> (f)
            i = Add (zero, h)
            j = Mul (i, one)
            k = Slice (j, from, to, axis)
            l = Sub (k, zero)
            y = Relu (l)
        }"#), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,4] x) => (float[N,3,4] y)
    <float zero = {0.0},
      float[1,1] one = {1.0},
      int64[3] same = {0, 3, 4},
      int64[6] pads = {0, 0, 0, 0, 0, 0},
      int64[1] from = {0},
      int64[1] to = {4},
      int64[1] axis = {2}>
    {
      y = Relu (x)
    }
    "#);
}

#[test]
fn an_output_keeps_its_name() {
    assert_snapshot!(run(&REMOVE_IDENTITIES, "
        g (float[2] x) => (float[2] y, float[2] through, float[2] twice)
        {
            a = Relu (x)
            y = Identity (a)
            through = Identity (x)
            twice = Identity (a)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y, float[2] through, float[2] twice)
    {
      y = Relu (x)
      through = Identity (x)
      twice = Identity (y)
    }
    "#);
}

#[test]
fn what_only_looks_like_an_identity_stays() {
    assert_snapshot!(run(&REMOVE_IDENTITIES, "
        g (float[N,1] x, bool mode, float[M,K] odd) => (y)
        <float[1,3] zeros = {0, 0, 0}, int64[2] target = {-1, 2}, float zero = {0}, float ratio = {0.5}>
        {
            a = Add (x, zeros)
            b = Transpose (a)
            c = Reshape (b, target)
            d, mask = Dropout (c)
            e = Dropout (c, ratio, mode)
            f = Sub (zero, x)
            y = some.domain.Use (d, mask, e, f)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1] x, bool mode, float[M,K] odd) => (y)
    <float[1,3] zeros = {0.0, 0.0, 0.0},
      int64[2] target = {-1, 2},
      float zero = {0.0},
      float ratio = {0.5}>
    {
      a = Add (x, zeros)
      b = Transpose (a)
      c = Reshape (b, target)
      d, mask = Dropout (c)
      e = Dropout (c, ratio, mode)
      f = Sub (zero, x)
      y = some.domain.Use (d, mask, e, f)
    }
    # Dropout -> d (Dropout): its mask is used
    # Dropout -> e (Dropout): it may train: its mode is not the constant false
    "#);
}

#[test]
fn the_whole_pipeline() {
    let text = r#"
        <ir_version: 3, opset_import: ["" : 9]>
        g (float[N,2,2] x, float[4] a = {1, 2, 3, 4}) => (float[N,4] y)
        {
            s = Shape (x)
            zero = Constant <value = int64 {0}> ()
            n = Gather (s, zero)
            v = Unsqueeze <axes = [0]> (n)
            rest = Constant <value = int64[1] {-1}> ()
            t = Concat <axis = 0> (v, rest)
            flat = Reshape (x, t)
            b = Add (a, a)
            sum = Add (flat, b)
            y = Dropout <ratio = 0.5> (sum)
        }"#;
    assert_snapshot!(run_in(SIMPLIFY, &mut PassCx::new(&Adder), text), @r#"
    <ir_version: 7, opset_import: ["" : 13]>
    g (float[N,2,2] x) => (float[N,4] y)
    <int64[2] "flat/shape" = {0, -1},
      float[4] b = {2.0, 4.0, 6.0, 8.0}>
    {
      flat = Reshape (x, "flat/shape")
      y = Add (flat, b)
    }
    "#);
}

#[test]
fn attributes_become_operands() {
    assert_snapshot!(upgrade(7, 18, "
        g (float[1,2,4] x) => (r)
        {
            a = Squeeze <axes = [0]> (x)
            b = Unsqueeze <axes = [0]> (a)
            c = Clip <min = 0.0, max = 6.0> (b)
            d = Pad <pads = [0, 0, 1, 0, 0, 1], value = 0.5> (c)
            e = Slice <starts = [0], ends = [4], axes = [2]> (d)
            f, g = Split <axis = 1, split = [1, 1]> (e)
            h, i = Split <axis = 2> (f)
            j = ReduceSum <axes = [1], keepdims = 0> (h)
            k = ReduceMean <axes = [1]> (j)
            l, m = TopK <k = 1> (k)
            n = Dropout <ratio = 0.25> (l)
            o = Upsample <scales = [1.0, 2.0]> (n)
            p = ReduceMax (o)
            q = ScatterElements (p, p, p)
            r = BatchNormalization <spatial = 1> (q, q, q, q, q)
        }"), @r#"
    g (float[1,2,4] x) => (float[1,1] r)
      int64[1] "b/axes" = {0},
      float "c/min" = {0.0},
      float "c/max" = {6.0},
      int64[6] "d/pads" = {0, 0, 1, 0, 0, 1},
      float "d/value" = {0.5},
      int64[1] "e/starts" = {0},
      int64[1] "e/ends" = {4},
      int64[1] "e/axes" = {2},
      int64[2] "f/split" = {1, 1},
      int64[1] "j/axes" = {1},
      int64[1] "k/axes" = {1},
      int64[1] "l/k" = {1},
      float "n/ratio" = {0.25},
      float[2] "o/scales" = {1.0, 2.0},
      float[0] "o/roi" = {}>
    {
      a = Squeeze (x, "a/axes")
      b = Unsqueeze (a, "b/axes")
      c = Clip (b, "c/min", "c/max")
      d = Pad (c, "d/pads", "d/value")
      e = Slice (d, "e/starts", "e/ends", "e/axes")
      f, g = Split <axis = 1> (e, "f/split")
      h, i = Split <axis = 2, num_outputs = 2> (f)
      j = ReduceSum <keepdims = 0> (h, "j/axes")
      k = ReduceMean (j, "k/axes")
      l, m = TopK (k, "l/k")
      n = Dropout (l, "n/ratio")
      o = Resize <nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"> (n, "", "o/scales")
      p = ReduceMax (o)
      q = ScatterElements (p, p, p)
      r = BatchNormalization (q, q, q, q, q)
    }
    "#);
}

#[test]
fn softmax_keeps_its_meaning() {
    assert_snapshot!(upgrade(12, 13, "
        g (float[N,10] last, float[2,3,4] fixed, float[N,3,4] batch, float[N,5,1,1] ones, unknown) => (a, b, c, d, e)
        {
            a = Softmax (last)
            b = LogSoftmax <axis = 1> (fixed)
            [soft] c = Softmax (batch)
            d = Softmax (ones)
            e = Hardmax <axis = 2> (unknown)
        }"), @r#"
    g (float[N,10] last, float[2,3,4] fixed, float[N,3,4] batch, float[N,5,1,1] ones, unknown) => (float[N,10] a, float[2,3,4] b, float[N,3,4] c, float[N,5,1,1] d, e)
    {
      a = Softmax <axis = 1> (last)
      d = Softmax <axis = 1> (ones)
      "b/flat" = Flatten <axis = 1> (fixed)
      "b/rows" = LogSoftmax <axis = -1> ("b/flat")
      b = Reshape ("b/rows", "b/shape")
      "c/flat" = Flatten <axis = 1> (batch)
      [soft] "c/rows" = Softmax <axis = -1> ("c/flat")
      "c/shape" = Shape (batch)
      c = Reshape ("c/rows", "c/shape")
      "e/flat" = Flatten <axis = 2> (unknown)
      "e/rows" = Hardmax <axis = -1> ("e/flat")
      "e/shape" = Shape (unknown)
      e = Reshape ("e/rows", "e/shape")
    }
    "#);
}

#[test]
fn subgraphs_are_upgraded_too() {
    assert_snapshot!(upgrade(11, 13, "
        g (bool choice, float[1,2] x) => (y)
        {
            y = If <
                then_branch = yes () => (a) { a = Squeeze <axes = [0]> (x) },
                else_branch = no () => (b) { b = ReduceSum <axes = [0], keepdims = 0> (x) }
            > (choice)
        }"), @r#"
    g (bool choice, float[1,2] x) => (y)
    {
      y = If <then_branch = yes () => (a)
        <int64[1] "a/axes" = {0}>
        {
          a = Squeeze (x, "a/axes")
        }, else_branch = no () => (b)
        <int64[1] "b/axes" = {0}>
        {
          b = ReduceSum <keepdims = 0> (x, "b/axes")
        }> (choice)
    }
    "#);
}

#[test]
fn a_higher_operator_set_stays() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]> g (x) => (y) { y = Relu (x) }"#;
    assert_eq!(run(&UPGRADE_OPSET, text), run(&REMOVE_DEAD, text));
}

#[test]
fn an_op_that_onnx_never_had_stays_with_a_note() {
    assert_snapshot!(upgrade(9, 13, "g (x) => (y) { y = Swirl (x) }"), @r#"
    g (x) => (y)
    {
      y = Swirl (x)
    }
    # Swirl -> y (Swirl): ONNX has no such op: it stays as it is under the new operator set
    "#);
}

#[test]
fn changes_that_no_rule_covers_are_refused() {
    let refusals = [
        (8, 9, "y = Scan (x)"),
        (18, 21, "y = GroupNormalization (x, x, x)"),
        (7, 13, "y = BatchNormalization <spatial = 0> (x, x, x, x, x)"),
        (7, 14, "y, m = BatchNormalization (x, x, x, x, x)"),
        (7, 13, "z, m = Dropout (x)  y = Add (z, m)"),
        (7, 13, "y = Clip <min = 0.0> (x)"),
        (7, 13, "y = Slice <starts = [1]> (x)"),
        (7, 13, "y = Pad (x)"),
        (9, 13, "y = OneHot (x, x, x)"),
        (10, 13, "y = Resize (x, x)"),
        (
            11,
            13,
            r#"y = Resize <coordinate_transformation_mode = "tf_half_pixel_for_nn"> (x, x, x)"#,
        ),
        (13, 99, "y = Relu (x)"),
    ];
    let said = refusals.map(|(from, to, nodes)| upgrade(from, to, &format!("g (x) => (y) {{ {nodes} }}")));
    assert_snapshot!(said.join("\n"), @r#"
    Scan -> y (Scan): operator set 9 changed what it means: lsqc has no rule for it
    help: export the model with operator set 9 or higher
    GroupNormalization -> y (GroupNormalization): operator set 21 changed what it means: lsqc has no rule for it
    help: export the model with operator set 21 or higher
    BatchNormalization -> y (BatchNormalization): operator set 9 changed what it means: statistics for every position (spatial = 0) cannot be said any longer
    help: export the model with operator set 9 or higher
    BatchNormalization -> y (BatchNormalization): operator set 14 changed what it means: it trains, which it says by having more results than one
    help: export the model with operator set 14 or higher
    Dropout -> z (Dropout): operator set 10 changed what it means: its mask became boolean, and is used
    help: export the model with operator set 10 or higher
    Clip -> y (Clip): operator set 11 changed what it means: min becomes an operand, and the element type of the input is not known
    help: export the model with operator set 11 or higher
    Slice -> y (Slice): operator set 10 changed what it means: starts or ends are missing
    help: export the model with operator set 10 or higher
    Pad -> y (Pad): operator set 11 changed what it means: pads are missing
    help: export the model with operator set 11 or higher
    OneHot -> y (OneHot): operator set 11 changed what it means: negative indices count from the back; before they chose nothing
    help: export the model with operator set 11 or higher
    Resize -> y (Resize): operator set 11 changed what it means: to the nearest pixel it was defined for constant scales of 1 or more only
    help: export the model with operator set 11 or higher
    Resize -> y (Resize): operator set 13 changed what it means: tf_half_pixel_for_nn is gone
    help: export the model with operator set 13 or higher
    operator set 99 is not known
    help: choose one of 7 to 25
    "#);
}
