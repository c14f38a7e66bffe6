//! From a model to text.

use std::fmt::Write as _;

use super::elements::{self, print_float};
use super::lex::{is_identifier, is_plain};
use crate::ir::{
    Attr, Attribute, Def, Dim, Function, Graph, Model, Names, Node, NodeId, Op, OpsetImport, Tensor, TensorType, ValueId,
};

/// Of which inner values the types are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InnerTypes {
    /// Of all that have one.
    #[default]
    All,
    /// Of those that the model lists in `value_info`.
    Listed,
}

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrintOptions {
    /// Tensors of more elements are cut short, for people; such a text cannot be parsed.
    pub most_elements: usize,
    /// Which types.
    pub inner_types: InnerTypes,
}

impl Default for PrintOptions {
    /// Everything.
    fn default() -> PrintOptions {
        PrintOptions {
            most_elements: usize::MAX,
            inner_types: InnerTypes::All,
        }
    }
}

impl PrintOptions {
    /// Large tensors cut short.
    #[must_use]
    pub fn brief() -> PrintOptions {
        PrintOptions {
            most_elements: 8,
            ..PrintOptions::default()
        }
    }
}

/// The model as text.
#[must_use]
pub fn print(model: &Model, options: &PrintOptions) -> String {
    let imports = imports(&model.opset_imports);
    let mut out = format!("<ir_version: {}, opset_import: [{imports}]", model.ir_version);
    if !model.metadata.is_empty() {
        let entry = |(key, value): &(String, String)| format!("{} : {}", quoted(key.as_bytes()), quoted(value.as_bytes()));
        let entries: Vec<String> = model.metadata.iter().map(entry).collect();
        let _ = write!(out, ", metadata_props: [{}]", entries.join(", "));
    }
    out.push_str(">\n");
    out.push_str(&print_graph(&model.graph, options));
    for function in &model.functions {
        print_function(function, options, &mut out);
    }
    out
}

fn print_function(function: &Function, options: &PrintOptions, out: &mut String) {
    let Ok(body) = &function.body else {
        let called = [&function.domain, &function.name].map(|part| quoted(part.as_bytes()));
        let _ = writeln!(out, "# the function {} cannot be read", called.join("."));
        return;
    };
    let _ = write!(out, "<domain: {}", quoted(function.domain.as_bytes()));
    if !function.overload.is_empty() {
        let _ = write!(out, ", overload: {}", quoted(function.overload.as_bytes()));
    }
    let _ = writeln!(out, ", opset_import: [{}]>", imports(&function.opset_imports));
    let mut printer = Printer {
        out: String::new(),
        options: *options,
        indent: 0,
    };
    printer.out.push_str(&name(&function.name));
    let attributes = function.attributes.iter().map(|attribute| name(attribute));
    let mut attributes: Vec<String> = attributes.collect();
    for default in &function.defaults {
        let start = printer.out.len();
        printer.attribute(body, default, &Names::outermost());
        attributes.push(printer.out.split_off(start));
    }
    if !attributes.is_empty() {
        let _ = write!(printer.out, " <{}>", attributes.join(", "));
    }
    printer.signature(body, &Names::outermost());
    printer.out.push('\n');
    out.push_str(&printer.out);
}

fn imports(imports: &[OpsetImport]) -> String {
    let import = |import: &OpsetImport| format!("{} : {}", quoted(import.domain.as_bytes()), import.version);
    imports.iter().map(import).collect::<Vec<_>>().join(", ")
}

/// The graph as text, without the versions that a model says.
#[must_use]
pub fn print_graph(graph: &Graph, options: &PrintOptions) -> String {
    let mut printer = Printer {
        out: String::new(),
        options: *options,
        indent: 0,
    };
    printer.graph(graph, &Names::outermost());
    printer.out.push('\n');
    printer.out
}

/// One node of the outermost graph as text, large tensors cut short: for messages.
#[must_use]
pub fn print_node(graph: &Graph, node: NodeId) -> String {
    let mut printer = Printer {
        out: String::new(),
        options: PrintOptions::brief(),
        indent: 0,
    };
    if graph.contains(node) {
        printer.node(graph, &graph[node], &Names::outermost());
    }
    printer.out
}

