//! Functions of the model, and references to their attributes.

use super::super::print::KINDS;
use super::{Parsed, Parser, opset_import};
use crate::ir::{Attr, Function, Remainder};

impl Parser<'_> {
    /// A function with its header.
    pub(super) fn function(&mut self) -> Parsed<Function> {
        let mut function = Function {
            domain: String::new(),
            name: String::new(),
            overload: String::new(),
            opset_imports: vec![opset_import(String::new(), 17)],
            attributes: Vec::new(),
            defaults: Vec::new(),
            body: Err(String::new()),
            remainder: Remainder::new(),
        };
        self.expect('<')?;
        self.list('>', |parser| {
            let place = parser.lexer.place();
            let key = parser.name("a key")?;
            parser.expect(':')?;
            match key.as_str() {
                "domain" => function.domain = parser.string()?,
                "overload" => function.overload = parser.string()?,
                "opset_import" => function.opset_imports = parser.opset_imports()?,
                _ => {
                    let known = "domain, overload and opset_import";
                    return parser
                        .lexer
                        .error(place, format!("unknown key '{key}': a function's header may have {known}"));
                }
            }
            Ok(())
        })?;
        function.name = self.name("a function's name")?;
        if self.take('<')? {
            self.list('>', |parser| parser.formal(&mut function))?;
        }
        function.body = Ok(self.graph_named(&function.name)?);
        Ok(function)
    }

    /// An attribute of a function: its name, or what it is where the call does not say it.
    fn formal(&mut self, function: &mut Function) -> Parsed<()> {
        let mut after = self.lexer;
        after.next()?;
        match after.next()? {
            super::Token::Mark(':' | '=') => self.attribute(&mut function.defaults),
            _ => {
                function.attributes.push(self.name("an attribute's name")?);
                Ok(())
            }
        }
    }

    /// A reference to an attribute of the function around it.
    pub(super) fn reference(&mut self, hint: Option<&str>) -> Parsed<Attr> {
        let place = self.lexer.place();
        self.expect('@')?;
        let kind = (0..).zip(KINDS).find(|(code, kind)| *code != 0 && hint == Some(kind));
        let Some((kind, _)) = kind else {
            return self.lexer.error(
                place,
                "a reference to a function's attribute needs its type: 'alpha: float = @alpha'",
            );
        };
        let name = self.name("the name of an attribute of the function")?;
        Ok(Attr::Reference { name, kind })
    }
}
