//! The pass `inline-functions`, text in and text out, and each of its refusals.

use crate::common::{notes, run_in};
use insta::assert_snapshot;
use lsqc_passes::onnx::{NoExternalData, WriteOptions, read, write};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::simplify::INLINE_FUNCTIONS;
use lsqc_passes::text::{InnerTypes, PrintOptions, print};

/// The model after the pass and what it declined, or the error.
fn inline(text: &str) -> String {
    let mut cx = PassCx::new(&NoEvaluator);
    match run_in(&[&INLINE_FUNCTIONS], &mut cx, text) {
        Ok(model) => {
            let options = PrintOptions {
                inner_types: InnerTypes::Listed,
                ..PrintOptions::default()
            };
            print(&model, &options) + &notes(&cx)
        }
        Err(error) => error,
    }
}

#[test]
fn attributes_operands_and_results_are_those_of_the_call() {
    assert_snapshot!(inline(r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[N,4] x, float[4] b) => (float[N,4] y, float[N,4] z, float[N,4] w)
        {
            [first] t, u = local.layer <slope = 0.5, gone = 1> (x, b)
            y = local.layer <alpha = 2.0> (t)
            z = local.same (u)
            w = local.layer (x)
        }
        <domain: "local", opset_import: ["" : 17]>
        layer <slope, alpha = 0.25> (x, bias) => (y, leaky)
        {
            [leak] leaky = LeakyRelu <alpha: float = @slope> (x)
            celu = Celu <alpha: float = @alpha> (leaky)
            y = Clip (celu, "", bias)
        }
        <domain: "local", opset_import: ["" : 17]>
        same (x) => (x)
        {
        }
        <domain: "local", opset_import: ["" : 17]>
        unused (x) => (y)
        {
            y = Neg (x)
        }"#), @r#"
    <ir_version: 10, opset_import: ["" : 17]>
    g (float[N,4] x, float[4] b) => (float[N,4] y, float[N,4] z, float[N,4] w)
    {
      ["first/leak"] z = LeakyRelu <alpha = 0.5> (x)
      "first/celu" = Celu <alpha = 0.25> (z)
      "first/y" = Clip ("first/celu", "", b)
      ["y/leak"] "y/leaky" = LeakyRelu ("first/y")
      "y/celu" = Celu <alpha = 2.0> ("y/leaky")
      y = Clip ("y/celu")
      ["w/leak"] "w/leaky" = LeakyRelu (x)
      "w/celu" = Celu <alpha = 0.25> ("w/leaky")
      w = Clip ("w/celu")
    }
    "#);
}

#[test]
fn functions_in_functions_and_in_subgraphs_are_inlined() {
    assert_snapshot!(inline(r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[N,4] x, bool c) => (float[N,4] y)
        {
            t = local.outer <by = 3.0> (x, c)
            y = If <then_branch = then () => (a) { a = local.inner:plain <alpha = 2.0> (t) },
                    else_branch = or () => (a) { a = Neg (t) }> (c)
        }
        <domain: "local", opset_import: ["" : 17, "local" : 1, "other" : 3]>
        outer <by> (x, c) => (y)
        {
            a = local.inner:plain <alpha: float = @by> (x)
            b = local.inner:twice (a)
            y = If <then_branch = then () => (a) { n = Neg (b) a = local.inner:plain <alpha: float = @by> (n) },
                    else_branch = or () => (a) { a = other.Op <by: float = @by> (b) }> (c)
        }
        <domain: "local", overload: "plain", opset_import: ["" : 17]>
        inner <alpha> (x) => (y)
        {
            y = Elu <alpha: float = @alpha> (x)
        }
        <domain: "local", overload: "twice", opset_import: ["" : 17]>
        inner (x) => (y)
        {
            y = Add (x, x)
        }"#), @r#"
    <ir_version: 10, opset_import: ["" : 17, "other" : 3]>
    g (float[N,4] x, bool c) => (float[N,4] y)
    {
      "t/a/y" = Elu <alpha = 3.0> (x)
      "t/b/y" = Add ("t/a/y", "t/a/y")
      "t/y" = If <then_branch = then () => ("t/a_1")
        {
          "t/n" = Neg ("t/b/y")
          "t/a_1" = Elu <alpha = 3.0> ("t/n")
        }, else_branch = or () => ("t/a_2")
        {
          "t/a_2" = other.Op <by = 3.0> ("t/b/y")
        }> (c)
      y = If <then_branch = then () => (a)
        {
          a = Elu <alpha = 2.0> ("t/y")
        }, else_branch = or () => (a)
        {
          a = Neg ("t/y")
        }> (c)
    }
    "#);
}

#[test]
fn graphs_are_handed_on() {
    assert_snapshot!(inline(r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[N,4] x, bool c) => (float[N,4] y)
        {
            t = Neg (x)
            y = local.choose <yes = one () => (a) { a = Abs (t) }, no = two () => (a) { a = Exp (x) }> (c)
        }
        <domain: "local", opset_import: ["" : 17]>
        choose <yes, no> (c) => (y)
        {
            y = If <then_branch: graph = @yes, else_branch: graph = @no> (c)
        }"#), @r#"
    <ir_version: 10, opset_import: ["" : 17]>
    g (float[N,4] x, bool c) => (float[N,4] y)
    {
      t = Neg (x)
      y = If <then_branch = one () => (a)
        {
          a = Abs (t)
        }, else_branch = two () => (a)
        {
          a = Exp (x)
        }> (c)
    }
    "#);
}

#[test]
fn an_older_body_is_upgraded() {
    assert_snapshot!(inline(r#"<ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        g (float[2,1,4] x) => (float[2,4] y)
        {
            y = local.squeeze <axes = [1]> (x)
        }
        <domain: "local", opset_import: ["" : 11]>
        squeeze <axes> (x) => (y)
        {
            s = Softmax <axis = 2> (x)
            y = Squeeze <axes: ints = @axes> (s)
        }"#), @r#"
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[2,1,4] x) => (float[2,4] y)
    <int64[1] "y/y/axes" = {1}>
    {
      "y/s" = Softmax <axis = 2> (x)
      y = Squeeze ("y/s", "y/y/axes")
    }
    "#);
}

#[test]
fn what_cannot_be_inlined_stays() {
    let refusal = |call: &str, functions: &str| {
        let text = format!(
            r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1, "other" : 2]>
            g (float[4] x, bool c) => (y) {{ y = {call} }} {functions}"#
        );
        let result = inline(&text);
        assert!(result.contains("local.f"), "{result}");
        result.lines().last().unwrap_or_default().to_owned()
    };
    let here = r#"<domain: "local", opset_import: ["" : 17, "local" : 1]>"#;
    let refusals = [
        refusal(
            "local.f (x)",
            &format!("{here} f (x) => (y) {{ y = local.g (x) }} {here} g (x) => (y) {{ y = local.f (x) }}"),
        ),
        refusal(
            "local.f (x)",
            &format!("{here} f (x) => (y) {{ y = Neg (x) }} {here} f (x) => (y) {{ y = Abs (x) }}"),
        ),
        refusal("local.f (x, x)", &format!("{here} f (x) => (y) {{ y = Neg (x) }}")),
        refusal("local.f (x)", &format!("{here} f (x) => () {{ y = Neg (x) }}")),
        refusal("local.f (\"\")", &format!("{here} f (x) => (x) {{ y = Neg (x) }}")),
        refusal(
            "local.f (x)",
            r#"<domain: "local", opset_import: ["" : 18]> f (x) => (y) { y = Neg (x) }"#,
        ),
        refusal(
            "local.f (x)",
            r#"<domain: "local", opset_import: ["other" : 1]> f (x) => (y) { y = other.Op (x) }"#,
        ),
        refusal(
            "local.f (x)",
            r#"<domain: "local", opset_import: ["" : 7]> f (x) => (y) { y = Upsample <mode = "nearest"> (x) }"#,
        ),
        refusal(
            "local.f <b = one () => (a) { a = Abs (x) }> (c)",
            &format!(
                "{here} f <b> (c) => (y) {{ y = If <then_branch = t () => (a) {{ a = If <then_branch: graph = @b> (c) }}> (c) }}"
            ),
        ),
        refusal(
            "local.f (\"\", c)",
            &format!("{here} f (x, c) => (y) {{ y = If <then_branch = t () => (a) {{ a = Neg (x) }}> (c) }}"),
        ),
    ];
    assert_snapshot!(refusals.join("\n"), @r"
    local.f -> y (local.f): it calls a function that stays: it calls itself, or a function that does
    local.f -> y (local.f): it calls a function that stays: the model has two functions of this name
    local.f -> y (local.f): it calls a function that stays: it takes 1 operands, and the call has 2
    local.f -> y (local.f): it calls a function that stays: it gives 0 results, and the call has 1
    local.f -> y (local.f): it calls a function that stays: a result is 'x', which the call leaves out
    local.f -> y (local.f): it calls a function that stays: it is of operator set 18, the model of 17
    local.f -> y (local.f): it calls a function that stays: it is of version 1 of other, the model of 2
    local.f -> y (local.f): it calls a function that stays: Resize -> y (Resize): operator set 11 changed what it means: to the nearest pixel it was defined for constant scales of 1 or more only
    local.f -> y (local.f): it calls a function that stays: a subgraph refers to the graph 'b' of the call
    local.f -> y (local.f): it calls a function that stays: the call leaves out 'x', which a subgraph captures
    ");
}

#[test]
fn functions_that_double_each_other_end_in_an_error() {
    use std::fmt::Write as _;
    let mut text =
        String::from(r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]> g (float x) => (y) { y = local.f0 (x) }"#);
    for depth in 0..64 {
        let next = depth + 1;
        let _ = write!(
            text,
            r#"<domain: "local", opset_import: ["local" : 1]> f{depth} (x) => (y) {{ a = local.f{next} (x) y = local.f{next} (a) }}"#
        );
    }
    text.push_str(r#"<domain: "local", opset_import: ["" : 17]> f64 (x) => (y) { y = Neg (x) }"#);
    assert_snapshot!(inline(&text).split(" (").last().unwrap_or_default(), @"local.f63): the model's functions come to more than 262144 nodes");
}

#[test]
fn a_deep_chain_of_functions_is_followed() {
    use std::fmt::Write as _;
    const DEPTH: usize = 2000;
    let mut text =
        String::from(r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]> g (float x) => (y) { y = local.f0 (x) }"#);
    for depth in 0..DEPTH {
        let next = depth + 1;
        let _ = write!(
            text,
            r#"<domain: "local", opset_import: ["local" : 1]> f{depth} (x) => (y) {{ y = local.f{next} (x) }}"#
        );
    }
    let _ = write!(
        text,
        r#"<domain: "local", opset_import: ["" : 17]> f{DEPTH} (x) => (y) {{ y = Neg (x) }}"#
    );
    assert!(inline(&text).contains("y = Neg (x)"));
}

#[test]
fn graphs_are_not_nested_without_end() {
    use std::fmt::Write as _;
    let mut text = String::from(
        r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]> g (bool c, float x) => (y) { y = local.f0 (c, x) }"#,
    );
    for depth in 0..3000 {
        let next = depth + 1;
        let _ = write!(
            text,
            r#"<domain: "local", opset_import: ["" : 17, "local" : 1]> f{depth} (c, x) => (y)
            {{ y = If <then_branch = t () => (a) {{ a = local.f{next} (c, x) }}, else_branch = e () => (a) {{ a = Neg (x) }}> (c) }}"#
        );
    }
    text.push_str(r#"<domain: "local", opset_import: ["" : 17]> f3000 (c, x) => (y) { y = Neg (x) }"#);
    let result = inline(&text);
    assert_snapshot!(result.lines().last().unwrap_or_default().split("): ").last().unwrap_or_default(), @"it calls a function that stays: graphs would be nested 32 deep");
}

#[test]
fn functions_are_written_and_read_as_they_are() {
    let text = r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f:o <b = 1.0> (x) }
        <domain: "local", overload: "o", opset_import: ["" : 17]>
        f <b, c = [1, 2]> (x) => (y) { t = Elu <alpha: float = @b> (x) y = Op <c: ints = @c> (t) }"#;
    let model = lsqc_passes::text::parse(text).unwrap();
    let bytes = write(&model, &WriteOptions::default()).unwrap().model;
    let (again, warnings) = read(bytes.clone(), &NoExternalData).unwrap();
    assert_eq!(warnings, []);
    let options = PrintOptions::default();
    assert_eq!(print(&again, &options), print(&model, &options));
    assert_eq!(write(&again, &WriteOptions::default()).unwrap().model, bytes);
}