/// A string in quotes.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\0'..=' ' | '\x7f' if c != ' ' => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                _ => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn name(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        quoted(text.as_bytes())
    }
}

/// Types of attributes that may be referred to, at their numbers in ONNX's `AttributeType`.
pub(super) const KINDS: [&str; 11] = [
    "", "float", "int", "string", "tensor", "graph", "floats", "ints", "strings", "tensors", "graphs",
];

fn op(op: &Op) -> String {
    let plain = (op.domain.is_empty() || op.domain.split('.').all(is_identifier)) && is_identifier(&op.name);
    if plain {
        op.to_string()
    } else {
        format!("{}.{}", quoted(op.domain.as_bytes()), quoted(op.name.as_bytes()))
    }
}

fn ty(ty: &TensorType) -> String {
    let dim = |dim: &Dim| match dim {
        Dim::Symbol(symbol) => name(symbol),
        Dim::Known(_) | Dim::Unknown => dim.to_string(),
    };
    match &ty.shape {
        None => format!("{}[]", ty.dtype),
        Some(shape) if shape.is_empty() => ty.dtype.to_string(),
        Some(shape) => format!("{}[{}]", ty.dtype, shape.iter().map(dim).collect::<Vec<_>>().join(",")),
    }
}

struct Printer {
    out: String,
    options: PrintOptions,
    indent: usize,
}

