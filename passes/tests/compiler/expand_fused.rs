//! The pass `expand-fused`, text in and text out, and each of its refusals. Numbers: tests/python/check_fused.py.

use crate::common::{nodes, notes, run_in};
use insta::assert_snapshot;
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::simplify::EXPAND_FUSED;

/// The nodes after the pass and what it declined.
fn expand(opset: i64, graph: &str) -> String {
    let mut cx = PassCx::new(&NoEvaluator);
    let text = format!("<ir_version: 10, opset_import: [\"\" : {opset}, \"com.microsoft\" : 1]> {graph}");
    match run_in(&[&EXPAND_FUSED], &mut cx, &text) {
        Ok(model) => [nodes(&model), notes(&cx)].join("\n").trim().to_owned(),
        Err(error) => error,
    }
}

/// Why a node `call` on floats x `[N,S,8]`, q `[N,2,S,4]`, w `[8,24]`, v `[8]`, h (half) and u (of no type), mask m `[N,S]`, p `[S]`, b (booleans)
/// stays, if it does; the graph is then as it was.
fn refusal(opset: i64, call: &str) -> String {
    let text = format!(
        "g (float[N,S,8] x, float[N,2,S,4] q, float[8,24] w, float[8] v, float16[N,S,8] h, u, int32[N,S] m, int32[S] p,
            bool[N,1] b, float[N,1,S,1] f) => (y) {{ {call} }}"
    );
    let given = expand(opset, &text);
    let (node, why) = given
        .split_once('\n')
        .unwrap_or_else(|| panic!("{call} is expanded: {given}"));
    assert!(!why.contains('\n'), "{call} leaves something behind: {given}");
    assert!(
        node.contains(
            call.split_once('=')
                .map_or("", |(_, call)| call.split('<').next().unwrap_or("").trim())
        ),
        "{node}"
    );
    why.split_once("it stays as it is: ").map_or(why, |(_, why)| why).to_owned()
}

