//! Text in, text out: what the text form can say, and what it refuses with line and column.

use insta::assert_snapshot;
use lsqc_passes::ir::{Attr, Attribute, Graph, Op, Tensor, verify};
use lsqc_passes::text::{PrintOptions, parse, parse_graph, print, print_graph, print_node};

/// Parses, verifies, prints, and checks that printing is stable.
fn again(text: &str) -> String {
    let model = parse(text).unwrap_or_else(|error| panic!("{error}"));
    verify(&model.graph).unwrap();
    let printed = print(&model, &PrintOptions::default());
    let second = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(second, model, "{printed}");
    assert_eq!(print(&second, &PrintOptions::default()), printed);
    printed
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("this should be refused").to_string()
}

#[test]
fn a_network() {
    assert_snapshot!(again(
        r#"<ir_version: 9, opset_import: ["" : 21, "com.microsoft" : 1], metadata_props: ["made by" : "a \"hand\""]>
        net (float[N,1,2,2] image) => (float[N,?] logits)
        <float[1,1,1,1] w = {0.5}, float s = {-1e-7}, float[N,1,2,2] "/conv/out">
        {   # a comment
            ["/layer1/0/conv1"] "/conv/out" = Conv <strides = [1, 1], auto_pad = "VALID"> (image, w, "")
            y, "" = com.microsoft.Odd (  "/conv/out", s) <alpha = 1.0, beta: float = 2>
            logits = "my-domain"."Op::x" (y)
            = Sink (y)
        }"#
    ), @r#"
    <ir_version: 9, opset_import: ["" : 21, "com.microsoft" : 1], metadata_props: ["made by" : "a \"hand\""]>
    net (float[N,1,2,2] image) => (float[N,?] logits)
    <float[1,1,1,1] w = {0.5},
      float s = {-1e-7},
      float[N,1,2,2] "/conv/out">
    {
      ["/layer1/0/conv1"] "/conv/out" = Conv <strides = [1, 1], auto_pad = "VALID"> (image, w, "")
      y, "" = com.microsoft.Odd <alpha = 1.0, beta = 2.0> ("/conv/out", s)
      logits = "my-domain"."Op::x" (y)
      = Sink (y)
    }
    "#);
}

#[test]
fn attributes() {
    assert_snapshot!(again(
        r#"g () => (y) {
            y = A <i = -3, f = inf, s = "a\x00b\\", t = int64[2] {1, -2}, is = [1], fs = [1, 2.5], ss = ["a", "b"],
                   no: ints = [], nf: floats = [], ns: strings = [], ng: graphs = [], "odd name" = 0.1> ()
        }"#
    ), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g () => (y)
    {
      y = A <i = -3, f = inf, s = "a\x00b\\", t = int64[2] {1, -2}, is = [1], fs = [1.0, 2.5], ss = ["a", "b"], no: ints = [], nf: floats = [], ns: strings = [], ng: graphs = [], "odd name" = 0.1> ()
    }
    "#);
}

#[test]
fn not_a_number_keeps_its_bits() {
    let text = "g () => (y) { y = A <a = nan(0x7fc00001), b = [nan, -inf]> () }";
    let graph = parse_graph(text).unwrap();
    let node = &graph[graph.node_list()[0]];
    assert_eq!(node.float("a").map(f32::to_bits), Some(0x7fc0_0001));
    let printed = print_graph(&graph, &PrintOptions::default());
    assert!(printed.contains("<a = nan(0x7fc00001), b = [nan, -inf]>"), "{printed}");
}

#[test]
fn subgraphs_capture_through_every_level() {
    assert_snapshot!(again(
        r#"g (bool c, float[2] x) => (float[2] y) <float[2] k = fill(1.5)> {
            y = If <then_branch = then () => (float[2] a) {
                        a = If <then_branch = "" () => (b) { b = Add (x, k) }, else_branch = e () => (d) { d = Neg (x) }> (c)
                    },
                    else_branch = else () => (float[2] b) { b = Identity (x) }> (c)
        }"#
    ), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[2] x) => (float[2] y)
    <float[2] k = {1.5, 1.5}>
    {
      y = If <then_branch = then () => (float[2] a)
        {
          a = If <then_branch = "" () => (b)
            {
              b = Add (x, k)
            }, else_branch = e () => (d)
            {
              d = Neg (x)
            }> (c)
        }, else_branch = else () => (float[2] b)
        {
          b = Identity (x)
        }> (c)
    }
    "#);
}

