//! From a [`Model`] to bytes.
//!
//! Each message starts as its remainder and gets the IR's part. A model of more bytes than protobuf allows gives its large initializers
//! to one external data file. Refused is any op of lsqc's own domain that is left.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

use super::error::WriteError;
use super::infos::Entries;
use super::proto::tensor_proto::DataLocation;
use super::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto};
use super::{NoExternalData, attribute, function, sparse, tensor};
use crate::ir::{Def, Graph, LSQC_DOMAIN, Literal, Model, Names, Node, OpsetImport, ValueId};

/// What happens to ops of lsqc's own domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OwnOps {
    /// They are an error: the model is for others.
    #[default]
    Refuse,
    /// They are written as they are: the model is for lsqc, or to look at.
    Keep,
}

/// How a model is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// What happens to ops of lsqc's own domain.
    pub own_ops: OwnOps,
    /// The file for the large tensors of a model that is too large, relative to the model's folder.
    pub external_file: String,
    /// How many bytes a message may have.
    pub max_bytes: usize,
    /// The smallest tensor, in bytes, that goes to the external file.
    pub min_external: usize,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions {
            own_ops: OwnOps::Refuse,
            external_file: "model.onnx.data".to_owned(),
            max_bytes: i32::MAX as usize,
            min_external: 1024,
        }
    }
}

/// A file that holds tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalFile {
    /// Its name, as the model has it.
    pub name: String,
    /// Where each piece stands and what it is, in ascending order; between them are zeros.
    pub pieces: Vec<(u64, Bytes)>,
}

impl ExternalFile {
    /// The whole file.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let end = self.pieces.last().map_or(0, |(offset, bytes)| *offset as usize + bytes.len());
        let mut content = Vec::with_capacity(end);
        for (offset, bytes) in &self.pieces {
            content.resize(*offset as usize, 0);
            content.extend_from_slice(bytes);
        }
        content
    }
}

/// A model as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The serialised `ModelProto`.
    pub model: Bytes,
    /// Tensors that did not fit in.
    pub external: Option<ExternalFile>,
}

/// Tensors start at multiples of this, so that they can be mapped into memory.
const PAGE: u64 = 4096;

/// Writes a serialised `ModelProto`. Nothing is set that the model does not say: versions and producer are the caller's.
///
/// # Errors
/// If an internal op is left, or the model is too large even with its tensors in another file.
pub fn write(model: &Model, options: &WriteOptions) -> Result<Written, WriteError> {
    let mut proto = model_proto(model, options.own_ops)?;
    let mut external = None;
    if proto.encoded_len() > options.max_bytes {
        let mut file = ExternalFile {
            name: options.external_file.clone(),
            pieces: Vec::new(),
        };
        if let Some(graph) = &mut proto.graph {
            externalize(graph, options.min_external, &mut file);
        }
        let size = proto.encoded_len();
        if size > options.max_bytes {
            return Err(WriteError::TooLarge {
                size,
                limit: options.max_bytes,
            });
        }
        external = Some(file);
    }
    Ok(Written {
        model: proto.encode_to_vec().into(),
        external,
    })
}

pub(super) fn decode<M: Message + Default>(remainder: &Bytes) -> M {
    if remainder.is_empty() {
        M::default()
    } else {
        M::decode(remainder.clone()).unwrap_or_default()
    }
}

/// Sets a string that says something; else the field stays as the source had it.
pub(super) fn set_text(field: &mut Option<String>, text: &str) {
    if !text.is_empty() {
        *field = Some(text.to_owned());
    }
}

fn set_number(field: &mut Option<i64>, number: i64) {
    if number != 0 {
        *field = Some(number);
    }
}

fn model_proto(model: &Model, own_ops: OwnOps) -> Result<ModelProto, WriteError> {
    let mut proto: ModelProto = decode(&model.remainder);
    set_number(&mut proto.ir_version, model.ir_version);
    proto.opset_import = model.opset_imports.iter().map(write_opset_import).collect();
    let source = proto.metadata_props.iter().map(|entry| (entry.key(), entry.value()));
    let present = model.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    if !source.eq(present.clone()) {
        let entry = |(key, value): (&str, &str)| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        };
        proto.metadata_props = present.map(entry).collect();
    }
    let mut outermost = |inner: &Graph| graph(inner, &Names::outermost(), own_ops);
    proto.graph = Some(outermost(&model.graph)?);
    let functions = model.functions.iter().map(|of| function::write(of, &mut outermost));
    proto.functions.extend(functions.collect::<Result<Vec<_>, _>>()?);
    Ok(proto)
}

pub(super) fn write_opset_import(import: &OpsetImport) -> OperatorSetIdProto {
    let mut proto: OperatorSetIdProto = decode(&import.remainder);
    set_text(&mut proto.domain, &import.domain);
    set_number(&mut proto.version, import.version);
    proto
}

