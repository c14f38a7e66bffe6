//! Type rules of the op table: what little is known of operands never makes them wrong, and what ops without a gradient give.

use std::collections::HashMap;

use crate::common::run_in;
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Dim, Graph, Op, TensorType, ValueId};
use lsqc_passes::ops::sample::{Kind, Sample};
use lsqc_passes::ops::{self, InferCx, OpEntry};
use lsqc_passes::pass::{NoEvaluator, PassCx};

/// How much is known of an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Everything,
    /// Its type, but not its elements.
    Type,
    /// Its element type and its rank; extents have names.
    Names,
    /// Its element type and its rank.
    Rank,
    /// Its element type.
    Dtype,
    Nothing,
}

const LESS: [Known; 5] = [Known::Type, Known::Names, Known::Rank, Known::Dtype, Known::Nothing];

fn typed(entry: &OpEntry, sample: &Sample, known: impl Fn(usize) -> Known) -> Result<Vec<Option<TensorType>>, String> {
    let mut graph = Graph::new("sample");
    let mut inputs: Vec<Option<ValueId>> = Vec::new();
    for (index, operand) in sample.inputs.iter().enumerate() {
        let Some(operand) = operand else {
            inputs.push(None);
            continue;
        };
        let (dtype, shape) = (operand.tensor.dtype(), operand.tensor.shape());
        let name = format!("x{index}");
        let ty = match known(index) {
            Known::Everything if operand.kind == Kind::Constant => {
                inputs.push(Some(graph.add_constant(&name, operand.tensor.clone())));
                continue;
            }
            Known::Everything | Known::Type => Some(TensorType::fixed(dtype, shape)),
            Known::Names => {
                let names = shape.iter().map(|extent| Dim::Symbol(format!("n{extent}")));
                Some(TensorType::new(dtype, names.collect()))
            }
            Known::Rank => Some(TensorType::new(dtype, vec![Dim::Unknown; shape.len()])),
            Known::Dtype => Some(TensorType::unranked(dtype)),
            Known::Nothing => None,
        };
        inputs.push(Some(graph.add_input(&name, ty, None).expect("names differ")));
    }
    let results: Vec<String> = (0..sample.results).map(|index| format!("y{index}")).collect();
    let results: Vec<&str> = results.iter().map(String::as_str).collect();
    let op = Op {
        domain: entry.domain.into(),
        name: entry.name.into(),
    };
    let outputs = graph.insert_many(op, &inputs, sample.attributes.clone(), &results);
    let node = graph[outputs[0]].producer().expect("it was just made");
    let none = HashMap::new();
    (entry.infer)(&InferCx::new(&graph, node, &none, sample.opset))
}

/// Could a value of type `known` be of type `vague`?
fn agrees(vague: &TensorType, known: &TensorType) -> bool {
    let dims = |vague: &Dim, known: &Dim| match (vague, known) {
        (Dim::Unknown, _) => true,
        (Dim::Symbol(name), Dim::Known(extent)) => *name == format!("n{extent}"),
        (vague, known) => vague == known,
    };
    let shapes = match (&vague.shape, &known.shape) {
        (None, _) => true,
        (Some(vague), Some(known)) => vague.len() == known.len() && vague.iter().zip(known).all(|(a, b)| dims(a, b)),
        (Some(_), None) => false,
    };
    vague.dtype == known.dtype && shapes
}

