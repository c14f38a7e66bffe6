//! Random graphs: parse ∘ print and read ∘ write change nothing.

use bytes::Bytes;
use lsqc_passes::ir::{
    Attr, Attribute, DType, Def, Dim, Form, Graph, Model, Op, OpsetImport, Remainder, Scopes, Tensor, TensorType, ValueId, verify,
};
use lsqc_passes::onnx::{NoExternalData, OwnOps, WriteOptions, read, write};
use lsqc_passes::text::{PrintOptions, parse, print};
use proptest::prelude::*;

/// Numbers that decide everything; zeros when they are used up.
struct Choices(std::vec::IntoIter<u32>);

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        self.0.next().unwrap_or(0) as usize % limit.max(1)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn name(&mut self) -> String {
        self.pick(&[
            "x",
            "t1",
            "/layer/0/Conv_output_0",
            "a::b",
            "naïve",
            "float",
            "fill",
            "q\"\\",
            "\u{1}\n",
            "0",
            "seq",
            " ",
        ])
        .to_owned()
    }

    fn text(&mut self) -> Bytes {
        Bytes::copy_from_slice(self.pick(&[&b""[..], b"text", b"\"\\", b"\xff\xfe\0", "…é\n".as_bytes()]))
    }

    fn number(&mut self) -> f32 {
        f32::from_bits(self.0.next().unwrap_or(0))
    }

    fn tensor(&mut self) -> Tensor {
        let dtype = self.pick(DType::ALL);
        // Elements smaller than a byte fill theirs: the text form keeps no bits after the last element.
        let shape = match (self.below(4), dtype.bits()) {
            (_, Some(1..8)) => vec![self.below(3), 4],
            (0, _) => vec![],
            (n, _) => vec![self.below(3); n],
        };
        let count = shape.iter().product();
        match dtype.byte_len(count) {
            Some(length) => {
                let bytes: Vec<u8> = (0..length).map(|_| self.below(256) as u8).collect();
                Tensor::from_bytes(dtype, &shape, bytes.into()).unwrap()
            }
            None => Tensor::from_strings(&shape, (0..count).map(|_| self.text()).collect()).unwrap(),
        }
    }

    fn ty(&mut self) -> Option<TensorType> {
        let dtype = self.pick(DType::ALL);
        let dims = [
            Dim::Known(0),
            Dim::Known(224),
            Dim::Symbol("N".into()),
            Dim::Symbol("odd dim".into()),
            Dim::Unknown,
        ];
        match self.below(4) {
            0 => None,
            1 => Some(TensorType::unranked(dtype)),
            rank => Some(TensorType::new(dtype, (2..rank + 2).map(|_| self.pick(&dims)).collect())),
        }
    }

    fn attribute(&mut self, scopes: &mut Scopes) -> Attribute {
        let value = match self.below(10) {
            0 => Attr::Int(self.below(usize::MAX) as i64 - 9),
            1 => Attr::Float(self.number()),
            2 => Attr::Str(self.text()),
            3 => Attr::Tensor(self.tensor().into()),
            4 => Attr::Ints((0..self.below(3)).map(|n| n as i64 - 1).collect()),
            5 => Attr::Floats((0..self.below(3)).map(|_| self.number()).collect()),
            6 => Attr::Strings((0..self.below(3)).map(|_| self.text()).collect()),
            7 if scopes.depth() < 4 => Attr::Graphs((0..self.below(3)).map(|_| self.graph(scopes)).collect()),
            8 if scopes.depth() < 4 => Attr::Graph(Box::new(self.graph(scopes))),
            _ => Attr::Ints(vec![1, 2]),
        };
        let name = self.pick(&["axis", "alpha", "int", "odd name", "body"]);
        Attribute::new(name, value)
    }

    /// A value of the innermost graph or of one around it.
    fn value(&mut self, scopes: &mut Scopes, names: &[String]) -> Option<ValueId> {
        let name = self.pick(names);
        if name.is_empty() { None } else { scopes.resolve(&name) }
    }

    fn graph(&mut self, scopes: &mut Scopes) -> Graph {
        let name = self.pick(&["g", "", "main graph", "normal"]);
        scopes.push(Graph::new(name));
        for _ in 0..=self.below(3) {
            let (name, ty) = (self.name(), self.ty());
            let default = (self.below(3) == 0).then(|| self.tensor());
            let name = scopes.graph().fresh_name(&name);
            let ty = match &default {
                Some(tensor) => Some(TensorType::fixed(tensor.dtype(), tensor.shape())),
                None => ty,
            };
            scopes.graph().add_input(&name, ty, default.map(Into::into)).unwrap();
        }
        for _ in 0..self.below(3) {
            let (name, tensor) = (self.name(), self.tensor());
            scopes.graph().add_constant(&name, tensor);
        }
        let mut listed = 0;
        for _ in 0..self.below(5) {
            let mut names: Vec<String> = scopes.graph().values().map(|(_, value)| value.name().to_owned()).collect();
            names.extend(["x", "t1", "/layer/0/Conv_output_0", ""].map(str::to_owned));
            let attributes: Vec<Attribute> = (0..self.below(3)).map(|_| self.attribute(scopes)).collect();
            let inputs: Vec<_> = (0..self.below(4)).map(|_| self.value(scopes, &names)).collect();
            let mut outputs: Vec<String> = Vec::new();
            for _ in 0..=self.below(3) {
                let base = self.name();
                let name = scopes.graph().fresh_name(&base);
                outputs.push(if outputs.contains(&name) || self.below(4) == 3 {
                    String::new()
                } else {
                    name
                });
            }
            let outputs: Vec<Option<&str>> = outputs
                .iter()
                .map(|name| Some(name.as_str()).filter(|name| !name.is_empty()))
                .collect();
            let domain = self.pick(&["", "ai.onnx", "com.microsoft", "my-domain", "lsqc", "a."]);
            let op = Op {
                domain: domain.into(),
                name: self.pick(&["Add", "Conv", "a.b", "float", "", "If"]).into(),
            };
            let name = self.name();
            let types: Vec<_> = outputs.iter().map(|_| self.ty()).collect();
            let graph = scopes.graph();
            let id = graph.add_node(op, &inputs, &outputs, attributes).unwrap();
            graph[id].name = name;
            for (value, ty) in graph[id].outputs().to_vec().into_iter().zip(types) {
                if let (Some(value), Some(ty)) = (value, ty) {
                    graph[value].ty = Some(ty);
                    graph[value].listed = Some(listed);
                    listed += 1;
                }
            }
        }
        let mut graph = scopes.pop();
        let own: Vec<ValueId> = graph
            .values()
            .filter(|(_, v)| !matches!(v.def(), Def::Captured(_)))
            .map(|(id, _)| id)
            .collect();
        let outputs: Vec<ValueId> = (0..=self.below(3)).map(|_| self.pick(&own)).collect();
        for &output in &outputs {
            graph[output].listed = None;
        }
        graph.set_outputs(outputs);
        graph
    }

    fn model(&mut self) -> Model {
        let mut import = |domain: &str| OpsetImport {
            domain: domain.to_owned(),
            version: 7 + self.below(19) as i64,
            remainder: Remainder::new(),
        };
        let opset_imports = vec![import(""), import("com.microsoft")];
        Model {
            ir_version: 8,
            opset_imports,
            metadata: (0..self.below(3)).map(|n| (n.to_string(), self.name())).collect(),
            graph: self.graph(&mut Scopes::default()),
            functions: vec![],
            remainder: Remainder::new(),
        }
    }
}

