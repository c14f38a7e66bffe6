//! From bytes to a [`Model`].
//!
//! Each message is emptied of what the IR has words for; what is left is encoded as the remainder. See [`super`] for what is refused.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

use super::attribute::ReadParts;
use super::error::{ReadError, Warning};
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use super::{ExternalData, OPSETS, attribute, infos, order, scan, sparse, tensor};
use crate::ir::{
    Attribute, Def, DuplicateName, Graph, Literal, Model, NodeId, Op, OpsetImport, Origin, Remainder, Role, Scopes, ValueId,
};

/// Reads a serialised `ModelProto`.
///
/// # Errors
/// See [`ReadError`]; no input makes it panic.
pub fn read(bytes: Bytes, external: &dyn ExternalData) -> Result<(Model, Vec<Warning>), ReadError> {
    let mut proto = ModelProto::decode(bytes.clone()).map_err(|error| scan::diagnose(&bytes, &error))?;
    let Some(graph) = proto.graph.take() else {
        return Err(scan::without_graph(&bytes));
    };
    let mut reader = Reader {
        external,
        warnings: scan::unknown_fields(&bytes),
        scopes: Scopes::default(),
        node: String::new(),
    };
    let opset_imports: Vec<OpsetImport> = std::mem::take(&mut proto.opset_import)
        .into_iter()
        .map(opset_import)
        .collect();
    for import in &opset_imports {
        let default = import.domain.is_empty() || import.domain == "ai.onnx";
        if default && !OPSETS.contains(&import.version) {
            reader.warnings.push(Warning::Opset { version: import.version });
        }
    }
    if graph.output.is_empty() {
        return Err(ReadError::NoOutput {
            graph: graph.name().to_owned(),
        });
    }
    // What training information calls is not known here, so its functions stay with it.
    let functions = if proto.training_info.is_empty() {
        std::mem::take(&mut proto.functions)
    } else {
        Vec::new()
    };
    let model = Model {
        ir_version: proto.ir_version.take_if(|version| *version != 0).unwrap_or_default(),
        opset_imports,
        metadata: metadata(&mut proto),
        graph: reader.graph(graph)?,
        functions: functions.into_iter().map(|function| reader.function(function)).collect(),
        remainder: encode(&proto),
    };
    Ok((model, reader.warnings))
}

pub(super) fn encode(message: &impl Message) -> Remainder {
    Remainder::from(message.encode_to_vec())
}

/// Takes a string that says something; an empty one stays, so that it is known to be there.
pub(super) fn take_text(field: &mut Option<String>) -> String {
    field.take_if(|text| !text.is_empty()).unwrap_or_default()
}

pub(super) fn opset_import(mut proto: OperatorSetIdProto) -> OpsetImport {
    OpsetImport {
        domain: take_text(&mut proto.domain),
        version: proto.version.take_if(|version| *version != 0).unwrap_or_default(),
        remainder: encode(&proto),
    }
}

/// Takes the entries, unless one lacks its key or value: then they also stay, so that this is known.
fn metadata(proto: &mut ModelProto) -> Vec<(String, String)> {
    let entries = proto.metadata_props.iter();
    let pairs = entries
        .map(|entry| (entry.key().to_owned(), entry.value().to_owned()))
        .collect();
    if proto
        .metadata_props
        .iter()
        .all(|entry| entry.key.is_some() && entry.value.is_some())
    {
        proto.metadata_props.clear();
    }
    pairs
}

pub(super) struct Reader<'a> {
    external: &'a dyn ExternalData,
    pub(super) warnings: Vec<Warning>,
    pub(super) scopes: Scopes,
    /// The node that is being read.
    node: String,
}

impl ReadParts for Reader<'_> {
    fn tensor(&mut self, proto: TensorProto, attribute: &str) -> Result<Literal, ReadError> {
        let node = &self.node;
        tensor::read(proto, &|| format!("attribute '{attribute}' of node '{node}'"), self.external)
    }

    fn graph(&mut self, mut proto: GraphProto) -> Result<Graph, ReadError> {
        let order = order::order(&proto)?;
        let name = take_text(&mut proto.name);
        if let Some(node) = order.early {
            self.warnings.push(Warning::Reordered {
                graph: name.clone(),
                node,
            });
        }
        self.scopes.push(Graph::new(&name));
        self.initializers(&mut proto)?;
        let mut lists = Lists::default();
        for entry in std::mem::take(&mut proto.input) {
            self.input(entry, &mut lists)?;
        }
        let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut proto.node).into_iter().map(Some).collect();
        for place in order.places {
            if let Some(node) = nodes.get_mut(place).and_then(Option::take) {
                self.node(node)?;
            }
        }
        let mut outputs = Vec::with_capacity(proto.output.len());
        for entry in std::mem::take(&mut proto.output) {
            let Some(id) = self.resolve(entry.name()) else {
                return Err(ReadError::UndefinedOutput {
                    graph: name,
                    name: entry.name().to_owned(),
                });
            };
            known_type(&entry)?;
            outputs.push(id);
            lists.of(id).output.push(entry);
        }
        let mut graph = self.scopes.pop();
        graph.set_outputs(outputs);
        proto.value_info = listed(&mut graph, std::mem::take(&mut proto.value_info), &mut lists)?;
        lists.give(&mut graph);
        graph.remainder = encode(&proto);
        Ok(graph)
    }
}