#[test]
fn every_element_type() {
    assert_snapshot!(again(
        r#"g () => (y) <
            float[4] f = {0.1, -0, nan, nan(0x7fa00000)}, double[3] d = {0.1, 1e300, -inf}, float16[3] h = {0.1, 65504, nan(0x7e01)},
            bfloat16[2] bf = {0.1, nan}, int8[2] i8 = {-128, 127}, uint8[1] u8 = {255}, int16[1] i16 = {-1}, uint16[1] u16 = {65535},
            int32[1] i32 = {-2147483648}, uint32[1] u32 = {4294967295}, int64[1] i64 = {-9223372036854775808},
            uint64[1] u64 = {18446744073709551615}, bool[2] bo = {true, 0}, string[2] s = {"é", "\xff"}, complex64[1] c = {1, -2},
            complex128[1] z = {0.5, inf}, uint4[3] u4 = {15, 0, 7}, int4[3] i4 = {-8, 7, -1}, uint2[5] u2 = {0, 1, 2, 3, 2},
            int2[3] i2 = {-2, 1, -1}, float8e4m3fn[1] e4 = {0x7f}, float8e4m3fnuz[1] e4z = {0x80}, float8e5m2[1] e5 = {0xff},
            float8e5m2fnuz[1] e5z = {0x01}, float8e8m0[1] e8 = {0x7f}, float4e2m1[3] e2 = {0x0f, 1, 2},
            float6e2m3[5] e2m3 = {0x3f, 0x01, 0x20, 0x15, 0x2a}, float6e3m2[1] e3m2 = {0x2a}, float[0,2] none = {}>
        { y = A (f) }"#
    ), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    g () => (y)
    <float[4] f = {0.1, -0.0, nan, nan(0x7fa00000)},
      double[3] d = {0.1, 1e300, -inf},
      float16[3] h = {0.099975586, 65504.0, nan(0x7e01)},
      bfloat16[2] bf = {0.100097656, nan},
      int8[2] i8 = {-128, 127},
      uint8[1] u8 = {255},
      int16[1] i16 = {-1},
      uint16[1] u16 = {65535},
      int32[1] i32 = {-2147483648},
      uint32[1] u32 = {4294967295},
      int64[1] i64 = {-9223372036854775808},
      uint64[1] u64 = {18446744073709551615},
      bool[2] bo = {1, 0},
      string[2] s = {"é", "\xff"},
      complex64[1] c = {1.0, -2.0},
      complex128[1] z = {0.5, inf},
      uint4[3] u4 = {15, 0, 7},
      int4[3] i4 = {-8, 7, -1},
      uint2[5] u2 = {0, 1, 2, 3, 2},
      int2[3] i2 = {-2, 1, -1},
      float8e4m3fn[1] e4 = {0x7f},
      float8e4m3fnuz[1] e4z = {0x80},
      float8e5m2[1] e5 = {0xff},
      float8e5m2fnuz[1] e5z = {0x01},
      float8e8m0[1] e8 = {0x7f},
      float4e2m1[3] e2 = {0x0f, 0x01, 0x02},
      float6e2m3[5] e2m3 = {0x3f, 0x01, 0x20, 0x15, 0x2a},
      float6e3m2[1] e3m2 = {0x2a},
      float[0,2] none = {}>
    {
      y = A (f)
    }
    "#);
}

#[test]
fn names_that_need_quotes() {
    assert_snapshot!(again(
        r#""" (float "float", "normal", float[2] "0" = {1, 2}, float["a b"] é) => ("/a/b:0", "float") {
            ["x.y"] "/a/b:0", "q\"\\\x0a" = Op ("normal", "0", "é", "seq")
        }"#
    .replace(", \"seq\"", "").replace("] é", "] \"é\"").as_str()), @r#"
    <ir_version: 8, opset_import: ["" : 17]>
    "" (float "float", "normal", float[2] "0" = {1.0, 2.0}, float["a b"] "é") => ("/a/b:0", float "float")
    {
      ["x.y"] "/a/b:0", "q\"\\\x0a" = Op ("normal", "0", "é")
    }
    "#);
}

#[test]
fn rules_give_the_same_elements_everywhere() {
    let graph =
        parse_graph("g () => (y) <float[3] w = normal(seed = 1, scale = 0.1), int8[2] i = fill(-3)> { y = A (w) }").unwrap();
    assert_snapshot!(print_graph(&graph, &PrintOptions::default()), @r"
    g () => (y)
    <float[3] w = {0.1424348, -0.061890427, -0.059076674},
      int8[2] i = {-3, -3}>
    {
      y = A (w)
    }
    ");
    let many = parse_graph("g () => (y) <double[4096] w = normal(seed = 7)> { y = A (w) }").unwrap();
    let values = many[many.initializers()[0]].constant().unwrap().to_f64().unwrap();
    let mean = values.iter().sum::<f64>() / 4096.0;
    let variance = values.iter().map(|v| v * v).sum::<f64>() / 4096.0;
    // Three standard errors of a mean and of a variance over 4096 normal numbers.
    assert!(
        mean.abs() < 3.0 / 64.0 && (variance - 1.0).abs() < 3.0 * 2f64.sqrt() / 64.0,
        "{mean} {variance}"
    );
}

#[test]
fn long_tensors_are_cut_short_for_people() {
    let graph = parse_graph("g () => (y) <float[9] w = fill(1.5)> { [a] y = A <t = float[9] fill(2)> (w) }").unwrap();
    let brief = print_graph(&graph, &PrintOptions::brief());
    assert_snapshot!(brief, @r"
    g () => (y)
    <float[9] w = {1.5, 1.5, 1.5, 1.5, …}>
    {
      [a] y = A <t = float[9] {2.0, 2.0, 2.0, 2.0, …}> (w)
    }
    ");
    assert_snapshot!(parse_graph(&brief).unwrap_err(), @r"
    line 2, column 36: elements are left out here ('…'): this text is for people only
      | <float[9] w = {1.5, 1.5, 1.5, 1.5, …}>
      |                                    ^
    ");
    assert_snapshot!(print_node(&graph, graph.node_list()[0]), @"[a] y = A <t = float[9] {2.0, 2.0, 2.0, 2.0, …}> (w)");
}

#[test]
fn functions_stand_behind_the_graph() {
    let text = r#"<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
g (float[N] x) => (float[N] y)
{
  [call] y = local.leaky:second <slope = 0.5> (x)
}
<domain: "local", overload: "second", opset_import: ["" : 17]>
leaky <slope, kinds: ints = [], shift = 0.5> (x, by) => (y)
{
  t = LeakyRelu <alpha: float = @slope> (x)
  y = If <then_branch = b () => (z)
    {
      z = Add (t, by)
    }, axes: ints = @kinds> (x)
}
<domain: "", opset_import: []>
nothing () => ()
{
}
"#;
    let model = parse(text).unwrap();
    assert_eq!(print(&model, &PrintOptions::default()), text);
    assert_eq!(model.functions.len(), 2);
}

#[test]
fn an_opaque_attribute_is_shown_and_refused() {
    let mut graph = Graph::new("g");
    let node = Attribute::new("a", Attr::Opaque(vec![1, 2, 3].into()));
    let y = graph.insert(Op::onnx("A"), &[], vec![node], "y");
    graph.add_output(y);
    let text = print_graph(&graph, &PrintOptions::default());
    assert_snapshot!(text, @r"
    g () => (y)
    {
      y = A <a = opaque(3 bytes)> ()
    }
    ");
    assert_snapshot!(parse_graph(&text).unwrap_err(), @r"
    line 3, column 14: the text form has no way to say the value of this attribute
      |   y = A <a = opaque(3 bytes)> ()
      |              ^
    ");
}

#[test]
fn a_renamed_captured_value_keeps_its_meaning() {
    let text = "g (float x) => (y) { y = A <body = b () => (z) { z, hides = Neg (x) }> () }";
    let mut graph = parse_graph(text).unwrap();
    let x = graph.inputs()[0];
    graph.rename(x, "hides");
    assert_snapshot!(print_graph(&graph, &PrintOptions::default()), @r"
    g (float hides) => (y)
    {
      y = A <body = b () => (z)
        {
          z, hides_1 = Neg (hides)
        }> ()
    }
    ");
    let constant = graph.add_constant("k", Tensor::scalar(1.0f32));
    graph.replace_uses(x, constant);
    verify(&graph).unwrap();
    assert_snapshot!(print_graph(&graph, &PrintOptions::default()), @r"
    g (float hides) => (y)
    <float k = {1.0}>
    {
      y = A <body = b () => (z)
        {
          z, hides = Neg (k)
        }> ()
    }
    ");
}

#[test]
fn refusals() {
    let cases = [
        "g (float x) => (y) { y = A (z) }",
        "g (float x) => (z) { y = A (x) }",
        "g (float x) => (x) { x = A (x) }",
        "g (float x, float x) => (x) { }",
        "g () => (y) <float z> { y = A () }",
        "g () => (y) <float[2] w = {1}> { y = A (w) }",
        "g () => (y) <float[N] w = {1}> { y = A (w) }",
        "g () => (y) <float w = 1> { y = A (w) }",
        "g () => (y) <float w = [\"location\": \"x\"]> { y = A (w) }",
        "g () => (y) <int8 w = {128}> { y = A (w) }",
        "g () => (y) <int4 w = {8}> { y = A (w) }",
        "g () => (y) <float6e2m3 w = {0x40}> { y = A (w) }",
        "g () => (y) <int8 w = normal(seed = 1)> { y = A (w) }",
        "g () => (y) <float[99999999999999] w = fill(1)> { y = A (w) }",
        "g () => (y) { y = A <a = []> () }",
        "g () => (y) { y = A <a = [1, \"b\"]> () }",
        "g () => (y) { y = A <a: int = 1.5> () }",
        "g () => (y) { y = A <a = @b> () }",
        "g () => (y) { y = A <a = 99999999999999999999> () }",
        "g () => (y) { y = A <s = \"open> () }",
        "g () => (seq(float) y) { y = A () }",
        "g () => (y) { y = A () } <domain: \"d\", producer: \"p\"> f (x) => (y) { y = Neg (x) }",
        "<producer_name: \"p\"> g () => (y) { y = A () }",
        "g () => (y) {\n\n\ty = A (((",
        "g",
        "",
    ];
    let all: Vec<String> = cases.iter().map(|text| refusal(text)).collect();
    assert_snapshot!(all.join("\n"), @r#"
    line 1, column 29: nothing above defines 'z'
      | g (float x) => (y) { y = A (z) }
      |                             ^
    line 1, column 17: nothing defines the output 'z'
      | g (float x) => (z) { y = A (x) }
      |                 ^
    line 1, column 22: the name 'x' is defined twice
      | g (float x) => (x) { x = A (x) }
      |                      ^
    line 1, column 19: the name 'x' is defined twice
      | g (float x, float x) => (x) { }
      |                   ^
    line 1, column 20: a type for 'z', which nothing defines
      | g () => (y) <float z> { y = A () }
      |                    ^
    line 1, column 27: a float tensor of shape [2] takes 2 entries, but there are 1
      | g () => (y) <float[2] w = {1}> { y = A (w) }
      |                           ^
    line 1, column 23: a constant needs a type whose extents are numbers
      | g () => (y) <float[N] w = {1}> { y = A (w) }
      |                       ^
    line 1, column 24: expected '{', normal(…) or fill(…), found '1'
      | g () => (y) <float w = 1> { y = A (w) }
      |                        ^
    line 1, column 24: expected '{' (the text form has no external data), found '['
      | g () => (y) <float w = ["location": "x"]> { y = A (w) }
      |                        ^
    line 1, column 24: '128' is no element of type int8
      | g () => (y) <int8 w = {128}> { y = A (w) }
      |                        ^
    line 1, column 24: '8' is no element of type int4
      | g () => (y) <int4 w = {8}> { y = A (w) }
      |                        ^
    line 1, column 30: '0x40' is no element of type float6e2m3
      | g () => (y) <float6e2m3 w = {0x40}> { y = A (w) }
      |                              ^
    line 1, column 23: normal gives floats, not int8
      | g () => (y) <int8 w = normal(seed = 1)> { y = A (w) }
      |                       ^
    line 1, column 40: fill makes at most 268435456 elements
      | g () => (y) <float[99999999999999] w = fill(1)> { y = A (w) }
      |                                        ^
    line 1, column 24: an empty list needs its type: 'axes: ints = []'
      | g () => (y) { y = A <a = []> () }
      |                        ^
    line 1, column 30: this is of another type than the values before it
      | g () => (y) { y = A <a = [1, "b"]> () }
      |                              ^
    line 1, column 23: attribute 'a' is said to be of another type than its value, float
      | g () => (y) { y = A <a: int = 1.5> () }
      |                       ^
    line 1, column 26: a reference to a function's attribute needs its type: 'alpha: float = @alpha'
      | g () => (y) { y = A <a = @b> () }
      |                          ^
    line 1, column 26: '99999999999999999999' is not an integer of 64 bits
      | g () => (y) { y = A <a = 99999999999999999999> () }
      |                          ^
    line 1, column 26: this string has no closing quote
      | g () => (y) { y = A <s = "open> () }
      |                          ^
    line 1, column 10: expected a tensor type (other types have no place in the text form; a name like this is quoted), found 'seq'
      | g () => (seq(float) y) { y = A () }
      |          ^
    line 1, column 40: unknown key 'producer': a function's header may have domain, overload and opset_import
      | g () => (y) { y = A () } <domain: "d", producer: "p"> f (x) => (y) { y = Neg (x) }
      |                                        ^
    line 1, column 2: unknown key 'producer_name': a model's header may have ir_version, opset_import and metadata_props
      | <producer_name: "p"> g () => (y) { y = A () }
      |  ^
    line 3, column 9: expected an operand's name, found '('
      |  y = A (((
      |         ^
    line 1, column 2: expected '(', found the end of the text
      | g
      |  ^
    line 1, column 1: expected a graph's name, found the end of the text
      | 
      | ^
    "#);
}