fn bytes(model: &Model) -> Bytes {
    let options = WriteOptions {
        own_ops: OwnOps::Keep,
        ..WriteOptions::default()
    };
    write(model, &options).unwrap().model
}

/// Spells the tensors of a model in the typed fields.
fn typed(mut model: Model) -> Model {
    for node in model.graph.node_list() {
        for attribute in &mut model.graph[node].attributes {
            if let Attr::Tensor(literal) = &mut attribute.value {
                literal.form = Form::Typed;
            }
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_and_parsing_changes_nothing(choices in proptest::collection::vec(any::<u32>(), 0..400)) {
        let model = Choices(choices.into_iter()).model();
        verify(&model.graph).unwrap();
        let text = print(&model, &PrintOptions::default());
        let parsed = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        verify(&parsed.graph).unwrap();
        prop_assert_eq!(&print(&parsed, &PrintOptions::default()), &text);
        prop_assert_eq!(bytes(&parsed), bytes(&model), "{}", text);
    }

    #[test]
    fn writing_and_reading_changes_nothing(choices in proptest::collection::vec(any::<u32>(), 0..400)) {
        let model = typed(Choices(choices.into_iter()).model());
        let written = bytes(&model);
        let (read, warnings) = read(written.clone(), &NoExternalData).unwrap();
        prop_assert_eq!(warnings, vec![]);
        verify(&read.graph).unwrap();
        prop_assert_eq!(bytes(&read), written);
        prop_assert_eq!(print(&read, &PrintOptions::default()), print(&model, &PrintOptions::default()));
    }
}