#[test]
fn knowing_less_of_operands_makes_no_type_wrong() {
    let mut seen = 0;
    for entry in ops::entries() {
        for sample in (entry.samples)() {
            let exact = typed(entry, &sample, |_| Known::Everything).unwrap();
            for less in LESS {
                // Of one operand, and of all.
                for of in (0..sample.inputs.len()).map(Some).chain([None]) {
                    let case = format!("{}, {}: {less:?} of {of:?}", entry.name, sample.about);
                    let known = |index| {
                        if of.is_none_or(|of| of == index) {
                            less
                        } else {
                            Known::Everything
                        }
                    };
                    let vague = typed(entry, &sample, known).unwrap_or_else(|why| panic!("{case}: {why}"));
                    for (vague, exact) in vague.iter().zip(&exact) {
                        if let (Some(vague), Some(exact)) = (vague, exact) {
                            assert!(agrees(vague, exact), "{case}: {vague}, but it is {exact}");
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 2000, "the op table has samples");
}

/// The types of what the nodes of a graph give, a line each.
fn types(text: &str) -> Result<String, String> {
    let model = run_in(&[&INFER_TYPES], &mut PassCx::new(&NoEvaluator), text)?;
    let graph = &model.graph;
    let outputs = graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten().copied());
    let line = |value: ValueId| {
        let ty = graph[value].ty.as_ref().map_or("unknown".to_owned(), ToString::to_string);
        format!("{}: {ty}", graph[value].name())
    };
    Ok(outputs.map(line).collect::<Vec<_>>().join("\n"))
}

#[test]
fn recurrent_layers_give_states_in_either_layout() {
    let text = "g (float[7,N,3] x, float[2,4,3] w, float[2,4,4] r, float[N,7,3] xb, float u) => (a, d, k)
        {
          a, b, c = LSTM <direction = \"bidirectional\", hidden_size = 4> (x, w, r)
          d, e = GRU <layout = 1> (xb, w, r)
          unseen = some.domain.Op (x)
          k, l = RNN <hidden_size = 5> (unseen, w, r)
        }";
    assert_snapshot!(types(text).unwrap(), @"
    a: float[7,2,N,4]
    b: float[2,N,4]
    c: float[2,N,4]
    d: float[N,7,1,4]
    e: float[N,1,4]
    unseen: unknown
    k: unknown
    l: unknown
    ");
    let flat = "g (float[7,3] x, float[1,4,3] w, float[1,4,4] r) => (a) { a = LSTM (x, w, r) }";
    assert_snapshot!(types(flat).unwrap_err(), @"LSTM -> a (LSTM): its input has rank 3, not 2");
}

#[test]
fn random_draws_take_the_type_that_they_name() {
    let text = "g (double[2,N] x) => (a, b, c, d)
        {
          a = RandomNormal <shape = [2, 3]> ()
          b = RandomUniformLike <dtype = 1> (x)
          c = Bernoulli (x)
          d = Multinomial <sample_size = 5, dtype = 7> (x)
        }";
    assert_snapshot!(types(text).unwrap(), @"
    a: float[2,3]
    b: float[2,N]
    c: double[2,N]
    d: int64[2,5]
    ");
    let absurd = "g (float[2] x) => (a) { a = Bernoulli <dtype = 99> (x) }";
    assert_snapshot!(types(absurd).unwrap_err(), @"Bernoulli -> a (Bernoulli): dtype 99 names no element type");
}

#[test]
fn what_is_counted_at_run_time_has_no_extent() {
    let text = "g (float[2,3] x, bool[3] keep, float[1,6,4] boxes, float[1,2,6] scores) => (a, b, c, h)
        {
          a = Compress <axis = -1> (x, keep)
          b = Compress (x, keep)
          c, d, e, f = Unique <axis = 0> (x)
          h = NonMaxSuppression (boxes, scores)
        }";
    assert_snapshot!(types(text).unwrap(), @"
    a: float[2,?]
    b: float[?]
    c: float[?,3]
    d: int64[?]
    e: int64[?]
    f: int64[?]
    h: int64[?,3]
    ");
}

#[test]
fn tests_and_bit_operations_broadcast() {
    let text = "g (float[2,3] x, uint8[2,1] i, uint8[3] j) => (a, b, c, d, e)
        {
          a = IsNaN (x)
          b = IsInf (x)
          c = BitShift <direction = \"LEFT\"> (i, j)
          d = BitwiseNot (i)
          e = EyeLike <dtype = 7> (x)
        }";
    assert_snapshot!(types(text).unwrap(), @"
    a: bool[2,3]
    b: bool[2,3]
    c: uint8[2,3]
    d: uint8[2,1]
    e: int64[2,3]
    ");
}

#[test]
fn samplers_and_attention_follow_their_places() {
    let text = "g (float[N,3,8,8] x, float[N,5,6,2] grid, float[9,4] rois, int64[9] of, float[4,3,3,3] w, float[N,18,6,6] offsets,
          float[N,2,5,4] q, float[N,2,7,4] k, float[N,2,7,6] v, float[N,5,8] q3, float[N,7,8] k3, float[N,7,6] v3) => (a, b, c, d, e, f)
        {
          a = GridSample (x, grid)
          b = RoiAlign <output_height = 7, output_width = 5> (x, rois, of)
          c = MaxRoiPool <pooled_shape = [2, 3]> (x, rois)
          d = DeformConv (x, w, offsets)
          e = Attention (q, k, v)
          f = Attention <q_num_heads = 4, kv_num_heads = 2> (q3, k3, v3)
        }";
    assert_snapshot!(types(text).unwrap(), @"
    a: float[N,3,5,6]
    b: float[9,3,7,5]
    c: float[9,3,2,3]
    d: float[N,4,6,6]
    e: float[N,2,5,6]
    f: float[N,5,12]
    ");
}

#[test]
fn a_resize_follows_scales_sizes_and_a_named_axis() {
    let text = "g (float[N,3,8,9] x) => (a, b, c, d)
        <float[4] scales = {1, 1, 2, 0.5}, int64[4] sizes = {1, 3, 5, 6}, int64[1] one = {4}>
        {
          a = Resize (x, \"\", scales)
          b = Resize (x, \"\", \"\", sizes)
          c = Resize <axes = [-1]> (x, \"\", \"\", one)
          d = Resize <keep_aspect_ratio_policy = \"not_larger\"> (x, \"\", \"\", sizes)
        }";
    assert_snapshot!(types(text).unwrap(), @"
    a: float[N,3,16,4]
    b: float[1,3,5,6]
    c: float[N,3,8,4]
    d: float[?,?,?,?]
    ");
    let short = "g (float[1,3,8,9] x) => (a) <float[2] scales = {2, 2}> { a = Resize (x, \"\", scales) }";
    assert_snapshot!(types(short).unwrap_err(), @"Resize -> a (Resize): 2 scales for 4 axes");
}

#[test]
fn what_does_not_fit_is_refused() {
    let refusal = |text: &str| types(text).unwrap_err().lines().next().unwrap_or_default().to_owned();
    let refused = [
        "g (float[1,3,4,4] x) => (a) { a = DepthToSpace <blocksize = 2> (x) }",
        "g (float[1,3,5,4] x) => (a) { a = SpaceToDepth <blocksize = 2> (x) }",
        "g (float[1,3,5] x) => (a) { a = SpaceToDepth <blocksize = 2> (x) }",
        "g (float[1,3,4,4] x, float[2,3,2,2] w) => (a) { a = ConvTranspose (x, w) }",
        "g (float[1,2,4,4] x, float[2,3,2] w) => (a) { a = ConvTranspose (x, w) }",
        "g (float[1,2,2,2] x, float[2,3,2,2] w) => (a) { a = ConvTranspose <pads = [2, 2, 2, 2]> (x, w) }",
        "g (float[2,3] x, float[4,2] y) => (a) { a = Einsum <equation = \"ij,jk->ik\"> (x, y) }",
        "g (float[2,3] x) => (a) { a = Einsum <equation = \"ijk->k\"> (x) }",
        "g (float[2,3] x) => (a) { a = Einsum <equation = \"ij->k\"> (x) }",
        "g (float[2,3] x, int64[2,3] i) => (a) { a = GatherND (x, i) }",
        "g (float[2,3] x) => (a) { a = RandomNormal <shape = [-1]> () }",
    ];
    assert_snapshot!(refused.map(refusal).join("\n"), @"
    DepthToSpace -> a (DepthToSpace): an extent of 3 does not divide by 4
    SpaceToDepth -> a (SpaceToDepth): an extent of 5 does not divide by 2
    SpaceToDepth -> a (SpaceToDepth): its operand has rank 4, not 3
    ConvTranspose -> a (ConvTranspose): the input has 3 channels, the weight takes 2
    ConvTranspose -> a (ConvTranspose): input and weight differ in rank
    ConvTranspose -> a (ConvTranspose): pads cut off more than there is
    Einsum -> a (Einsum): extents 3 and 4 do not broadcast
    Einsum -> a (Einsum): its term does not fit operand 0, of rank 2
    Einsum -> a (Einsum): a label of the result has no axis
    GatherND -> a (GatherND): indices of 3 axes into 2
    RandomNormal -> a (RandomNormal): shape is not negative
    ");
}
