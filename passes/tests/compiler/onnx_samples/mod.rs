//! Models for the tests of the ONNX border, made as messages.
#![allow(dead_code)]

use bytes::Bytes;
use lsqc_passes::ir::{DType, Model, verify};
use lsqc_passes::onnx::proto::attribute_proto::AttributeType;
use lsqc_passes::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use lsqc_passes::onnx::proto::*;
use lsqc_passes::onnx::{NoExternalData, ReadError, Warning, WriteOptions, read, write};
use prost::Message;

/// Some text.
pub fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A node.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: outputs.iter().map(|&name| name.to_owned()).collect(),
        op_type: some(op),
        attribute,
        ..NodeProto::default()
    }
}

/// An attribute with a type and whatever `fill` sets.
pub fn attribute(name: &str, kind: AttributeType, fill: impl FnOnce(&mut AttributeProto)) -> AttributeProto {
    let mut proto = AttributeProto {
        name: some(name),
        r#type: Some(kind as i32),
        ..AttributeProto::default()
    };
    fill(&mut proto);
    proto
}

/// A float value; an extent below -1 stands for the name `N`.
pub fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&dim: &i64| Dimension {
        value: Some(if dim < -1 {
            dimension::Value::DimParam("N".to_owned())
        } else {
            dimension::Value::DimValue(dim)
        }),
        denotation: None,
    };
    ValueInfoProto {
        name: some(name),
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: Some(1),
                shape: Some(TensorShapeProto {
                    dim: dims.iter().map(dim).collect(),
                }),
            })),
        }),
        ..ValueInfoProto::default()
    }
}

