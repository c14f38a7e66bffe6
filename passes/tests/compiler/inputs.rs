//! `free-batch`, `inline-branches` and what stays in single precision in a widened graph: text in, text out, and their refusals.

use crate::common::{nodes, run_in};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::Model;
use lsqc_passes::lower::{WIDEN_TO_DOUBLE, Widening};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::simplify::{FREE_BATCH, INLINE_BRANCHES, LIFT_CONSTANTS};

const HEAD: &str = "<ir_version: 8, opset_import: [\"\" : 17]>";

fn freed(body: &str) -> Result<Model, String> {
    run_in(
        &[&LIFT_CONSTANTS, &INFER_TYPES, &FREE_BATCH],
        &mut PassCx::new(&NoEvaluator),
        &format!("{HEAD} {body}"),
    )
}

fn inlined(body: &str) -> Result<Model, String> {
    run_in(
        &[&LIFT_CONSTANTS, &INLINE_BRANCHES],
        &mut PassCx::new(&NoEvaluator),
        &format!("{HEAD} {body}"),
    )
}

fn ty(model: &Model, name: &str) -> String {
    let value = model.graph.find(name).unwrap();
    model.graph[value].ty.as_ref().unwrap().to_string()
}

#[test]
fn a_fixed_batch_becomes_symbolic_and_reshapes_hand_it_on() {
    let model =
        freed("g (float[1,2,3] x) => (float[1,6] y) <int64[2] to = {1, 6}> { a = Relu (x)\n y = Reshape (a, to) }").unwrap();
    assert_snapshot!(nodes(&model), @r#"
    a = Relu (x)
    y = Reshape (a, "to/open")
    "#);
    assert_eq!(
        (ty(&model, "x"), ty(&model, "y")),
        ("float[batch,2,3]".to_owned(), "float[batch,6]".to_owned())
    );
    // The name is taken.
    let model = freed("g (float[2,batch] x) => (float[2,batch] y) { y = Relu (x) }").unwrap();
    assert_eq!(ty(&model, "y"), "float[batch1,batch]");
}

#[test]
fn a_batch_that_cannot_be_freed() {
    let refused = |body: &str| freed(body).unwrap_err();
    assert_snapshot!(refused("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }"), @"the batch is not fixed");
    assert_snapshot!(refused("g (float[1,3] x, float[2,3] z) => (y) { y = Add (x, z) }"), @"the inputs do not begin with one extent");
    assert_snapshot!(refused("g (float[2,3] x) => (y) <float[2,3] k = {1, 2, 3, 4, 5, 6}> { y = Add (x, k) }"), @"the output 'y' has no batch then");
    let branch = "g (float[1,3] x, bool c) => (y) { y = If <then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = Neg (x) }> (c) }";
    assert!(refused(branch).contains("the inputs do not begin"));
    let decided = branch.replace(", bool c", "").replace("=> (y)", "=> (y) <bool c = {1}>");
    assert!(refused(&decided).contains("has subgraphs, whose shapes are not followed"));
}

#[test]
fn the_branch_that_is_taken_stands_in_the_graph() {
    let body = |taken: u8| {
        format!(
            "g (float[3] x, bool c) => (y) <bool k = {{{taken}}}> {{
                p = Neg (x)
                y = If <
                    then_branch = t () => (a) {{
                        one = Constant <value = float {{1}}> ()
                        q = Add (p, one)
                        a = If <then_branch = u () => (r) {{ r = Mul (q, p) }}, else_branch = v () => (s) {{ s = Identity (q) }}> (c)
                    }},
                    else_branch = e () => (b) {{ b = Identity (p) }}
                > (k)
            }}"
        )
    };
    assert_snapshot!(nodes(&inlined(&body(1)).unwrap()), @r"
    p = Neg (x)
    q = Add (p, one)
    y = If <then_branch = u () => (r)
      {
        r = Mul (q, p)
      }, else_branch = v () => (s)
      {
        s = Identity (q)
      }> (c)
    ");
    assert_snapshot!(nodes(&inlined(&body(0)).unwrap()), @r"
    p = Neg (x)
    y = Identity (p)
    ");
}

#[test]
fn a_branch_that_is_decided_at_run_time_stays() {
    let body = "g (float[3] x, bool c) => (y) { y = If <then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = Neg (x) }> (c) }";
    assert!(nodes(&inlined(body).unwrap()).starts_with("y = If"));
}

#[test]
fn only_sums_are_widened_where_that_is_asked() {
    let widened = |body: &str| {
        let mut cx = PassCx::new(&NoEvaluator);
        cx.set(Widening::Sums);
        run_in(&[&INFER_TYPES, &WIDEN_TO_DOUBLE], &mut cx, &format!("{HEAD} {body}"))
    };
    let model =
        widened("g (float[2] x) => (float[2] y) <float[2] k = {1, 2}> { a = Add (x, k)\n b = Max (a, k)\n y = Mul (b, x) }")
            .unwrap();
    assert_snapshot!(nodes(&model), @r#"
    a = Add (x, k)
    "a/single" = Cast <to = 1> (a)
    "b/single" = Max ("a/single", "k/single")
    "b/double" = Cast <to = 11> ("b/single")
    y = Mul ("b/double", x)
    "#);
    let branch = "g (float[3] x, bool c) => (y) { y = If <then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = Neg (x) }> (c) }";
    assert!(
        widened(branch)
            .unwrap_err()
            .contains("has a subgraph, which cannot stay in single precision alone")
    );
}