#[test]
fn activations() {
    assert_snapshot!(expand(17, "
        g (float[N,8] x, float[8] b) => (a, c, d)
        {
            a = com.microsoft.BiasGelu (x, b)
            c = com.microsoft.FastGelu (x)
            d = com.microsoft.QuickGelu <alpha = 2.0> (x)
        }"), @r#"
    "a/Add" = Add (x, b)
    "a/Div" = Div ("a/Add", "a/const")
    "a/Erf" = Erf ("a/Div")
    "a/Add_1" = Add ("a/Erf", "a/const_1")
    "a/Mul" = Mul ("a/Add", "a/Add_1")
    a = Mul ("a/Mul", "a/const_2")
    "c/Mul" = Mul (x, x)
    "c/Mul_1" = Mul ("c/Mul", "c/const")
    "c/Add" = Add ("c/Mul_1", "c/const_1")
    "c/Mul_2" = Mul (x, "c/Add")
    "c/Tanh" = Tanh ("c/Mul_2")
    "c/Add_1" = Add ("c/Tanh", "c/const_2")
    "c/Mul_3" = Mul (x, "c/Add_1")
    c = Mul ("c/Mul_3", "c/const_3")
    "d/Mul" = Mul (x, "d/const")
    "d/Sigmoid" = Sigmoid ("d/Mul")
    d = Mul (x, "d/Sigmoid")
    "#);
}

#[test]
fn products() {
    assert_snapshot!(expand(17, "
        g (float[N,3,4] x, float[N,5,4] z, float[N,3,6,6] p, float[2,3,3,3] w, float[N,2,4,4] sum, float[4,4] s) => (a, b, c)
        {
            [product] a = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (x, z)
            [conv] b = com.microsoft.FusedConv <activation = \"LeakyRelu\", activation_params = [0.2], kernel_shape = [3, 3]> (p, w, \"\", sum)
            [gemm] c = com.microsoft.FusedGemm <activation = \"Relu\", transB = 1> (s, s)
        }"), @r#"
    "a/Transpose" = Transpose <perm = [0, 2, 1]> (z)
    "a/MatMul" = MatMul (x, "a/Transpose")
    a = Mul ("a/MatMul", "a/const")
    "b/Conv" = Conv <kernel_shape = [3, 3]> (p, w)
    "b/Add" = Add ("b/Conv", sum)
    b = LeakyRelu <alpha = 0.2> ("b/Add")
    "c/Gemm" = Gemm <transB = 1> (s, s)
    c = Relu ("c/Gemm")
    "#);
}

#[test]
fn normalizations() {
    let network = "
        g (int32[N,S] ids, int32[N,S] mask, float[9,8] words, float[7,8] places, float[8] g, float[8] b) => (y, z)
        {
            [embed] e, length = com.microsoft.EmbedLayerNormalization <epsilon = 0.001> (ids, \"\", words, places, \"\", g, b, mask)
            z = Neg (length)
            [skip] y, \"\", \"\", s = com.microsoft.SkipLayerNormalization (e, e, g, b, b)
        }";
    assert_snapshot!(expand(17, network), @r#"
    "e/Equal" = Equal (mask, "e/const")
    "e/Cast" = Cast <to = 6> ("e/Equal")
    "e/ReduceSum" = ReduceSum <keepdims = 0> ("e/Cast", "e/const_1")
    z = Neg ("e/ReduceSum")
    "e/Gather" = Gather (words, ids)
    "e/Shape" = Shape (ids)
    "e/Slice" = Slice ("e/Shape", "e/const_2", "e/const_3", "e/const_4", "e/const_5")
    "e/Slice_1" = Slice (places, "e/const_6", "e/Slice", "e/const_7")
    "e/Add" = Add ("e/Gather", "e/Slice_1")
    "e/LayerNormalization" = LayerNormalization <axis = -1, epsilon = 0.001> ("e/Add", g, b)
    "y/Add" = Add ("e/LayerNormalization", b)
    "y/Add_1" = Add ("y/Add", "e/LayerNormalization")
    y = LayerNormalization <axis = -1, epsilon = 1e-5> ("y/Add_1", g, b)
    "#);
    assert_snapshot!(expand(13, "
        g (float[N,8] x, float[8] g) => (y)
        {
            t = SimplifiedLayerNormalization <axis = 1> (x, g)
            y = LayerNormalization (t, g)
        }"), @r#"
    "t/Mul" = Mul (x, x)
    "t/ReduceMean" = ReduceMean <axes = [-1], keepdims = 1> ("t/Mul")
    "t/Add" = Add ("t/ReduceMean", "t/const")
    "t/Sqrt" = Sqrt ("t/Add")
    "t/Div" = Div (x, "t/Sqrt")
    "t/Mul_1" = Mul ("t/Div", g)
    "y/ReduceMean" = ReduceMean <axes = [-1], keepdims = 1> ("t/Mul_1")
    "y/Sub" = Sub ("t/Mul_1", "y/ReduceMean")
    "y/Mul" = Mul ("y/Sub", "y/Sub")
    "y/ReduceMean_1" = ReduceMean <axes = [-1], keepdims = 1> ("y/Mul")
    "y/Add" = Add ("y/ReduceMean_1", "y/const")
    "y/Sqrt" = Sqrt ("y/Add")
    "y/Div" = Div ("y/Sub", "y/Sqrt")
    y = Mul ("y/Div", g)
    "#);
}

#[test]
fn attention_of_onnx_runtime() {
    assert_snapshot!(expand(17, "
        g (float[N,S,8] x, float[8,24] w, float[24] b, int32[N,S] m) => (y)
        {
            [block] y = com.microsoft.Attention <num_heads = 2, unidirectional = 1> (x, w, b, m)
        }"), @r#"
    "y/Unsqueeze" = Unsqueeze (m, "y/const_1")
    "y/Cast" = Cast <to = 1> ("y/Unsqueeze")
    "y/Greater" = Greater ("y/Cast", "y/const")
    "y/Where" = Where ("y/Greater", "y/const", "y/const_2")
    "y/Slice" = Slice (w, "y/const_3", "y/const_4", "y/const_5", "y/const_6")
    "y/MatMul" = MatMul (x, "y/Slice")
    "y/Slice_1" = Slice (b, "y/const_7", "y/const_8", "y/const_9", "y/const_10")
    "y/Add" = Add ("y/MatMul", "y/Slice_1")
    "y/Slice_2" = Slice (w, "y/const_11", "y/const_12", "y/const_13", "y/const_14")
    "y/MatMul_1" = MatMul (x, "y/Slice_2")
    "y/Slice_3" = Slice (b, "y/const_15", "y/const_16", "y/const_17", "y/const_18")
    "y/Add_1" = Add ("y/MatMul_1", "y/Slice_3")
    "y/Slice_4" = Slice (w, "y/const_19", "y/const_20", "y/const_21", "y/const_22")
    "y/MatMul_2" = MatMul (x, "y/Slice_4")
    "y/Slice_5" = Slice (b, "y/const_23", "y/const_24", "y/const_25", "y/const_26")
    "y/Add_2" = Add ("y/MatMul_2", "y/Slice_5")
    "y/Reshape" = Reshape ("y/Add", "y/const_27")
    "y/Transpose" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape")
    "y/Reshape_1" = Reshape ("y/Add_1", "y/const_28")
    "y/Transpose_1" = Transpose <perm = [0, 2, 3, 1]> ("y/Reshape_1")
    "y/Reshape_2" = Reshape ("y/Add_2", "y/const_29")
    "y/Transpose_2" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape_2")
    "y/MatMul_3" = MatMul ("y/Transpose", "y/Transpose_1")
    "y/Mul" = Mul ("y/MatMul_3", "y/const_30")
    "y/Add_3" = Add ("y/Mul", "y/Where")
    "y/Shape" = Shape ("y/Transpose")
    "y/Gather" = Gather ("y/Shape", "y/const_31")
    "y/Range" = Range ("y/const_32", "y/Gather", "y/const_33")
    "y/Shape_1" = Shape ("y/Transpose_1")
    "y/Gather_1" = Gather ("y/Shape_1", "y/const_34")
    "y/Range_1" = Range ("y/const_35", "y/Gather_1", "y/const_36")
    "y/Unsqueeze_1" = Unsqueeze ("y/Range", "y/const_37")
    "y/LessOrEqual" = LessOrEqual ("y/Range_1", "y/Unsqueeze_1")
    "y/Where_1" = Where ("y/LessOrEqual", "y/Add_3", "y/const_38")
    "y/Softmax" = Softmax <axis = -1> ("y/Where_1")
    "y/MatMul_4" = MatMul ("y/Softmax", "y/Transpose_2")
    "y/Transpose_3" = Transpose <perm = [0, 2, 1, 3]> ("y/MatMul_4")
    y = Reshape ("y/Transpose_3", "y/const_39")
    "#);
    assert_snapshot!(expand(17, "
        g (float[N,S,8] q, float[N,T,8] k, float[N,T,8] v, int32[N] lengths) => (y)
        {
            y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, \"\", lengths)
        }"), @r#"
    "y/Shape" = Shape (k)
    "y/Gather" = Gather ("y/Shape", "y/const_1")
    "y/Range" = Range ("y/const_2", "y/Gather", "y/const_3")
    "y/Unsqueeze" = Unsqueeze (lengths, "y/const_4")
    "y/Cast" = Cast <to = 7> ("y/Unsqueeze")
    "y/Less" = Less ("y/Range", "y/Cast")
    "y/Where" = Where ("y/Less", "y/const", "y/const_5")
    "y/Reshape" = Reshape (q, "y/const_6")
    "y/Transpose" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape")
    "y/Reshape_1" = Reshape (k, "y/const_7")
    "y/Transpose_1" = Transpose <perm = [0, 2, 3, 1]> ("y/Reshape_1")
    "y/Reshape_2" = Reshape (v, "y/const_8")
    "y/Transpose_2" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape_2")
    "y/MatMul" = MatMul ("y/Transpose", "y/Transpose_1")
    "y/Mul" = Mul ("y/MatMul", "y/const_9")
    "y/Add" = Add ("y/Mul", "y/Where")
    "y/Softmax" = Softmax <axis = -1> ("y/Add")
    "y/MatMul_1" = MatMul ("y/Softmax", "y/Transpose_2")
    "y/Transpose_3" = Transpose <perm = [0, 2, 1, 3]> ("y/MatMul_1")
    y = Reshape ("y/Transpose_3", "y/const_10")
    "#);
    assert_snapshot!(expand(17, "
        g (float[N,S,8] q, float[N,T,8] k, float[N,T,8] v, float[24] b, float[1,1,S,T] s) => (y)
        {
            y = com.microsoft.MultiHeadAttention <num_heads = 2, scale = 1.0> (q, k, v, b, \"\", s)
        }"), @r#"
    "y/Slice" = Slice (b, "y/const", "y/const_1", "y/const_2", "y/const_3")
    "y/Add" = Add (q, "y/Slice")
    "y/Slice_1" = Slice (b, "y/const_4", "y/const_5", "y/const_6", "y/const_7")
    "y/Add_1" = Add (k, "y/Slice_1")
    "y/Slice_2" = Slice (b, "y/const_8", "y/const_9", "y/const_10", "y/const_11")
    "y/Add_2" = Add (v, "y/Slice_2")
    "y/Reshape" = Reshape ("y/Add", "y/const_12")
    "y/Transpose" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape")
    "y/Reshape_1" = Reshape ("y/Add_1", "y/const_13")
    "y/Transpose_1" = Transpose <perm = [0, 2, 3, 1]> ("y/Reshape_1")
    "y/Reshape_2" = Reshape ("y/Add_2", "y/const_14")
    "y/Transpose_2" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape_2")
    "y/MatMul" = MatMul ("y/Transpose", "y/Transpose_1")
    "y/Add_3" = Add ("y/MatMul", s)
    "y/Softmax" = Softmax <axis = -1> ("y/Add_3")
    "y/MatMul_1" = MatMul ("y/Softmax", "y/Transpose_2")
    "y/Transpose_3" = Transpose <perm = [0, 2, 1, 3]> ("y/MatMul_1")
    y = Reshape ("y/Transpose_3", "y/const_15")
    "#);
}

#[test]
fn attention_of_onnx() {
    assert_snapshot!(expand(23, "
        g (float[N,S,16] q, float[N,T,8] k, float[N,T,8] v, bool[S,T] m) => (y)
        {
            [block] y = Attention <q_num_heads = 4, kv_num_heads = 2, softcap = 5.0, is_causal = 1> (q, k, v, m)
        }"), @r#"
    "y/Reshape" = Reshape (q, "y/const")
    "y/Transpose" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape")
    "y/Reshape_1" = Reshape (k, "y/const_1")
    "y/Transpose_1" = Transpose <perm = [0, 2, 3, 1]> ("y/Reshape_1")
    "y/Reshape_2" = Reshape (v, "y/const_2")
    "y/Transpose_2" = Transpose <perm = [0, 2, 1, 3]> ("y/Reshape_2")
    "y/Gather" = Gather <axis = 1> ("y/Transpose_1", "y/const_3")
    "y/Gather_1" = Gather <axis = 1> ("y/Transpose_2", "y/const_3")
    "y/MatMul" = MatMul ("y/Transpose", "y/Gather")
    "y/Mul" = Mul ("y/MatMul", "y/const_4")
    "y/Mul_1" = Mul ("y/Mul", "y/const_5")
    "y/Tanh" = Tanh ("y/Mul_1")
    "y/Mul_2" = Mul ("y/Tanh", "y/const_6")
    "y/Shape" = Shape ("y/Transpose")
    "y/Gather_2" = Gather ("y/Shape", "y/const_7")
    "y/Range" = Range ("y/const_8", "y/Gather_2", "y/const_9")
    "y/Shape_1" = Shape ("y/Gather")
    "y/Gather_3" = Gather ("y/Shape_1", "y/const_10")
    "y/Range_1" = Range ("y/const_11", "y/Gather_3", "y/const_12")
    "y/Unsqueeze" = Unsqueeze ("y/Range", "y/const_13")
    "y/LessOrEqual" = LessOrEqual ("y/Range_1", "y/Unsqueeze")
    "y/And" = And (m, "y/LessOrEqual")
    "y/Where" = Where ("y/And", "y/Mul_2", "y/const_14")
    "y/Softmax" = Softmax <axis = -1> ("y/Where")
    "y/Where_1" = Where ("y/And", "y/Softmax", "y/const_15")
    "y/MatMul_1" = MatMul ("y/Where_1", "y/Gather_1")
    "y/Transpose_3" = Transpose <perm = [0, 2, 1, 3]> ("y/MatMul_1")
    y = Reshape ("y/Transpose_3", "y/const_16")
    "#);
    assert_snapshot!(expand(24, "
        g (float[N,4,S,8] q, float[N,4,T,8] k, float[N,4,T,6] v, float[S,T] m) => (y)
        {
            y = Attention <scale = 0.5> (q, k, v, m)
        }"), @r#"
    "y/Greater" = Greater (m, "y/const")
    "y/Max" = Max (m, "y/const")
    "y/Transpose" = Transpose <perm = [0, 1, 3, 2]> (k)
    "y/MatMul" = MatMul (q, "y/Transpose")
    "y/Mul" = Mul ("y/MatMul", "y/const_1")
    "y/Add" = Add ("y/Mul", "y/Max")
    "y/Where" = Where ("y/Greater", "y/Add", "y/const_2")
    "y/Softmax" = Softmax <axis = -1> ("y/Where")
    "y/Where_1" = Where ("y/Greater", "y/Softmax", "y/const_3")
    y = MatMul ("y/Where_1", v)
    "#);
}

#[test]
fn rotary_embedding() {
    assert_snapshot!(expand(23, "
        g (float[N,S,16] x, float[50,2] c, float[50,2] s, int64[N,S] p) => (y)
        {
            y = RotaryEmbedding <num_heads = 2, rotary_embedding_dim = 4, interleaved = 1> (x, c, s, p)
        }"), @r#"
    "y/Gather" = Gather (c, p)
    "y/Gather_1" = Gather (s, p)
    "y/Unsqueeze" = Unsqueeze ("y/Gather", "y/const")
    "y/Unsqueeze_1" = Unsqueeze ("y/Gather_1", "y/const_1")
    "y/Reshape" = Reshape (x, "y/const_2")
    "y/Slice" = Slice ("y/Reshape", "y/const_3", "y/const_4", "y/const_5", "y/const_6")
    "y/Slice_1" = Slice ("y/Reshape", "y/const_7", "y/const_8", "y/const_9", "y/const_10")
    "y/Mul" = Mul ("y/Unsqueeze", "y/Slice")
    "y/Mul_1" = Mul ("y/Unsqueeze_1", "y/Slice_1")
    "y/Mul_2" = Mul ("y/Unsqueeze_1", "y/Slice")
    "y/Mul_3" = Mul ("y/Unsqueeze", "y/Slice_1")
    "y/Sub" = Sub ("y/Mul", "y/Mul_1")
    "y/Add" = Add ("y/Mul_2", "y/Mul_3")
    "y/Unsqueeze_2" = Unsqueeze ("y/Sub", "y/const_11")
    "y/Unsqueeze_3" = Unsqueeze ("y/Add", "y/const_12")
    "y/Concat" = Concat <axis = 4> ("y/Unsqueeze_2", "y/Unsqueeze_3")
    "y/Reshape_1" = Reshape ("y/Concat", "y/const_13")
    "y/Slice_2" = Slice ("y/Reshape", "y/const_14", "y/const_15", "y/const_16", "y/const_17")
    "y/Concat_1" = Concat <axis = 3> ("y/Reshape_1", "y/Slice_2")
    y = Reshape ("y/Concat_1", "y/const_18")
    "#);
}

#[test]
fn types_behind_a_fused_op_are_found() {
    let text = "
        g (float[N,8] x, float[8,8] w) => (y)
        {
            a = com.microsoft.Gelu (x)
            t = MatMul (a, w)
            y = com.microsoft.FusedMatMul <transA = 1> (t, t)
        }";
    assert!(!expand(17, text).contains("microsoft"));
}

#[test]
fn what_has_no_spelling_stays() {
    let ms = |call: &str| refusal(17, &format!("y = com.microsoft.{call}"));
    let onnx = |call: &str| refusal(24, &format!("y = {call}"));
    let refusals = [
        refusal(12, "y = com.microsoft.Gelu (x)"),
        ms("Gelu <approximate = 1> (x)"),
        ms("Gelu (h)"),
        ms("Gelu (u)"),
        ms("Gelu ()"),
        ms("Gelu (x, x)"),
        ms("FusedMatMul <transA = 1.0> (x, x)"),
        ms("FusedMatMul <transA = 1> (v, x)"),
        ms("FusedGemm <activation = \"Mish\"> (w, w)"),
        ms("FusedGemm <activation = 1> (w, w)"),
        ms("FusedConv <activation = \"Clip\", activation_params = [1.0]> (x, x)"),
        ms("FusedConv <activation_params = [1]> (x, x)"),
        refusal(17, "z, y = com.microsoft.SkipLayerNormalization (x, x, v)"),
        ms("SkipLayerNormalization (x, x)"),
        ms("EmbedLayerNormalization (m, m, w, w, \"\", v, v)"),
        refusal(17, "z, y = com.microsoft.EmbedLayerNormalization (m, \"\", w, w, \"\", v, v)"),
        refusal(
            17,
            "z, y = com.microsoft.EmbedLayerNormalization (m, \"\", w, w, \"\", v, v, x)",
        ),
        refusal(17, "y = SimplifiedLayerNormalization <axis = 1> (x, v)"),
        ms("Attention <num_heads = 2> (x, w, \"\", p)"),
        ms("Attention <num_heads = 2> (x, w, \"\", x)"),
        ms("Attention <num_heads = 2> (x, w, \"\", \"\", q)"),
        ms("Attention <num_heads = 0> (x, w)"),
        ms("Attention (x, w)"),
        ms("Attention <num_heads = 3> (x, w)"),
        ms("Attention <num_heads = 2, do_rotary = 1> (x, w)"),
        ms("Attention <num_heads = 2, qkv_hidden_sizes = [8, 8]> (x, w)"),
        ms("Attention <num_heads = 2, qkv_hidden_sizes = [8, 4, 12]> (x, w)"),
        ms("Attention <num_heads = 2> (x, x)"),
        ms("Attention <num_heads = 2> (w, w)"),
        ms("MultiHeadAttention <num_heads = 2> (x)"),
        ms("MultiHeadAttention <num_heads = 2> (x, q, q)"),
        ms("MultiHeadAttention <num_heads = 2> (x, x, x, \"\", \"\", \"\", q, q)"),
        onnx("Attention <is_causal = 1> (q, q, q, \"\", q, q)"),
        onnx("Attention (q, q, q, \"\", \"\", \"\", p)"),
        refusal(24, "z, y = Attention (q, q, q)"),
        onnx("Attention <softmax_precision = 11> (q, q, q)"),
        onnx("Attention <left_window = 3> (q, q, q)"),
        onnx("Attention (x, x, x)"),
        onnx("Attention (x, q, x)"),
        onnx("Attention <q_num_heads = 4, kv_num_heads = 8> (x, x, x)"),
        onnx("Attention (q, q, q, p)"),
        onnx("Attention (q, q, q, b)"),
        onnx("Attention (q, q, q, m)"),
        onnx("RotaryEmbedding (x, w, w)"),
        onnx("RotaryEmbedding <rotary_embedding_dim = 3> (q, w, w)"),
        onnx("RotaryEmbedding <rotary_embedding_dim = 6> (q, w, w)"),
    ];
    assert_snapshot!(refusals.join("\n"), @r"
    operator set 12 is before 13
    lsqc does not know its attribute approximate
    its operand X is float16, not float
    the element type of its operand X is not known
    its operand X is missing
    it has more than 1 operands
    its attribute transA is no integer
    its operand A is no matrix
    lsqc does not know its activation Mish
    its attribute activation is no text
    the bounds of its Clip are missing
    its attribute activation_params holds no floats
    its result y is used
    its operand gamma is missing
    it has either segments or their embedding
    its result mask_index without a mask is used
    its mask is not int32
    it normalizes from axis 1 on, not over the last alone
    its mask of rank 1 is not known to have a number for each sample
    its mask holds floats
    it has the operand past
    its attribute num_heads is 0
    its attribute num_heads is missing
    the 8 features of a query are not those of 3 heads
    its attribute do_rotary is set
    its attribute qkv_hidden_sizes holds no three integers
    its widths [8, 4, 12] do not fit 24 columns
    its 8 columns of weights are not those of three
    its operand input has not rank 3
    its operand key is missing
    its operand key has not rank 3
    it has more than 6 operands
    it has the operand past_key
    it has the operand nonpad_kv_seqlen
    its result present_key is used
    its softmax is not in the precision of float
    lsqc does not know its attribute left_window
    its attribute q_num_heads is missing
    its operands have the ranks [3, 4, 3]
    heads of Q and K have other sizes
    its mask is int32
    its mask may have fewer keys than K
    its mask is int32
    its attribute num_heads is missing
    its 3 features are no pairs
    it turns 6 of 4 features
    ");
}

/// Calls of every fused op with operands and attributes of any kind: each is expanded or left, and nothing panics.
#[test]
fn any_operands_and_attributes_are_taken_or_declined() {
    const OPS: [&str; 15] = [
        "com.microsoft.Gelu",
        "com.microsoft.FastGelu",
        "com.microsoft.BiasGelu",
        "com.microsoft.QuickGelu",
        "com.microsoft.FusedMatMul",
        "com.microsoft.FusedGemm",
        "com.microsoft.FusedConv",
        "com.microsoft.SkipLayerNormalization",
        "com.microsoft.SkipSimplifiedLayerNormalization",
        "com.microsoft.EmbedLayerNormalization",
        "com.microsoft.Attention",
        "com.microsoft.MultiHeadAttention",
        "SimplifiedLayerNormalization",
        "Attention",
        "RotaryEmbedding",
    ];
    const OPERANDS: [&str; 14] = ["x", "x", "x", "q", "q", "w", "w", "v", "m", "p", "b", "u", "s", "\"\""];
    const NAMES: [&str; 18] = [
        "num_heads",
        "q_num_heads",
        "kv_num_heads",
        "scale",
        "softcap",
        "is_causal",
        "unidirectional",
        "qkv_hidden_sizes",
        "transA",
        "transBatchB",
        "alpha",
        "activation",
        "activation_params",
        "activation_alpha",
        "epsilon",
        "axis",
        "interleaved",
        "rotary_embedding_dim",
    ];
    const VALUES: [&str; 14] = [
        "1",
        "2",
        "2",
        "2",
        "0",
        "-1",
        "9223372036854775807",
        "0.5",
        "\"Relu\"",
        "\"Clip\"",
        "[8, 8, 8]",
        "[-8, -8, 40]",
        "[0.5, 1.5]",
        "float {1}",
    ];
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    let mut expanded = 0;
    for _ in 0..4000 {
        let op = OPS[below(OPS.len())];
        let operands: Vec<&str> = (0..below(6)).map(|_| OPERANDS[below(OPERANDS.len())]).collect();
        let mut names: Vec<&str> = (0..below(4)).map(|_| NAMES[below(NAMES.len())]).collect();
        names.sort_unstable();
        names.dedup();
        let attributes: Vec<String> = names
            .iter()
            .map(|name| format!("{name} = {}", VALUES[below(VALUES.len())]))
            .collect();
        let opset = [13, 17, 23, 24][below(4)];
        let call = format!("y = {op} <{}> ({})", attributes.join(", "), operands.join(", "));
        let given = expand(
            opset,
            &format!(
                "g (float[N,S,8] x, float[N,2,S,4] q, float[8,24] w, float[8] v, float s, u, int32[N,S] m, int32[S] p, bool[S,S] b)
                    => (y) {{ {call} }}"
            ),
        );
        expanded += usize::from(!given.contains("it stays as it is"));
    }
    assert!(expanded > 50, "only {expanded} calls are expanded");
}
