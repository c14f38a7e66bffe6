//! What is no model, or a broken one, ends in one error that names the place, the cause and the cure; and nothing makes the reader panic.

use crate::onnx_samples::*;
use bytes::Bytes;
use insta::assert_snapshot;
use lsqc_passes::ir::{DType, verify};
use lsqc_passes::onnx::proto::attribute_proto::AttributeType;
use lsqc_passes::onnx::proto::*;
use lsqc_passes::onnx::{NoExternalData, WriteOptions, read, write};
use lsqc_passes::text::{PrintOptions, parse, print};
use prost::Message;

fn refusal(bytes: impl Into<Bytes>) -> String {
    let error = read(bytes.into(), &NoExternalData).expect_err("this should be refused");
    format!("{error} | {}", error.help())
}

fn refused(graph: GraphProto) -> String {
    refusal(model(graph).encode_to_vec())
}

#[test]
fn bytes_that_are_no_model() {
    let model = sampler().encode_to_vec();
    let mut random = 1u64;
    let mut noise = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    let noise: Vec<u8> = (0..300).map(|_| noise()).collect();
    let mut deep = graph("g", &[], &["x"], vec![]);
    for _ in 0..60 {
        deep = graph(
            "g",
            &[],
            &["x"],
            vec![node(
                "If",
                &[],
                &["x"],
                vec![attribute("body", AttributeType::Graph, |a| a.g = Some(deep))],
            )],
        );
    }
    let all = [
        refusal(vec![]),
        refusal(&b"<!DOCTYPE html><html><body>Not found</body></html>"[..]),
        refusal(&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"[..]),
        refusal(&b"{\"error\": \"Entry not found\"}"[..]),
        refusal(&b"hello"[..]),
        refusal(noise),
        refusal(vec![0x08, 0x08]),
        refusal(vec![0x48, 0x08]),
        refusal(model[..model.len() / 2].to_vec()),
        refusal(crate::onnx_samples::model(deep).encode_to_vec()),
    ];
    assert_snapshot!(all.join("\n"), @r"
    the file is empty | copy, download or export the file again
    this is an HTML page, not an ONNX model | download the model file itself, not the page or the listing around it
    this is a Git LFS pointer, not an ONNX model | run `git lfs pull` to get the file that it stands for
    this is a JSON file, not an ONNX model | download the model file itself, not the page or the listing around it
    this is a text file, not an ONNX model | download the model file itself, not the page or the listing around it
    this is not an ONNX model: failed to decode Protobuf message: unexpected end group tag | give a file that holds a serialised ONNX ModelProto
    the model has no graph | give a file that holds a serialised ONNX ModelProto
    this is not an ONNX model: its first field is none of a model's | give a file that holds a serialised ONNX ModelProto
    the model is truncated: its field 'graph' goes on for 645 bytes after the end of the file | copy, download or export the file again
    the model's graphs are nested too deeply | flatten the graphs inside If, Loop and Scan nodes
    ");
}

#[test]
fn broken_graphs() {
    let with = |change: &dyn Fn(&mut GraphProto)| {
        let mut proto = graph("main", &["x"], &["y"], vec![node("Neg", &["x"], &["y"], vec![])]);
        change(&mut proto);
        refused(proto)
    };
    let body = |nodes| {
        attribute("body", AttributeType::Graph, |a| {
            a.g = Some(graph("inner", &[], &["i"], nodes))
        })
    };
    let all = [
        with(&|g| g.output.clear()),
        with(&|g| g.node[0].input[0] = "missing".into()),
        with(&|g| g.output[0].name = some("missing")),
        with(&|g| g.node[0].attribute.push(body(vec![node("Neg", &["gone"], &["i"], vec![])]))),
        with(&|g| g.node[0].attribute.push(body(vec![]))),
        with(&|g| g.node.push(node("Abs", &["x"], &["y"], vec![]))),
        with(&|g| g.node[0].output[0] = "x".into()),
        with(&|g| g.initializer = vec![raw("y", DType::F32, &[1])]),
        with(&|g| g.initializer = vec![raw("w", DType::F32, &[1]), raw("w", DType::F32, &[1])]),
        with(&|g| g.input.push(value("x", &[1]))),
        with(&|g| g.input.push(value("", &[1]))),
        with(&|g| g.initializer = vec![raw("", DType::F32, &[1])]),
        with(&|g| g.node[0].input[0] = "y".into()),
        with(&|g| {
            g.node[0].input[0] = "b".into();
            g.node.push(node("Abs", &["y"], &["a"], vec![]));
            g.node.push(node(
                "Exp",
                &[],
                &["b"],
                vec![body(vec![node("Add", &["a", "x"], &["i"], vec![])])],
            ));
        }),
    ];
    assert_snapshot!(all.join("\n"), @r"
    graph 'main' has no output | export the model with at least one output
    node 'Neg -> y' takes 'missing', which nothing defines | the model is damaged: export it again, or run onnx.checker on what made it
    graph 'main' gives the output 'missing', which nothing defines | the model is damaged: export it again, or run onnx.checker on what made it
    node 'Neg -> i' takes 'gone', which nothing defines | the model is damaged: export it again, or run onnx.checker on what made it
    graph 'inner' gives the output 'i', which nothing defines | the model is damaged: export it again, or run onnx.checker on what made it
    the name 'y' is defined twice: by node 'Neg -> y' and by node 'Abs -> y' | rename one of the two: every name may be defined once
    the name 'x' is defined twice: by an input and by node 'Neg -> x' | rename one of the two: every name may be defined once
    the name 'y' is defined twice: by an initializer and by node 'Neg -> y' | rename one of the two: every name may be defined once
    the name 'w' is defined twice: by an initializer and by another initializer | rename one of the two: every name may be defined once
    the name 'x' is defined twice: by an input and by another input | rename one of the two: every name may be defined once
    an input of graph 'main' has no name | give it a name: nothing can refer to it
    an initializer of graph 'main' has no name | give it a name: nothing can refer to it
    the node 'Neg -> y' takes its own result | cut the cycle: ONNX graphs are acyclic (repetition is a Loop or Scan node)
    the nodes 'Abs -> a' -> 'Exp -> b' -> 'Neg -> y' form a cycle | cut the cycle: ONNX graphs are acyclic (repetition is a Loop or Scan node)
    ");
}

#[test]
fn broken_tensors() {
    let with = |change: &dyn Fn(&mut TensorProto)| {
        let mut proto = graph("main", &["x"], &["x"], vec![]);
        let mut tensor = raw("w", DType::F32, &[2, 2]);
        change(&mut tensor);
        proto.initializer = vec![tensor];
        refused(proto)
    };
    let external = |entries: &[(&str, &str)]| {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
            key: some(key),
            value: some(value),
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        with(&|t| {
            t.raw_data = None;
            t.data_location = Some(1);
            t.external_data.clone_from(&entries);
        })
    };
    let in_node = |tensor: TensorProto| {
        let a = attribute("value", AttributeType::Tensor, |a| a.t = Some(tensor));
        refused(graph("main", &[], &["y"], vec![node("Constant", &[], &["y"], vec![a])]))
    };
    let sparse_one = |indices: &[i64], dims: &[i64], shape: &[i64]| {
        let mut proto = graph("main", &["x"], &["x"], vec![]);
        let mut tensor = sparse("s", indices, dims);
        tensor.dims = shape.to_vec();
        proto.sparse_initializer = vec![tensor];
        refused(proto)
    };
    let mut unknown = value("x", &[1]);
    if let Some(type_proto::Value::TensorType(tensor)) = unknown.r#type.as_mut().and_then(|ty| ty.value.as_mut()) {
        tensor.elem_type = Some(77);
    }
    let all = [
        with(&|t| t.dims = vec![2, -2]),
        with(&|t| t.dims = vec![i64::MAX, i64::MAX]),
        with(&|t| t.dims = vec![i64::MAX, 0, 3]),
        with(&|t| t.dims = vec![5]),
        with(&|t| t.raw_data = None),
        with(&|t| t.data_type = Some(99)),
        with(&|t| t.data_type = None),
        in_node(TensorProto {
            float_data: vec![1.0],
            raw_data: None,
            ..raw("", DType::F32, &[2])
        }),
        refused(GraphProto {
            input: vec![unknown],
            ..graph("main", &[], &["x"], vec![])
        }),
        external(&[]),
        external(&[("location", "w.data")]),
        external(&[("location", "w.data"), ("offset", "-1")]),
        external(&[("location", "w.data"), ("length", "3")]),
        sparse_one(&[1, 6], &[2], &[2, 3]),
        sparse_one(&[1, -1], &[2], &[2, 3]),
        sparse_one(&[0, 1, 2, 0], &[2, 2], &[2, 3]),
        sparse_one(&[1], &[1], &[2, 3]),
        sparse_one(&[1, 5], &[2], &[1 << 30, 1 << 10]),
    ];
    assert_snapshot!(all.join("\n"), @r"
    initializer 'w': dimension -2 in its shape [2, -2] is negative | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w': shape [9223372036854775807, 9223372036854775807] has more elements than fit in memory | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w': shape [9223372036854775807, 0, 3] of float needs 0 bytes, but there are 16 | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w': shape [5] of float needs 20 bytes, but there are 16 | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w': shape [2, 2] of float needs 16 bytes, but there are 0 | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w' has the element type number 99, which ONNX does not define | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w' has no element type | the tensor is damaged, or written by a newer tool: export the model again
    attribute 'value' of node 'Constant -> y': shape [2] of float needs 8 bytes, but there are 4 | the tensor is damaged, or written by a newer tool: export the model again
    value 'x' has the element type number 77, which ONNX does not define | the tensor is damaged, or written by a newer tool: export the model again
    initializer 'w' lies outside the model's file, in '': the model names no file | put the model's data files beside it, as they were when it was exported
    initializer 'w' lies outside the model's file, in 'w.data': the model was given without a folder to look for 'w.data' in | put the model's data files beside it, as they were when it was exported
    initializer 'w' lies outside the model's file, in 'w.data': its offset '-1' is not a number of bytes | put the model's data files beside it, as they were when it was exported
    initializer 'w' lies outside the model's file, in 'w.data': its length is given as 3 bytes, but its shape [2, 2] of float needs 16 | put the model's data files beside it, as they were when it was exported
    sparse initializer 's': index 6 lies outside its shape [2, 3] | the tensor is damaged, or written by a newer tool: export the model again
    sparse initializer 's': index -1 lies outside its shape [2, 3] | the tensor is damaged, or written by a newer tool: export the model again
    sparse initializer 's': index 2 lies outside its shape [2, 3] | the tensor is damaged, or written by a newer tool: export the model again
    sparse initializer 's': its indices have shape [1]; 2 values need [2] or [2, 2] | the tensor is damaged, or written by a newer tool: export the model again
    sparse initializer 's': its shape [1073741824, 1024] of float takes more than 2147483647 bytes when dense | the tensor is damaged, or written by a newer tool: export the model again
    ");
}

/// Whatever the bytes are: an error, or a model that holds together and survives writing and printing.
fn survives(bytes: Vec<u8>) {
    let Ok((model, _)) = read(bytes.into(), &NoExternalData) else {
        return;
    };
    verify(&model.graph).unwrap();
    let Ok(written) = write(&model, &WriteOptions::default()) else {
        return;
    };
    let text = print(&model, &PrintOptions::brief());
    let _ = parse(&text);
    let (again, _) = read(written.model.clone(), &NoExternalData).unwrap();
    assert_eq!(write(&again, &WriteOptions::default()).unwrap().model, written.model);
}

#[test]
fn damaged_models_never_panic() {
    let source = sampler().encode_to_vec();
    for length in 0..source.len() {
        survives(source[..length].to_vec());
    }
    let mut random = 0x5eed_u64;
    let mut below = |limit: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    for _ in 0..20000 {
        let mut damaged = source.clone();
        for _ in 0..=below(4) {
            let at = below(damaged.len());
            match below(4) {
                0 => damaged[at] ^= 1 << below(8),
                1 => damaged[at] = below(256) as u8,
                2 => drop(damaged.remove(at)),
                _ => damaged.insert(at, below(256) as u8),
            }
        }
        survives(damaged);
    }
}

#[test]
fn damaged_texts_never_panic() {
    let (model, _) = read_proto(&sampler()).unwrap();
    let source = print(&model, &PrintOptions::default());
    let characters: Vec<char> = source.chars().collect();
    let mut random = 0x7e47_u64;
    let mut below = |limit: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    for _ in 0..10000 {
        let mut damaged = characters.clone();
        for _ in 0..=below(3) {
            let (at, from) = (below(damaged.len()), below(characters.len()));
            match below(4) {
                0 => drop(damaged.remove(at)),
                1 => damaged.insert(at, characters[from]),
                2 => damaged[at] = ['"', '\\', '{', '<', '…', '-', '9', 'é'][below(8)],
                _ => damaged.truncate(at.max(1)),
            }
        }
        if let Ok(model) = parse(&damaged.iter().collect::<String>()) {
            verify(&model.graph).ok();
        }
    }
}