impl Reader<'_> {
    fn resolve(&mut self, name: &str) -> Option<ValueId> {
        if name.is_empty() { None } else { self.scopes.resolve(name) }
    }

    fn initializers(&mut self, proto: &mut GraphProto) -> Result<(), ReadError> {
        for mut initializer in std::mem::take(&mut proto.initializer) {
            let name = take_text(&mut initializer.name);
            let literal = tensor::read(initializer, &|| format!("initializer '{name}'"), self.external)?;
            self.initializer(&name, literal)?;
        }
        for mut initializer in std::mem::take(&mut proto.sparse_initializer) {
            let name = initializer
                .values
                .as_mut()
                .map(|values| take_text(&mut values.name))
                .unwrap_or_default();
            let literal = sparse::read(initializer, &|| format!("sparse initializer '{name}'"), self.external)?;
            self.initializer(&name, literal)?;
        }
        Ok(())
    }

    fn initializer(&mut self, name: &str, literal: Literal) -> Result<(), ReadError> {
        if name.is_empty() {
            return Err(ReadError::Unnamed(format!(
                "an initializer of graph '{}'",
                self.scopes.graph().name
            )));
        }
        let added = self.scopes.graph().add_initializer(name, literal);
        added.map(drop).map_err(|DuplicateName(name)| ReadError::Duplicate {
            name,
            first: "an initializer".to_owned(),
            second: "another initializer".to_owned(),
        })
    }

    fn input(&mut self, entry: ValueInfoProto, lists: &mut Lists) -> Result<(), ReadError> {
        let name = entry.name();
        let graph = self.scopes.graph();
        if name.is_empty() {
            return Err(ReadError::Unnamed(format!("an input of graph '{}'", graph.name)));
        }
        known_type(&entry)?;
        let id = match graph.find(name) {
            Some(id) if matches!(graph[id].def(), Def::Constant(_)) => {
                graph.promote(id, Role::Plain);
                id
            }
            _ => graph
                .add_input(name, None, None)
                .map_err(|DuplicateName(name)| ReadError::Duplicate {
                    name,
                    first: "an input".to_owned(),
                    second: "another input".to_owned(),
                })?,
        };
        lists.of(id).input.push(entry);
        Ok(())
    }

    fn node(&mut self, mut proto: NodeProto) -> Result<(), ReadError> {
        let label = order::label(&proto);
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in std::mem::take(&mut proto.input) {
            let value = self.resolve(&name);
            if value.is_none() && !name.is_empty() {
                return Err(ReadError::Undefined { node: label, name });
            }
            inputs.push(value);
        }
        let attributes = self.attributes(std::mem::take(&mut proto.attribute), &label)?;
        let outputs = std::mem::take(&mut proto.output);
        let names: Vec<Option<&str>> = outputs
            .iter()
            .map(|name| (!name.is_empty()).then_some(name.as_str()))
            .collect();
        let op = Op {
            domain: take_text(&mut proto.domain).into(),
            name: take_text(&mut proto.op_type).into(),
        };
        let graph = self.scopes.graph();
        let id: NodeId = graph
            .add_node(op, &inputs, &names, attributes)
            .map_err(|DuplicateName(name)| ReadError::Duplicate {
                first: "a graph around it".to_owned(),
                second: format!("node '{label}'"),
                name,
            })?;
        let node = &mut graph[id];
        node.name = take_text(&mut proto.name);
        node.overload = take_text(&mut proto.overload);
        node.origin = Origin {
            source: Some(label),
            pass: None,
        };
        node.remainder = encode(&proto);
        Ok(())
    }

    pub(super) fn attributes(&mut self, protos: Vec<AttributeProto>, label: &str) -> Result<Vec<Attribute>, ReadError> {
        let mut attributes = Vec::with_capacity(protos.len());
        for proto in protos {
            label.clone_into(&mut self.node);
            let attribute = attribute::read(proto, self)?;
            attributes.push(attribute);
        }
        Ok(attributes)
    }
}

/// The entries of each value that has any, while a graph is read.
#[derive(Default)]
struct Lists(HashMap<ValueId, GraphProto>);

impl Lists {
    fn of(&mut self, value: ValueId) -> &mut GraphProto {
        self.0.entry(value).or_default()
    }

    /// Gives each value its type and remainder.
    fn give(self, graph: &mut Graph) {
        for (id, lists) in self.0 {
            let declared = infos::declared(&lists);
            let value = &mut graph[id];
            match value.def() {
                Def::Constant(_) => {}
                Def::Captured(_) => value.ty = declared.or_else(|| value.ty.take()),
                Def::Input(_) | Def::Node(..) => value.ty = declared,
            }
            value.remainder = encode(&lists);
        }
    }
}

fn known_type(entry: &ValueInfoProto) -> Result<(), ReadError> {
    infos::read_type(entry).map(drop).map_err(|code| ReadError::ElementType {
        what: format!("value '{}'", entry.name()),
        code,
    })
}

/// Marks the values that are listed in `value_info`, and gives the entries that are about no value or about one a second time.
fn listed(graph: &mut Graph, entries: Vec<ValueInfoProto>, lists: &mut Lists) -> Result<Vec<ValueInfoProto>, ReadError> {
    let mut left = Vec::new();
    for (place, entry) in (0u32..).zip(entries) {
        known_type(&entry)?;
        match graph.find(entry.name()) {
            Some(id) if graph[id].listed.is_none() => {
                graph[id].listed = Some(place);
                lists.of(id).value_info.push(entry);
            }
            _ => left.push(entry),
        }
    }
    Ok(left)
}