/// A tensor with raw data of as many bytes as it takes, counting up.
pub fn raw(name: &str, dtype: DType, dims: &[i64]) -> TensorProto {
    let count = dims.iter().product::<i64>() as usize;
    let length = dtype.byte_len(count).unwrap_or(0);
    TensorProto {
        name: some(name),
        dims: dims.to_vec(),
        data_type: Some(dtype.code()),
        raw_data: Some((0..length).map(|byte| byte as u8).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

/// A graph.
pub fn graph(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> GraphProto {
    let values = |names: &[&str]| names.iter().map(|name| value(name, &[-2, 3])).collect();
    GraphProto {
        name: some(name),
        input: values(inputs),
        output: values(outputs),
        node: nodes,
        ..GraphProto::default()
    }
}

/// A model of opset 17.
pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        producer_name: some("test"),
        opset_import: vec![OperatorSetIdProto {
            domain: some(""),
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// Reads a message.
pub fn read_proto(proto: &ModelProto) -> Result<(Model, Vec<Warning>), ReadError> {
    read(Bytes::from(proto.encode_to_vec()), &NoExternalData)
}

/// Writes a model and gives the message.
pub fn written(model: &Model) -> ModelProto {
    let written = write(model, &WriteOptions::default()).unwrap();
    assert_eq!(written.external, None);
    ModelProto::decode(written.model).unwrap()
}

/// Asserts that reading and writing gives the message again, and gives the model.
pub fn same(proto: &ModelProto) -> Model {
    let (model, warnings) = read_proto(proto).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(warnings, []);
    verify(&model.graph).unwrap();
    assert_eq!(written(&model), *proto);
    model
}

/// A model with something of everything.
pub fn sampler() -> ModelProto {
    let tensor = |name: &str| attribute(name, AttributeType::Tensor, |a| a.t = Some(raw("inside", DType::F16, &[3])));
    let entry = |key: Option<&str>, value: Option<&str>| StringStringEntryProto {
        key: key.map(str::to_owned),
        value: value.map(str::to_owned),
    };
    let innermost = graph(
        "innermost",
        &[],
        &["deep"],
        vec![node("Add", &["x", "local"], &["deep"], vec![])],
    );
    let mut inner = graph(
        "",
        &[],
        &["r"],
        vec![
            node("Neg", &["w"], &["local"], vec![]),
            node(
                "If",
                &["c"],
                &["r"],
                vec![attribute("then_branch", AttributeType::Graph, |a| a.g = Some(innermost))],
            ),
        ],
    );
    inner.doc_string = some("");
    inner.initializer = vec![raw("c", DType::Bool, &[])];
    let mut first = node(
        "Conv",
        &["x", "w", ""],
        &["t", ""],
        vec![
            attribute("strides", AttributeType::Ints, |a| a.ints = vec![1, -1]),
            attribute("none", AttributeType::Ints, |_| {}),
            attribute("alpha", AttributeType::Float, |a| a.f = Some(0.0)),
            attribute("absent", AttributeType::Float, |_| {}),
            attribute("zero", AttributeType::Int, |_| {}),
            attribute("empty", AttributeType::String, |_| {}),
            attribute("text", AttributeType::String, |a| a.s = Some(Bytes::from_static(b"\xff\0"))),
            attribute("floats", AttributeType::Floats, |a| a.floats = vec![1.5, f32::INFINITY]),
            attribute("strings", AttributeType::Strings, |a| {
                a.strings = vec![Bytes::new(), Bytes::from_static(b"a")]
            }),
            tensor("tensor"),
            attribute("tensors", AttributeType::Tensors, |a| {
                a.tensors = vec![raw("a", DType::I4, &[3])]
            }),
            attribute("type", AttributeType::TypeProto, |a| a.tp = value("", &[1]).r#type),
            attribute("mixed", AttributeType::Int, |a| {
                a.i = Some(1);
                a.floats = vec![2.0];
                a.doc_string = some("odd");
            }),
            AttributeProto {
                name: some("untyped"),
                i: Some(3),
                ..AttributeProto::default()
            },
            AttributeProto::default(),
            attribute("reference", AttributeType::Int, |a| a.ref_attr_name = some("other")),
        ],
    );
    first.name = some("first");
    first.domain = some("ai.onnx");
    first.overload = some("two");
    first.metadata_props = vec![entry(Some("k"), None)];
    let mut second = node(
        "Loop",
        &["t"],
        &["u"],
        vec![
            attribute("body", AttributeType::Graph, |a| a.g = Some(inner.clone())),
            attribute("bodies", AttributeType::Graphs, |a| a.graphs = vec![inner.clone(), inner]),
        ],
    );
    second.domain = some("");
    second.name = some("");
    let mut graph = graph(
        "main",
        &["x", "d"],
        &["u", "x", "u", "w"],
        vec![first, second, node("Drop", &["t"], &[], vec![])],
    );
    graph.output[1] = value("x", &[-2, -1]);
    graph.output[2].doc_string = some("again");
    graph.output[3] = value("w", &[-2, 2]);
    graph.input.push(ValueInfoProto {
        name: some("sequence"),
        r#type: Some(TypeProto {
            denotation: some("D"),
            value: Some(type_proto::Value::SequenceType(Box::new(type_proto::Sequence {
                elem_type: None,
            }))),
        }),
        ..ValueInfoProto::default()
    });
    graph.initializer = vec![raw("w", DType::F32, &[2, 2]), raw("d", DType::F32, &[4, 3])];
    graph.initializer[0].doc_string = some("");
    graph.value_info = vec![
        value("nothing", &[1]),
        value("t", &[]),
        value("u", &[5]),
        value("t", &[9]),
        ValueInfoProto::default(),
        value("w", &[2, -1]),
        value("x", &[7, 7]),
    ];
    graph.sparse_initializer = vec![sparse("s", &[1, 5], &[2]), sparse("p", &[0, 1, 1, 2], &[2, 2])];
    graph.quantization_annotation = vec![TensorAnnotation {
        tensor_name: some("t"),
        quant_parameter_tensor_names: vec![entry(Some("SCALE_TENSOR"), Some("w"))],
    }];
    graph.metadata_props = vec![entry(Some("a"), Some("b"))];
    let mut model = model(graph);
    model.opset_import.push(OperatorSetIdProto {
        domain: some("com.microsoft"),
        version: None,
    });
    model.opset_import.push(OperatorSetIdProto {
        domain: None,
        version: Some(18),
    });
    model.metadata_props = vec![entry(Some("k"), Some("")), entry(None, Some("v"))];
    model.doc_string = some("");
    model.model_version = Some(0);
    model.functions = vec![FunctionProto {
        name: some("f"),
        node: vec![node("Neg", &["a"], &["b"], vec![])],
        ..FunctionProto::default()
    }];
    model.training_info = vec![TrainingInfoProto::default()];
    model
}

/// A sparse tensor of shape [2, 3] with values 1, 2.
pub fn sparse(name: &str, indices: &[i64], dims: &[i64]) -> SparseTensorProto {
    SparseTensorProto {
        values: Some(TensorProto {
            name: some(name),
            dims: vec![2],
            data_type: Some(1),
            float_data: vec![1.0, 2.0],
            ..TensorProto::default()
        }),
        indices: Some(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(7),
            int64_data: indices.to_vec(),
            ..TensorProto::default()
        }),
        dims: vec![2, 3],
    }
}