fn graph(graph: &Graph, names: &Names, own_ops: OwnOps) -> Result<GraphProto, WriteError> {
    let mut proto: GraphProto = decode(&graph.remainder);
    set_text(&mut proto.name, &graph.name);
    let name = |id: ValueId| names.get(graph, id);
    for &id in graph.initializers() {
        if let Def::Constant(literal) | Def::Input(Some(literal)) = graph[id].def() {
            initializer(literal, name(id), &mut proto);
        }
    }
    for &id in graph.inputs() {
        proto.input.push(Entries::of(&graph[id]).input(&graph[id], name(id)));
    }
    let mut times: HashMap<ValueId, usize> = HashMap::new();
    for &id in graph.outputs() {
        let time = times.entry(id).or_default();
        proto.output.push(Entries::of(&graph[id]).output(*time, &graph[id], name(id)));
        *time += 1;
    }
    list(graph, names, &mut proto);
    for (_, node) in graph.nodes() {
        proto.node.push(write_node(graph, node, names, own_ops)?);
    }
    Ok(proto)
}

fn initializer(literal: &Literal, name: &str, proto: &mut GraphProto) {
    if let Some(sparse) = sparse::write(literal, name) {
        proto.sparse_initializer.push(sparse);
    } else {
        let mut tensor = tensor::write(literal);
        tensor.name = Some(name.to_owned());
        proto.initializer.push(tensor);
    }
}

/// Fills `value_info`: each listed value at its place as far as it can be, and the entries that are about no value in the gaps.
fn list(graph: &Graph, names: &Names, proto: &mut GraphProto) {
    let mut listed: Vec<_> = graph
        .values()
        .filter_map(|(id, value)| Some((value.listed?, id, value)))
        .collect();
    listed.sort_by_key(|&(place, id, _)| (place, id));
    let mut others = std::mem::take(&mut proto.value_info).into_iter();
    for (place, id, value) in listed {
        while proto.value_info.len() < place as usize {
            let Some(other) = others.next() else { break };
            proto.value_info.push(other);
        }
        proto.value_info.push(Entries::of(value).listed(value, names.get(graph, id)));
    }
    proto.value_info.extend(others);
}

fn write_node(outer: &Graph, node: &Node, names: &Names, own_ops: OwnOps) -> Result<NodeProto, WriteError> {
    if node.op.domain == LSQC_DOMAIN && own_ops == OwnOps::Refuse {
        return Err(WriteError::OwnOp {
            node: node.label(outer).into_owned(),
            op: node.op.clone(),
        });
    }
    let mut proto: NodeProto = decode(&node.remainder);
    set_text(&mut proto.name, &node.name);
    set_text(&mut proto.domain, &node.op.domain);
    set_text(&mut proto.overload, &node.overload);
    set_text(&mut proto.op_type, &node.op.name);
    let name = |value: &Option<ValueId>| value.map_or_else(String::new, |id| names.get(outer, id).to_owned());
    proto.input = node.inputs().iter().map(name).collect();
    proto.output = node.outputs().iter().map(name).collect();
    let mut subgraph = |inner: &Graph| graph(inner, &names.inside(outer, inner), own_ops);
    let attributes = node
        .attributes
        .iter()
        .map(|attribute| attribute::write(attribute, &mut subgraph));
    proto.attribute = attributes.collect::<Result<_, _>>()?;
    Ok(proto)
}

/// Moves the large initializers of a graph and of the graphs in it to `file`.
fn externalize(graph: &mut GraphProto, min: usize, file: &mut ExternalFile) {
    for initializer in &mut graph.initializer {
        let literal = tensor::read(initializer.clone(), &String::new, &NoExternalData);
        if let Ok(literal) = literal
            && literal.tensor.bytes().len() >= min.max(1)
        {
            move_out(initializer, literal.tensor.bytes().clone(), file);
        }
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            externalize(graph, min, file);
        }
    }
}

fn move_out(proto: &mut TensorProto, bytes: Bytes, file: &mut ExternalFile) {
    let end = file.pieces.last().map_or(0, |(offset, bytes)| offset + bytes.len() as u64);
    let offset = end.next_multiple_of(PAGE);
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    *proto = TensorProto {
        dims: std::mem::take(&mut proto.dims),
        data_type: proto.data_type,
        name: proto.name.take(),
        doc_string: proto.doc_string.take(),
        metadata_props: std::mem::take(&mut proto.metadata_props),
        data_location: Some(DataLocation::External as i32),
        external_data: vec![
            entry("location", file.name.clone()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ],
        ..TensorProto::default()
    };
    file.pieces.push((offset, bytes));
}
