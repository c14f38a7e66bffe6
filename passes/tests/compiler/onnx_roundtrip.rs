//! Reading and then writing gives the same message; what was changed in between, and nothing else, is changed in the message.

use std::collections::HashMap;

use crate::onnx_samples::*;
use bytes::Bytes;
use lsqc_passes::ir::{Attr, DType, Def, Dim, Form, Literal, Names, Op, Tensor, TensorType, verify};
use lsqc_passes::onnx::proto::attribute_proto::AttributeType;
use lsqc_passes::onnx::proto::*;
use lsqc_passes::onnx::{
    ExternalData, NoExternalData, OwnOps, ReadError, Warning, WriteError, WriteOptions, check_opset, read, write,
};
use prost::Message;

#[test]
fn something_of_everything() {
    let model = same(&sampler());
    let find = |name| &model.graph[model.graph.find(name).unwrap()];
    assert_eq!(
        find("x").ty,
        Some(TensorType::new(DType::F32, vec![Dim::Symbol("N".into()), Dim::Known(3)]))
    );
    assert!(matches!(find("d").def(), Def::Input(Some(_))));
    assert_eq!(find("sequence").ty, None);
    for sparse in ["s", "p"] {
        assert_eq!(
            find(sparse).constant(),
            Some(&Tensor::new(&[2, 3], vec![0f32, 1.0, 0.0, 0.0, 0.0, 2.0]))
        );
    }
    assert_eq!(model.opset(), 17);
    assert_eq!(
        model.metadata,
        [("k".to_owned(), String::new()), (String::new(), "v".to_owned())]
    );
    let node = &model.graph[model.graph.node_list()[0]];
    assert!(node.op.is("Conv"));
    assert_eq!(node.int("zero"), Some(0));
    assert!(matches!(node.attr("untyped"), Some(Attr::Opaque(_))));
    assert_eq!(node.origin.source.as_deref(), Some("first"));
}

#[test]
fn functions_are_graphs_unless_they_are_none() {
    let function = |name: &str, node: NodeProto| FunctionProto {
        name: some(name),
        domain: some("local"),
        doc_string: some("text"),
        overload: some(""),
        input: vec!["a".to_owned(), "unused".to_owned()],
        output: vec!["b".to_owned()],
        attribute: vec!["alpha".to_owned()],
        attribute_proto: vec![AttributeProto {
            name: some("beta"),
            r#type: Some(AttributeType::Float as i32),
            f: Some(0.5),
            ..AttributeProto::default()
        }],
        node: vec![node],
        opset_import: vec![OperatorSetIdProto {
            domain: some(""),
            version: Some(17),
        }],
        value_info: vec![value("b", &[2])],
        ..FunctionProto::default()
    };
    let reference = AttributeProto {
        name: some("alpha"),
        ref_attr_name: some("beta"),
        r#type: Some(AttributeType::Float as i32),
        doc_string: some("a reference"),
        ..AttributeProto::default()
    };
    let mut call = node("good", &["x"], &["y"], vec![]);
    call.domain = some("local");
    call.overload = some("");
    let mut proto = model(graph("g", &["x"], &["y"], vec![call]));
    proto.functions = vec![
        function("good", node("Elu", &["a"], &["b"], vec![reference])),
        function("bad", node("Neg", &["nothing"], &["b"], vec![])),
    ];
    let read = same(&proto);
    let bodies: Vec<bool> = read.functions.iter().map(|function| function.body.is_ok()).collect();
    assert_eq!(bodies, [true, false]);
    let Attr::Reference { name, .. } = &read.functions[0].body.as_ref().unwrap().nodes().next().unwrap().1.attributes[0].value
    else {
        panic!("it is no reference");
    };
    assert_eq!(name, "beta");
}

