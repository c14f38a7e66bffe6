//! From text to a model.

mod function;

use super::elements::{Packed, Spelled};
use super::generate::Random;
use super::lex::{Lexer, ParseError, Token};
use crate::ir::{
    Attr, Attribute, DType, Def, Dim, DuplicateName, Graph, Model, Op, OpsetImport, Origin, Remainder, Scopes, Tensor, TensorType,
};

/// Graphs in graphs that are allowed.
const DEPTH: usize = 32;

/// Elements that a rule may make.
const MOST: usize = 1 << 28;

/// The model that a text describes.
///
/// # Errors
/// Where the text is not what it should be.
pub fn parse(text: &str) -> Result<Model, ParseError> {
    let mut parser = Parser::new(text);
    let mut model = Model {
        ir_version: 8,
        opset_imports: vec![opset_import(String::new(), 17)],
        metadata: Vec::new(),
        graph: Graph::default(),
        functions: Vec::new(),
        remainder: Remainder::new(),
    };
    if parser.take('<')? {
        parser.header(&mut model)?;
    }
    model.graph = parser.graph()?;
    while matches!(parser.peek()?, Token::Mark('<')) {
        model.functions.push(parser.function()?);
    }
    parser.end()?;
    Ok(model)
}

/// The graph that a text describes, without a header.
///
/// # Errors
/// Where the text is not what it should be.
pub fn parse_graph(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser::new(text);
    let graph = parser.graph()?;
    parser.end()?;
    Ok(graph)
}

fn opset_import(domain: String, version: i64) -> OpsetImport {
    OpsetImport {
        domain,
        version,
        remainder: Remainder::new(),
    }
}

