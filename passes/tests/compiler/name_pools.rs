//! The pass `name-pools`, text in and text out, and what it leaves alone.

use insta::assert_snapshot;
use lsqc_passes::pass::{NoEvaluator, PassCx, run_quietly};
use lsqc_passes::simplify::NAME_POOLS;
use lsqc_passes::text::{InnerTypes, PrintOptions, parse, print};

fn run(opset: i64, text: &str) -> String {
    let text = format!("<ir_version: 8, opset_import: [\"\" : {opset}]> {text}");
    let mut model = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    run_quietly(&[&NAME_POOLS], &mut model, &mut PassCx::new(&NoEvaluator)).unwrap();
    let options = PrintOptions {
        inner_types: InnerTypes::Listed,
        ..PrintOptions::default()
    };
    print(&model, &options)
}

#[test]
fn a_mean_over_all_of_a_map_is_a_pool() {
    assert_snapshot!(run(18, "
        g (float[N,3,H,W] x) => (y, z)
        <int64[2] last = {-1, -2}, int64[2] spatial = {2, 3}>
        {
            y = ReduceMean (x, last)
            z = ReduceMean <keepdims = 0> (x, spatial)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[N,3,H,W] x) => (float[N,3,1,1] y, float[N,3] z)
    <int64[2] last = {-1, -2},
      int64[2] spatial = {2, 3}>
    {
      y = GlobalAveragePool (x)
      "z/pooled" = GlobalAveragePool (x)
      z = Flatten ("z/pooled")
    }
    "#);
    assert_snapshot!(run(13, "
        g (float[N,3,4,5,6] x) => (y)
        {
            y = ReduceMean <axes = [2, 3, 4], keepdims = 1> (x)
        }"), @r#"
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[N,3,4,5,6] x) => (float[N,3,1,1,1] y)
    {
      y = GlobalAveragePool (x)
    }
    "#);
}

#[test]
fn other_means_stay() {
    for kept in [
        "g (float[N,3,4,5] x) => (y) { y = ReduceMean <axes = [1, 2, 3]> (x) }",
        "g (float[N,3,4,5] x) => (y) { y = ReduceMean <axes = [3]> (x) }",
        "g (float[N,T,C] x) => (y) { y = ReduceMean <axes = [2]> (x) }",
        "g (int32[N,3,4,5] x) => (y) { y = ReduceMean <axes = [2, 3]> (x) }",
        "g (float[N,3,4,5] x) => (y) { y = ReduceMean (x) }",
        "g (float[N,3,4,5] x) => (y) { y = ReduceMax <axes = [2, 3]> (x) }",
        "g (float[N,3,4,5] x) => (y) { m = ReduceMean <axes = [2, 3]> (x) y = Sub (x, m) }",
    ] {
        let left = run(17, kept);
        assert!(left.contains("= Reduce") && !left.contains("GlobalAveragePool"), "{left}");
    }
}

#[test]
fn a_mean_that_another_node_subtracts_from_something_else_is_a_pool() {
    let named = run(
        17,
        "g (float[N,3,4,5] x, float[N,3,1,1] b) => (y) { m = ReduceMean <axes = [2, 3]> (x) y = Sub (b, m) }",
    );
    assert!(named.contains("m = GlobalAveragePool (x)"), "{named}");
}