#[test]
fn the_empty_and_the_least() {
    same(&model(graph("", &["x"], &["x"], vec![])));
    let nothing = ModelProto {
        graph: Some(GraphProto {
            input: vec![value("x", &[])],
            output: vec![ValueInfoProto {
                name: some("x"),
                ..ValueInfoProto::default()
            }],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    same(&nothing);
}

#[test]
fn every_element_type_in_raw_and_typed_fields() {
    for &dtype in DType::ALL {
        for count in [0i64, 1, 2, 3, 4, 5, 9] {
            let mut graph = graph("g", &["x"], &["x"], vec![]);
            if dtype == DType::String {
                graph.initializer = vec![TensorProto {
                    string_data: (0..count).map(|n| vec![n as u8; n as usize].into()).collect(),
                    raw_data: None,
                    ..raw("t", dtype, &[count])
                }];
                same(&model(graph));
                continue;
            }
            graph.initializer = vec![raw("t", dtype, &[count])];
            let read = same(&model(graph.clone()));
            // The same elements from the typed field, which a writer of typed data makes.
            let mut typed = read.clone();
            let id = typed.graph.find("t").unwrap();
            let tensor = typed.graph[id].constant().unwrap().clone();
            typed.graph = lsqc_passes::ir::Graph::new("g");
            let x = typed.graph.add_input("x", None, None).unwrap();
            typed.graph.set_outputs(vec![x]);
            let literal = Literal {
                tensor: tensor.clone(),
                form: Form::Typed,
                remainder: Bytes::new(),
            };
            typed.graph.add_initializer("t", literal).unwrap();
            let proto = written(&typed);
            assert_eq!(proto.graph.as_ref().unwrap().initializer[0].raw_data, None);
            let again = same(&proto);
            let found = again.graph[again.graph.find("t").unwrap()].constant().unwrap();
            if dtype.bits().is_some_and(|bits| (bits * count as usize).is_multiple_of(8)) {
                assert_eq!(*found, tensor, "{dtype} {count}");
            }
        }
    }
}

#[test]
fn six_bit_floats_are_packed_as_the_schema_says() {
    let mut graph = graph("g", &["x"], &["x"], vec![]);
    graph.initializer = vec![TensorProto {
        int32_data: vec![0x3f, 0x01, 0x20, 0x15, 0x2a],
        raw_data: None,
        ..raw("t", DType::F6E2M3, &[5])
    }];
    let model = same(&model(graph));
    let tensor = model.graph[model.graph.initializers()[0]].constant().unwrap().clone();
    assert_eq!(tensor.bytes()[..], [0x7f, 0x00, 0x56, 0x2a]);
}

#[test]
fn entries_that_say_more_than_the_element_are_kept() {
    let mut proto = graph("g", &["x"], &["x"], vec![]);
    proto.initializer = vec![TensorProto {
        int32_data: vec![255, -1, 256],
        raw_data: None,
        ..raw("t", DType::U8, &[3])
    }];
    let mut read = same(&model(proto));
    let id = read.graph.find("t").unwrap();
    assert_eq!(read.graph[id].constant(), Some(&Tensor::vector(vec![255u8, 255, 0])));
    read.graph.set_literal(id, Tensor::vector(vec![1u8]));
    let tensor = &written(&read).graph.unwrap().initializer[0];
    assert_eq!((tensor.int32_data.len(), tensor.raw_data.as_deref()), (0, Some(&[1u8][..])));
}

#[test]
fn a_changed_sparse_initializer_becomes_dense() {
    let mut proto = graph("g", &["x"], &["x"], vec![]);
    proto.sparse_initializer = vec![sparse("s", &[1, 5], &[2])];
    let mut read = same(&model(proto));
    let id = read.graph.find("s").unwrap();
    read.graph.rename(id, "renamed");
    let renamed = written(&read).graph.unwrap();
    assert_eq!(renamed.sparse_initializer[0].values.as_ref().unwrap().name(), "renamed");
    read.graph.set_literal(id, Tensor::scalar(1.0f32));
    let dense = written(&read).graph.unwrap();
    assert_eq!((dense.sparse_initializer.len(), dense.initializer.len()), (0, 1));
}

#[test]
fn a_changed_type_is_written_and_the_rest_of_the_entry_kept() {
    let mut read = same(&sampler());
    let u = read.graph.find("u").unwrap();
    read.graph[u].ty = Some(TensorType::fixed(DType::F32, &[1, 10]));
    let graph = written(&read).graph.unwrap();
    assert_eq!(graph.output[0], value("u", &[1, 10]));
    assert_eq!(graph.output[2].doc_string(), "again");
    assert_eq!(graph.value_info[2], value("u", &[1, 10]));
    assert_eq!(graph.output[1], value("x", &[-2, -1]));
}

#[test]
fn a_removed_value_leaves_the_others_listed_in_order() {
    let mut proto = graph(
        "g",
        &["x"],
        &["z"],
        vec![
            node("A", &["x"], &["a"], vec![]),
            node("B", &["x"], &["b"], vec![]),
            node("C", &["b"], &["z"], vec![]),
        ],
    );
    proto.value_info = vec![value("b", &[1]), value("a", &[2]), value("elsewhere", &[3])];
    let mut read = same(&model(proto));
    assert!(read.graph.remove_node(read.graph.node_list()[0]));
    let b = read.graph.find("b").unwrap();
    read.graph.rename(b, "c");
    let names: Vec<String> = written(&read)
        .graph
        .unwrap()
        .value_info
        .iter()
        .map(|v| v.name().to_owned())
        .collect();
    assert_eq!(names, ["c", "elsewhere"]);
}

#[test]
fn captured_values_are_written_under_their_present_names() {
    let mut read = same(&sampler());
    let x = read.graph.find("x").unwrap();
    read.graph.rename(x, "local");
    let proto = written(&read);
    let body = proto.graph.as_ref().unwrap().node[1].attribute[0].g.clone().unwrap();
    let innermost = body.node[1].attribute[0].g.as_ref().unwrap();
    // `x` is called `local` now, so the `local` inside it had to give way.
    assert_eq!(innermost.node[0].input, ["local", "local_1"]);
    assert_eq!(body.node[0].output, ["local_1"]);
    let (again, _) = read_proto(&proto).unwrap();
    verify(&again.graph).unwrap();
    let names = Names::outermost();
    assert_eq!(names.get(&again.graph, again.graph.inputs()[0]), "local");
}

#[test]
fn nodes_out_of_order_are_sorted_with_a_warning() {
    let inner = graph("inner", &[], &["i"], vec![node("Neg", &["b"], &["i"], vec![])]);
    let proto = model(graph(
        "g",
        &["x"],
        &["z"],
        vec![
            node("First", &["x"], &["a"], vec![]),
            node(
                "Late",
                &["a"],
                &["z"],
                vec![attribute("body", AttributeType::Graph, |a| a.g = Some(inner))],
            ),
            node("Needed", &["x"], &["b"], vec![]),
        ],
    ));
    let (read, warnings) = read_proto(&proto).unwrap();
    verify(&read.graph).unwrap();
    assert_eq!(
        warnings,
        [Warning::Reordered {
            graph: "g".into(),
            node: "Late -> z".into()
        }]
    );
    let ops: Vec<String> = written(&read)
        .graph
        .unwrap()
        .node
        .iter()
        .map(|node| node.op_type().to_owned())
        .collect();
    assert_eq!(ops, ["First", "Needed", "Late"]);
}

#[test]
fn fields_that_the_schema_does_not_know_are_named() {
    let mut bytes = sampler().encode_to_vec();
    // Field 99 twice, as a number and as a group with a field in it.
    bytes.extend([0x98, 0x06, 0x01, 0x9b, 0x06, 0x08, 0x01, 0x9c, 0x06]);
    let mut inner = GraphProto::default().encode_to_vec();
    inner.extend([0x1a, 0x01, 0x00, 0x22, 0x02, 0x00, 0x00]);
    bytes.extend([0x3a, inner.len() as u8]);
    bytes.extend(inner);
    let (_, warnings) = read(bytes.into(), &NoExternalData).unwrap();
    let field = |message, number, count| Warning::UnknownField { message, number, count };
    assert_eq!(
        warnings,
        [
            field("GraphProto", 3, 1),
            field("GraphProto", 4, 1),
            field("ModelProto", 99, 2)
        ]
    );
    assert_eq!(
        warnings[0].to_string(),
        "field 3 of GraphProto is not in ONNX's schema (IR version 14) and is not kept; it is there once"
    );
}

#[test]
fn an_opset_outside_the_range_is_read_with_a_warning() {
    let mut proto = model(graph("g", &["x"], &["x"], vec![]));
    proto.opset_import[0].version = Some(26);
    let (read, warnings) = read_proto(&proto).unwrap();
    assert_eq!(warnings, [Warning::Opset { version: 26 }]);
    assert_eq!(written(&read), proto);
    assert_eq!(check_opset(&read), Err(ReadError::Opset { version: 26 }));
}

#[test]
fn ops_of_lsqc_do_not_reach_a_file_by_accident() {
    let mut read = same(&model(graph("g", &["x"], &["x"], vec![])));
    let x = read.graph.inputs()[0];
    read.graph.insert(Op::lsqc("FakeQuantize"), &[x], vec![], "q");
    let refused = write(&read, &WriteOptions::default()).unwrap_err();
    assert!(
        matches!(&refused, WriteError::OwnOp { node, .. } if node == "lsqc.FakeQuantize -> q"),
        "{refused}"
    );
    let keep = WriteOptions {
        own_ops: OwnOps::Keep,
        ..WriteOptions::default()
    };
    assert!(write(&read, &keep).is_ok());
}

/// Files by name.
struct Files(HashMap<&'static str, Vec<u8>>);

impl ExternalData for Files {
    fn bytes(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String> {
        let file = self.0.get(location).ok_or("no such file")?;
        let rest = file.get(offset as usize..).ok_or("too short")?;
        let bytes = length
            .map_or(Some(rest), |length| rest.get(..length as usize))
            .ok_or("too short")?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

fn outside(name: &str, entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: some(key),
        value: some(value),
    };
    TensorProto {
        raw_data: None,
        data_location: Some(1),
        external_data: entries.iter().map(entry).collect(),
        ..raw(name, DType::U8, &[2])
    }
}

#[test]
fn tensors_outside_the_file_come_in() {
    let mut proto = graph("g", &["x"], &["x"], vec![]);
    proto.initializer = vec![
        outside("a", &[("location", "one"), ("offset", "1"), ("length", "2")]),
        outside("b", &[("location", "two")]),
    ];
    let mut spread = sparse("s", &[0, 5], &[2]);
    spread.values = Some(TensorProto {
        dims: vec![2],
        ..outside("s", &[("location", "one"), ("checksum", "?")])
    });
    proto.sparse_initializer = vec![spread];
    let files = Files(HashMap::from([("one", vec![1, 2, 3, 4]), ("two", vec![5, 6])]));
    let bytes = Bytes::from(model(proto).encode_to_vec());
    let (read, _) = read(bytes, &files).unwrap();
    let find = |name| read.graph[read.graph.find(name).unwrap()].constant().unwrap().clone();
    assert_eq!(
        (find("a"), find("b")),
        (Tensor::vector(vec![2u8, 3]), Tensor::vector(vec![5u8, 6]))
    );
    assert_eq!(find("s"), Tensor::new(&[2, 3], vec![1u8, 0, 0, 0, 0, 2]));
    // They go into the file, and nothing asks for the others any more.
    let again = same(&written(&read));
    assert_eq!(again.graph, read.graph);
}

#[test]
fn a_model_too_large_gives_its_tensors_to_another_file() {
    let mut proto = sampler();
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer.push(raw("large", DType::F32, &[700]));
    graph.initializer.push(TensorProto {
        raw_data: None,
        int64_data: (0..300).collect(),
        ..raw("typed", DType::I64, &[300])
    });
    graph.initializer.push(raw("larger", DType::I8, &[5000]));
    let read_before = same(&proto);
    let options = WriteOptions {
        max_bytes: 4000,
        external_file: "beside.data".to_owned(),
        ..WriteOptions::default()
    };
    let written = write(&read_before, &options).unwrap();
    let external = written.external.unwrap();
    let places: Vec<_> = external.pieces.iter().map(|(offset, bytes)| (*offset, bytes.len())).collect();
    assert_eq!(places, [(0, 2800), (4096, 2400), (8192, 5000)]);
    let mut file = Vec::new();
    for (offset, bytes) in &external.pieces {
        file.resize(*offset as usize, 0);
        file.extend_from_slice(bytes);
    }
    let files = Files(HashMap::from([("beside.data", file)]));
    let (after, _) = read(written.model, &files).unwrap();
    for name in ["large", "typed", "larger"] {
        let tensor = |model: &lsqc_passes::ir::Model| model.graph[model.graph.find(name).unwrap()].constant().cloned();
        assert_eq!(tensor(&after), tensor(&read_before));
    }
    let too_small = WriteOptions {
        max_bytes: 100,
        ..options
    };
    assert!(matches!(
        write(&read_before, &too_small),
        Err(WriteError::TooLarge { limit: 100, .. })
    ));
}

#[test]
fn the_fixtures() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    for folder in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let Ok(bytes) = std::fs::read(folder.path().join("model.onnx")) else {
            continue;
        };
        same(&ModelProto::decode(Bytes::from(bytes)).unwrap());
    }
}