/// A type and name that wait for the value to be there, and where they stand.
struct Said {
    ty: Option<TensorType>,
    name: String,
    place: usize,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    scopes: Scopes,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser {
            lexer: Lexer::new(text),
            scopes: Scopes::default(),
        }
    }

    // --- Tokens ----------------------------------------------------------------------------------------------------------------

    fn peek(&self) -> Parsed<Token<'a>> {
        self.lexer.clone().next()
    }

    fn peek_second(&self) -> Parsed<Token<'a>> {
        let mut lexer = self.lexer;
        lexer.next()?;
        lexer.next()
    }

    fn take(&mut self, mark: char) -> Parsed<bool> {
        let found = self.peek()? == Token::Mark(mark);
        if found {
            self.lexer.next()?;
        }
        Ok(found)
    }

    fn expect(&mut self, mark: char) -> Parsed<()> {
        if self.take(mark)? {
            Ok(())
        } else {
            self.unexpected(&format!("'{mark}'"))
        }
    }

    fn unexpected<T>(&mut self, wanted: &str) -> Parsed<T> {
        let place = self.lexer.place();
        let found = self.peek()?.describe();
        self.lexer.error(place, format!("expected {wanted}, found {found}"))
    }

    fn end(&mut self) -> Parsed<()> {
        match self.peek()? {
            Token::End => Ok(()),
            Token::Id(_) => self.unexpected("the end of the text or the header of a function"),
            _ => self.unexpected("the end of the text"),
        }
    }

    /// Items between commas, up to `close`.
    fn list(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        if self.take(close)? {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take(close)? {
                return Ok(());
            }
            if !self.take(',')? {
                return self.unexpected(&format!("',' or '{close}'"));
            }
        }
    }

    fn string(&mut self) -> Parsed<String> {
        let place = self.lexer.place();
        let Token::Str(bytes) = self.peek()? else {
            return self.unexpected("a quoted string");
        };
        self.lexer.next()?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => self.lexer.error(place, "this string is not UTF-8"),
        }
    }

    /// A name, quoted or not.
    fn name(&mut self, wanted: &str) -> Parsed<String> {
        match self.peek()? {
            Token::Id(text) => {
                self.lexer.next()?;
                Ok(text.to_owned())
            }
            Token::Str(_) => self.string(),
            _ => self.unexpected(wanted),
        }
    }

    /// A number as spelled, or one of the words for what has no digits.
    fn number(&mut self) -> Parsed<&'a str> {
        match self.peek()? {
            Token::Number(text) | Token::Id(text @ ("inf" | "nan" | "NaN" | "true" | "false")) => {
                self.lexer.next()?;
                Ok(text)
            }
            _ => self.unexpected("a number"),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, wanted: &str) -> Parsed<T> {
        let place = self.lexer.place();
        let text = self.number()?;
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) => self.lexer.error(place, format!("'{text}' is not {wanted}")),
        }
    }

    fn integer(&mut self) -> Parsed<i64> {
        self.parsed("an integer of 64 bits")
    }

    // --- Models and graphs -----------------------------------------------------------------------------------------------------

    fn header(&mut self, model: &mut Model) -> Parsed<()> {
        self.list('>', |parser| {
            let place = parser.lexer.place();
            let key = parser.name("a key")?;
            parser.expect(':')?;
            match key.as_str() {
                "ir_version" => model.ir_version = parser.integer()?,
                "opset_import" => model.opset_imports = parser.opset_imports()?,
                "metadata_props" => {
                    parser.expect('[')?;
                    parser.list(']', |parser| {
                        let key = parser.string()?;
                        parser.expect(':')?;
                        model.metadata.push((key, parser.string()?));
                        Ok(())
                    })?;
                }
                _ => {
                    let known = "ir_version, opset_import and metadata_props";
                    return parser
                        .lexer
                        .error(place, format!("unknown key '{key}': a model's header may have {known}"));
                }
            }
            Ok(())
        })
    }

    fn opset_imports(&mut self) -> Parsed<Vec<OpsetImport>> {
        let mut imports = Vec::new();
        self.expect('[')?;
        self.list(']', |parser| {
            let domain = parser.string()?;
            parser.expect(':')?;
            imports.push(opset_import(domain, parser.integer()?));
            Ok(())
        })?;
        Ok(imports)
    }

    fn graph(&mut self) -> Parsed<Graph> {
        let name = self.name("a graph's name")?;
        self.graph_named(&name)
    }

    /// What stands behind a graph's name.
    fn graph_named(&mut self, name: &str) -> Parsed<Graph> {
        let place = self.lexer.place();
        if self.scopes.depth() >= DEPTH {
            return self.lexer.error(place, format!("graphs are nested deeper than {DEPTH}"));
        }
        self.scopes.push(Graph::new(name));
        self.expect('(')?;
        self.list(')', Parser::input)?;
        if self.lexer.clone().next()? != Token::Arrow {
            return self.unexpected("'=>'");
        }
        self.lexer.next()?;
        let mut outputs = Vec::new();
        self.expect('(')?;
        self.list(')', |parser| {
            outputs.push(parser.said()?);
            Ok(())
        })?;
        let mut listed = Vec::new();
        if self.take('<')? {
            self.list('>', |parser| parser.inner(&mut listed))?;
        }
        self.expect('{')?;
        while !self.take('}')? {
            self.node()?;
        }
        self.finish(outputs, listed)
    }

    /// Gives the values their types, once all are there.
    fn finish(&mut self, outputs: Vec<Said>, listed: Vec<Said>) -> Parsed<Graph> {
        let mut ids = Vec::with_capacity(outputs.len());
        for Said { ty, name, place } in outputs {
            let Some(id) = self.resolve(&name) else {
                return self.lexer.error(place, format!("nothing defines the output '{name}'"));
            };
            let value = &mut self.scopes.graph()[id];
            if !matches!(value.def(), Def::Constant(_)) && value.ty.is_none() {
                value.ty = ty;
            }
            ids.push(id);
        }
        for (index, Said { ty, name, place }) in (0u32..).zip(listed) {
            let graph = self.scopes.graph();
            let Some(id) = graph.find(&name) else {
                return self.lexer.error(place, format!("a type for '{name}', which nothing defines"));
            };
            let value = &mut graph[id];
            if !matches!(value.def(), Def::Constant(_)) {
                value.ty = ty;
            }
            value.listed = Some(index);
        }
        let mut graph = self.scopes.pop();
        graph.set_outputs(ids);
        Ok(graph)
    }

    fn resolve(&mut self, name: &str) -> Option<crate::ir::ValueId> {
        if name.is_empty() { None } else { self.scopes.resolve(name) }
    }

    fn duplicate<T>(&self, place: usize, DuplicateName(name): &DuplicateName) -> Parsed<T> {
        self.lexer.error(place, format!("the name '{name}' is defined twice"))
    }

    /// A value's name, after its type if it has one.
    fn said(&mut self) -> Parsed<Said> {
        let ty = match self.peek()? {
            Token::Id(word) if DType::from_name(word).is_some() => Some(self.ty()?),
            Token::Id("seq" | "map" | "optional" | "sparse_tensor" | "opaque") => {
                return self.unexpected("a tensor type (other types have no place in the text form; a name like this is quoted)");
            }
            _ => None,
        };
        let place = self.lexer.place();
        let name = self.name("a value's name")?;
        if name.is_empty() {
            return self.lexer.error(place, "this value needs a name");
        }
        Ok(Said { ty, name, place })
    }

    fn input(&mut self) -> Parsed<()> {
        let Said { ty, name, place } = self.said()?;
        let default = if self.take('=')? {
            Some(self.constant(ty.as_ref(), place)?.into())
        } else {
            None
        };
        match self.scopes.graph().add_input(&name, ty, default) {
            Ok(_) => Ok(()),
            Err(error) => self.duplicate(place, &error),
        }
    }

    /// A constant, or the type of an inner value.
    fn inner(&mut self, listed: &mut Vec<Said>) -> Parsed<()> {
        let said = self.said()?;
        if !self.take('=')? {
            listed.push(said);
            return Ok(());
        }
        let tensor = self.constant(said.ty.as_ref(), said.place)?;
        match self.scopes.graph().add_initializer(&said.name, tensor.into()) {
            Ok(_) => Ok(()),
            Err(error) => self.duplicate(said.place, &error),
        }
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        let Token::Id(word) = self.peek()? else {
            return self.unexpected("a type");
        };
        let Some(dtype) = DType::from_name(word) else {
            return self.unexpected("a type");
        };
        self.lexer.next()?;
        if !self.take('[')? {
            return Ok(TensorType::new(dtype, Vec::new()));
        }
        if self.take(']')? {
            return Ok(TensorType::unranked(dtype));
        }
        let mut shape = Vec::new();
        self.list(']', |parser| {
            shape.push(match parser.peek()? {
                Token::Mark('?') => {
                    parser.lexer.next()?;
                    Dim::Unknown
                }
                Token::Number(_) => Dim::Known(parser.parsed("an extent")?),
                _ => Dim::Symbol(parser.name("an extent: a number, a name or '?'")?),
            });
            Ok(())
        })?;
        Ok(TensorType::new(dtype, shape))
    }

    // --- Tensors ---------------------------------------------------------------------------------------------------------------

    fn constant(&mut self, ty: Option<&TensorType>, place: usize) -> Parsed<Tensor> {
        let Some((dtype, shape)) = ty.and_then(|ty| Some((ty.dtype, ty.known_shape()?))) else {
            return self.lexer.error(place, "a constant needs a type whose extents are numbers");
        };
        let start = self.lexer.place();
        let mut packed = Packed::default();
        match self.peek()? {
            Token::Mark('{') => {
                self.lexer.next()?;
                self.list('}', |parser| parser.element(dtype, &mut packed))?;
            }
            Token::Id("normal" | "fill") => self.rule(dtype, &shape, &mut packed)?,
            Token::Mark('[') => return self.unexpected("'{' (the text form has no external data)"),
            _ => return self.unexpected("'{', normal(…) or fill(…)"),
        }
        match packed.finish(dtype, &shape) {
            Ok(tensor) => Ok(tensor),
            Err(problem) => self.lexer.error(start, problem),
        }
    }

    fn element(&mut self, dtype: DType, packed: &mut Packed) -> Parsed<()> {
        let place = self.lexer.place();
        let spelled = self.spelled()?;
        match packed.push(dtype, spelled) {
            Ok(()) => Ok(()),
            Err(problem) => self.lexer.error(place, problem),
        }
    }

    fn spelled(&mut self) -> Parsed<Spelled<'a>> {
        let place = self.lexer.place();
        match self.peek()? {
            Token::Mark('…') => self
                .lexer
                .error(place, "elements are left out here ('…'): this text is for people only"),
            Token::Str(text) => {
                self.lexer.next()?;
                Ok(Spelled::Text(text))
            }
            Token::Id("nan") if self.peek_second()? == Token::Mark('(') => {
                self.lexer.next()?;
                self.expect('(')?;
                let text = self.number()?;
                self.expect(')')?;
                match text
                    .strip_prefix("0x")
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                {
                    Some(bits) => Ok(Spelled::NanBits(bits)),
                    None => self.lexer.error(place, "the bits of a NaN are hexadecimal: nan(0x7fc00001)"),
                }
            }
            _ => Ok(Spelled::Number(self.number()?)),
        }
    }

    /// Elements by a rule.
    fn rule(&mut self, dtype: DType, shape: &[usize], packed: &mut Packed) -> Parsed<()> {
        let place = self.lexer.place();
        let rule = self.name("a rule")?;
        let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
        let Some(count) = count.filter(|&count| count <= MOST) else {
            return self.lexer.error(place, format!("{rule} makes at most {MOST} elements"));
        };
        self.expect('(')?;
        if rule == "fill" {
            let value = self.lexer;
            self.spelled()?;
            self.expect(')')?;
            let after = std::mem::replace(&mut self.lexer, value);
            for _ in 0..count {
                self.lexer = value;
                self.element(dtype, packed)?;
            }
            self.lexer = after;
            return Ok(());
        }
        if !dtype.is_float() {
            return self.lexer.error(place, format!("normal gives floats, not {dtype}"));
        }
        let (mut seed, mut scale) = (0u64, 1.0f64);
        self.list(')', |parser| {
            let place = parser.lexer.place();
            let key = parser.name("seed or scale")?;
            parser.expect('=')?;
            match key.as_str() {
                "seed" => seed = parser.parsed("a seed")?,
                "scale" => scale = parser.parsed("a number")?,
                _ => return parser.lexer.error(place, format!("normal takes seed and scale, not '{key}'")),
            }
            Ok(())
        })?;
        let mut random = Random::new(seed);
        for _ in 0..count {
            let text = (random.normal() * scale).to_string();
            if let Err(problem) = packed.push(dtype, Spelled::Number(&text)) {
                return self.lexer.error(place, problem);
            }
        }
        Ok(())
    }

    // --- Nodes -----------------------------------------------------------------------------------------------------------------

    fn node(&mut self) -> Parsed<()> {
        let place = self.lexer.place();
        let mut label = String::new();
        if self.take('[')? {
            label = self.name("a node's name")?;
            self.expect(']')?;
        }
        let mut outputs = Vec::new();
        self.list('=', |parser| {
            outputs.push(parser.name("a result's name, '=' or '}'")?);
            Ok(())
        })?;
        let op = self.op()?;
        let overload = if self.take(':')? {
            self.name("which of several functions")?
        } else {
            String::new()
        };
        let mut attributes = Vec::new();
        if self.take('<')? {
            self.list('>', |parser| parser.attribute(&mut attributes))?;
        }
        let mut inputs = Vec::new();
        self.expect('(')?;
        self.list(')', |parser| {
            let place = parser.lexer.place();
            let name = parser.name("an operand's name")?;
            let value = parser.resolve(&name);
            if value.is_none() && !name.is_empty() {
                return parser.lexer.error(place, format!("nothing above defines '{name}'"));
            }
            inputs.push(value);
            Ok(())
        })?;
        if attributes.is_empty() && self.take('<')? {
            self.list('>', |parser| parser.attribute(&mut attributes))?;
        }
        let names: Vec<Option<&str>> = outputs
            .iter()
            .map(|name| (!name.is_empty()).then_some(name.as_str()))
            .collect();
        let graph = self.scopes.graph();
        match graph.add_node(op, &inputs, &names, attributes) {
            Ok(id) => {
                graph[id].origin = Origin {
                    source: Some(label.clone()).filter(|label| !label.is_empty()),
                    pass: None,
                };
                graph[id].name = label;
                graph[id].overload = overload;
                Ok(())
            }
            Err(error) => self.duplicate(place, &error),
        }
    }

    fn op(&mut self) -> Parsed<Op> {
        if let Token::Str(_) = self.peek()? {
            let domain = self.string()?;
            self.expect('.')?;
            let name = self.string()?;
            return Ok(Op {
                domain: domain.into(),
                name: name.into(),
            });
        }
        let mut parts = vec![self.identifier("an op's name")?];
        while self.take('.')? {
            parts.push(self.identifier("an op's name")?);
        }
        let name = parts.pop().unwrap_or_default().to_owned();
        Ok(Op {
            domain: parts.join(".").into(),
            name: name.into(),
        })
    }

    fn identifier(&mut self, wanted: &str) -> Parsed<&'a str> {
        let Token::Id(word) = self.peek()? else {
            return self.unexpected(wanted);
        };
        self.lexer.next()?;
        Ok(word)
    }

    fn attribute(&mut self, attributes: &mut Vec<Attribute>) -> Parsed<()> {
        let name = self.name("an attribute's name")?;
        let place = self.lexer.place();
        let hint = if self.take(':')? {
            Some(self.identifier("an attribute's type")?)
        } else {
            None
        };
        self.expect('=')?;
        let value = if self.take('[')? {
            self.values(hint, place)?
        } else {
            self.single(hint)?
        };
        let kind = kind(&value);
        let told = !matches!(value, Attr::Reference { .. });
        if told && hint.is_some_and(|hint| hint != kind) {
            return self.lexer.error(
                place,
                format!("attribute '{name}' is said to be of another type than its value, {kind}"),
            );
        }
        attributes.push(Attribute::new(&name, value));
        Ok(())
    }

    /// One value; numbers are floats where they look so, or are said to be.
    fn single(&mut self, hint: Option<&str>) -> Parsed<Attr> {
        let place = self.lexer.place();
        let after = self.peek_second()?;
        match self.peek()? {
            Token::Mark('@') => self.reference(hint),
            Token::Id("opaque") if after == Token::Mark('(') => self
                .lexer
                .error(place, "the text form has no way to say the value of this attribute"),
            Token::Id("nan") => self.float().map(Attr::Float),
            Token::Id("inf" | "NaN") if after != Token::Mark('(') => self.float().map(Attr::Float),
            Token::Id(word) if DType::from_name(word).is_some() && after != Token::Mark('(') => {
                let ty = self.ty()?;
                if let Token::Id(_) | Token::Str(_) = self.peek()?
                    && !matches!(self.peek()?, Token::Id("normal" | "fill"))
                {
                    return self.unexpected("'{' (a tensor that is an attribute has no name in the text form)");
                }
                self.take('=')?;
                Ok(Attr::Tensor(self.constant(Some(&ty), place)?.into()))
            }
            Token::Id(_) | Token::Str(_) if after == Token::Mark('(') => Ok(Attr::Graph(Box::new(self.graph()?))),
            Token::Str(text) => {
                self.lexer.next()?;
                Ok(Attr::Str(text.into()))
            }
            Token::Number(text) => {
                let floating = text.contains(['.', 'n']) || text.contains(['e', 'E']);
                if floating || matches!(hint, Some("float" | "floats")) {
                    self.float().map(Attr::Float)
                } else {
                    self.integer().map(Attr::Int)
                }
            }
            _ => self.unexpected("an attribute's value"),
        }
    }

    fn float(&mut self) -> Parsed<f32> {
        let place = self.lexer.place();
        #[allow(clippy::cast_possible_truncation)]
        match self.spelled()? {
            Spelled::NanBits(bits) => Ok(f32::from_bits(bits as u32)),
            Spelled::Number(text) => match text.parse() {
                Ok(value) => Ok(value),
                Err(_) => self.lexer.error(place, format!("'{text}' is not a float")),
            },
            Spelled::Text(_) => self.lexer.error(place, "expected a float"),
        }
    }

    /// The values of a list, all of one type; integers among floats are floats.
    fn values(&mut self, hint: Option<&str>, place: usize) -> Parsed<Attr> {
        let mut values = Vec::new();
        self.list(']', |parser| {
            values.push((parser.lexer.place(), parser.single(hint)?));
            Ok(())
        })?;
        let mut list = match (hint, values.first()) {
            (Some("ints"), None) | (_, Some((_, Attr::Int(_)))) => Attr::Ints(Vec::new()),
            (Some("floats"), None) | (_, Some((_, Attr::Float(_)))) => Attr::Floats(Vec::new()),
            (Some("strings"), None) | (_, Some((_, Attr::Str(_)))) => Attr::Strings(Vec::new()),
            (Some("graphs"), None) | (_, Some((_, Attr::Graph(_)))) => Attr::Graphs(Vec::new()),
            (_, None) => return self.lexer.error(place, "an empty list needs its type: 'axes: ints = []'"),
            (_, Some((place, _))) => return self.lexer.error(*place, "the text form has no lists of these"),
        };
        if values.iter().any(|(_, value)| matches!(value, Attr::Float(_))) && matches!(list, Attr::Ints(_)) {
            list = Attr::Floats(Vec::new());
        }
        for (place, value) in values {
            match (&mut list, value) {
                (Attr::Ints(list), Attr::Int(value)) => list.push(value),
                (Attr::Floats(list), Attr::Float(value)) => list.push(value),
                #[allow(clippy::cast_precision_loss)]
                (Attr::Floats(list), Attr::Int(value)) => list.push(value as f32),
                (Attr::Strings(list), Attr::Str(value)) => list.push(value),
                (Attr::Graphs(list), Attr::Graph(value)) => list.push(*value),
                _ => return self.lexer.error(place, "this is of another type than the values before it"),
            }
        }
        Ok(list)
    }
}

fn kind(value: &Attr) -> &'static str {
    match value {
        Attr::Int(_) => "int",
        Attr::Float(_) => "float",
        Attr::Str(_) => "string",
        Attr::Tensor(_) => "tensor",
        Attr::Graph(_) => "graph",
        Attr::Ints(_) => "ints",
        Attr::Floats(_) => "floats",
        Attr::Strings(_) => "strings",
        Attr::Graphs(_) => "graphs",
        Attr::Reference { .. } => "reference",
        Attr::Opaque(_) => "opaque",
    }
}