impl Printer {
    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Printer, T)) {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            each(self, item);
        }
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.out.push_str(&"  ".repeat(self.indent));
    }

    fn graph(&mut self, graph: &Graph, names: &Names) {
        self.out.push_str(&name(&graph.name));
        self.signature(graph, names);
    }

    /// What stands behind a graph's name.
    fn signature(&mut self, graph: &Graph, names: &Names) {
        self.out.push_str(" (");
        self.list(graph.inputs(), |printer, &input| printer.value(graph, input, names));
        self.out.push_str(") => (");
        self.list(graph.outputs(), |printer, &output| printer.typed(graph, output, names));
        self.out.push(')');
        let inner = self.inner(graph);
        if !inner.is_empty() {
            self.line();
            self.out.push('<');
            self.indent += 1;
            for (index, &value) in inner.iter().enumerate() {
                if index > 0 {
                    self.out.push(',');
                    self.line();
                }
                self.value(graph, value, names);
            }
            self.indent -= 1;
            self.out.push('>');
        }
        self.line();
        self.out.push('{');
        self.indent += 1;
        for (_, node) in graph.nodes() {
            self.line();
            self.node(graph, node, names);
        }
        self.indent -= 1;
        self.line();
        self.out.push('}');
    }

    /// The constants, then the inner values whose types are printed.
    fn inner(&self, graph: &Graph) -> Vec<ValueId> {
        let constant = |&&id: &&ValueId| matches!(graph[id].def(), Def::Constant(_));
        let mut inner: Vec<ValueId> = graph.initializers().iter().filter(constant).copied().collect();
        let mut typed: Vec<_> = graph
            .values()
            .filter(|(id, value)| matches!(value.def(), Def::Node(..)) && value.ty.is_some() && !graph.outputs().contains(id))
            .filter(|(_, value)| value.listed.is_some() || self.options.inner_types == InnerTypes::All)
            .map(|(id, value)| (value.listed.unwrap_or(u32::MAX), id))
            .collect();
        typed.sort_unstable();
        inner.extend(typed.into_iter().map(|(_, id)| id));
        inner
    }

    fn typed(&mut self, graph: &Graph, value: ValueId, names: &Names) {
        if let Some(of) = &graph[value].ty {
            self.out.push_str(&ty(of));
            self.out.push(' ');
        }
        self.out.push_str(&name(names.get(graph, value)));
    }

    fn value(&mut self, graph: &Graph, value: ValueId, names: &Names) {
        match graph[value].def() {
            Def::Constant(literal) | Def::Input(Some(literal)) => {
                let fixed = TensorType::fixed(literal.tensor.dtype(), literal.tensor.shape());
                let _ = write!(self.out, "{} {} = ", ty(&fixed), name(names.get(graph, value)));
                self.elements(&literal.tensor);
            }
            _ => self.typed(graph, value, names),
        }
    }

    fn elements(&mut self, tensor: &Tensor) {
        elements::print(&mut self.out, tensor, self.options.most_elements);
    }

    fn node(&mut self, graph: &Graph, node: &Node, names: &Names) {
        if !node.name.is_empty() {
            let _ = write!(self.out, "[{}] ", name(&node.name));
        }
        let value = |value: &Option<ValueId>| value.map_or_else(|| quoted(b""), |id| name(names.get(graph, id)));
        self.list(node.outputs(), |printer, output| printer.out.push_str(&value(output)));
        let _ = write!(
            self.out,
            "{}= {} ",
            if node.outputs().is_empty() { "" } else { " " },
            op(&node.op)
        );
        if !node.overload.is_empty() {
            self.out.pop();
            let _ = write!(self.out, ":{} ", name(&node.overload));
        }
        if !node.attributes.is_empty() {
            self.out.push('<');
            self.list(&node.attributes, |printer, attribute| {
                printer.attribute(graph, attribute, names)
            });
            self.out.push_str("> ");
        }
        self.out.push('(');
        self.list(node.inputs(), |printer, input| printer.out.push_str(&value(input)));
        self.out.push(')');
    }

    fn attribute(&mut self, graph: &Graph, attribute: &Attribute, names: &Names) {
        let name = &attribute.name;
        self.out.push_str(&if is_identifier(name) {
            name.clone()
        } else {
            quoted(name.as_bytes())
        });
        self.out.push_str(match &attribute.value {
            Attr::Ints(values) if values.is_empty() => ": ints",
            Attr::Floats(values) if values.is_empty() => ": floats",
            Attr::Strings(values) if values.is_empty() => ": strings",
            Attr::Graphs(values) if values.is_empty() => ": graphs",
            _ => "",
        });
        if let Attr::Reference { kind, .. } = attribute.value
            && let Some(kind) = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind))
        {
            let _ = write!(self.out, ": {kind}");
        }
        self.out.push_str(" = ");
        let mut open = |open: bool| {
            if open {
                self.out.push('[');
            }
        };
        let many = matches!(
            &attribute.value,
            Attr::Ints(_) | Attr::Floats(_) | Attr::Strings(_) | Attr::Graphs(_)
        );
        open(many);
        match &attribute.value {
            Attr::Int(value) => self.out.push_str(&value.to_string()),
            Attr::Float(value) => print_float(&mut self.out, *value),
            Attr::Str(value) => self.out.push_str(&quoted(value)),
            Attr::Tensor(literal) => {
                let fixed = TensorType::fixed(literal.tensor.dtype(), literal.tensor.shape());
                let _ = write!(self.out, "{} ", ty(&fixed));
                self.elements(&literal.tensor);
            }
            Attr::Graph(inner) => self.subgraph(graph, inner, names),
            Attr::Ints(values) => self.list(values, |printer, value| printer.out.push_str(&value.to_string())),
            Attr::Floats(values) => self.list(values, |printer, value| print_float(&mut printer.out, *value)),
            Attr::Strings(values) => self.list(values, |printer, value| printer.out.push_str(&quoted(value))),
            Attr::Graphs(values) => self.list(values, |printer, inner| printer.subgraph(graph, inner, names)),
            Attr::Reference { name: to, .. } => {
                let _ = write!(self.out, "@{}", super::print::name(to));
            }
            Attr::Opaque(bytes) => {
                let _ = write!(self.out, "opaque({} bytes)", bytes.len());
            }
        }
        if many {
            self.out.push(']');
        }
    }

    fn subgraph(&mut self, outer: &Graph, inner: &Graph, names: &Names) {
        self.indent += 1;
        self.graph(inner, &names.inside(outer, inner));
        self.indent -= 1;
    }
}
