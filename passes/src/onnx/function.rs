//! `FunctionProto` and [`Function`].
//!
//! A body is read as a graph whose inputs and outputs have no type. One that is no graph (a name that nothing defines, a cycle) is kept
//! encoded, with the reason: a model whose functions nobody calls is not refused for them.

use super::attribute::ReadParts as _;
use super::error::{ReadError, WriteError};
use super::proto::{FunctionProto, GraphProto, ValueInfoProto};
use super::read::{Reader, encode, opset_import, take_text};
use super::write::{decode, set_text, write_opset_import};
use crate::ir::{Attribute, Function, Graph, Scopes};

impl Reader<'_> {
    /// Turns a message into a function.
    pub(super) fn function(&mut self, mut proto: FunctionProto) -> Function {
        let whole = encode(&proto);
        let warnings = self.warnings.len();
        let read = self.body(&mut proto);
        self.scopes = Scopes::default();
        let (body, defaults, remainder) = match read {
            Ok((body, defaults)) => (Ok(body), defaults, None),
            Err(why) => {
                self.warnings.truncate(warnings);
                (Err(why.to_string()), Vec::new(), Some(whole))
            }
        };
        Function {
            domain: take_text(&mut proto.domain),
            name: take_text(&mut proto.name),
            overload: take_text(&mut proto.overload),
            opset_imports: std::mem::take(&mut proto.opset_import)
                .into_iter()
                .map(opset_import)
                .collect(),
            attributes: std::mem::take(&mut proto.attribute),
            defaults,
            body,
            remainder: remainder.unwrap_or_else(|| encode(&proto)),
        }
    }

    fn body(&mut self, proto: &mut FunctionProto) -> Result<(Graph, Vec<Attribute>), ReadError> {
        let name = proto.name().to_owned();
        let defaults = self.attributes(std::mem::take(&mut proto.attribute_proto), &name)?;
        let body = self.graph(GraphProto {
            name: Some(name),
            input: std::mem::take(&mut proto.input).into_iter().map(named).collect(),
            output: std::mem::take(&mut proto.output).into_iter().map(named).collect(),
            node: std::mem::take(&mut proto.node),
            value_info: std::mem::take(&mut proto.value_info),
            ..GraphProto::default()
        })?;
        Ok((body, defaults))
    }
}

fn named(name: String) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name),
        ..ValueInfoProto::default()
    }
}

/// Turns a function into a message; `graph` writes graphs.
pub(super) fn write(
    function: &Function,
    graph: &mut dyn FnMut(&Graph) -> Result<GraphProto, WriteError>,
) -> Result<FunctionProto, WriteError> {
    let mut proto: FunctionProto = decode(&function.remainder);
    let Ok(body) = &function.body else { return Ok(proto) };
    set_text(&mut proto.domain, &function.domain);
    set_text(&mut proto.name, &function.name);
    set_text(&mut proto.overload, &function.overload);
    proto.opset_import = function.opset_imports.iter().map(write_opset_import).collect();
    proto.attribute.clone_from(&function.attributes);
    let defaults = function.defaults.iter();
    let defaults = defaults.map(|attribute| super::attribute::write(attribute, graph));
    proto.attribute_proto = defaults.collect::<Result<_, _>>()?;
    let body = graph(body)?;
    let names = |entries: Vec<ValueInfoProto>| entries.into_iter().map(|entry| entry.name.unwrap_or_default()).collect();
    proto.input = names(body.input);
    proto.output = names(body.output);
    proto.node = body.node;
    proto.value_info = body.value_info;
    Ok(proto)
}
