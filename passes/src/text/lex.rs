//! Tokens of the text form, and errors that show where.

use crate::ir::DType;

/// Where a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}\n  | {source_line}\n  | {}^", " ".repeat(column.saturating_sub(1)))]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
    /// The text of the line.
    pub source_line: String,
}

/// Words that begin a type or a value, and so must be quoted where they are names.
const WORDS: &[&str] = &[
    "seq",
    "map",
    "optional",
    "sparse_tensor",
    "opaque",
    "normal",
    "fill",
    "inf",
    "nan",
    "NaN",
];

/// Is this an identifier?
pub(super) fn is_identifier(text: &str) -> bool {
    let start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    start && text.chars().all(is_word)
}

/// Can this be a name without quotes?
pub(super) fn is_plain(text: &str) -> bool {
    is_identifier(text) && !WORDS.contains(&text) && DType::from_name(text).is_none()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier or word.
    Id(&'a str),
    /// A quoted string, without its quotes and escapes.
    Str(Vec<u8>),
    /// A number as it is spelled.
    Number(&'a str),
    /// `=>`.
    Arrow,
    /// Any other character.
    Mark(char),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// How the token is called in errors.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Id(text) | Token::Number(text) => format!("'{text}'"),
            Token::Str(bytes) => format!("\"{}\"", String::from_utf8_lossy(bytes)),
            Token::Arrow => "'=>'".to_owned(),
            Token::Mark(c) => format!("'{c}'"),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

/// Cuts a text into tokens. A copy looks ahead.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Begins a text.
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips spaces and comments, and gives the place of what follows.
    pub(super) fn place(&mut self) -> usize {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return self.at;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// The error `message` at `place`.
    pub(super) fn error<T>(&self, place: usize, message: impl Into<String>) -> Result<T, ParseError> {
        let before = self.text.get(..place).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self
            .text
            .get(start..)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        Err(ParseError {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            message: message.into(),
            source_line: line.replace('\t', " "),
        })
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Result<Token<'a>, ParseError> {
        let place = self.place();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first == '"' {
            return self.string(place);
        }
        let second = rest.chars().nth(1);
        if rest.starts_with("=>") {
            self.at += 2;
            return Ok(Token::Arrow);
        }
        if first.is_ascii_digit() || (first == '-' && second.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.')) {
            let mut previous = ' ';
            let inside = |c: char| {
                let sign = matches!(c, '-' | '+') && matches!(previous, 'e' | 'E');
                previous = c;
                is_word(c) || c == '.' || sign
            };
            let body = &rest.get(1..).unwrap_or_default();
            let length = 1 + body.find(not(inside)).unwrap_or(body.len());
            self.at += length;
            return Ok(Token::Number(rest.get(..length).unwrap_or(rest)));
        }
        if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            self.at += length;
            return Ok(Token::Id(rest.get(..length).unwrap_or(rest)));
        }
        self.at += first.len_utf8();
        Ok(Token::Mark(first))
    }

    fn string(&mut self, place: usize) -> Result<Token<'a>, ParseError> {
        let mut bytes = Vec::new();
        let mut rest = self.rest().as_bytes().iter().skip(1);
        let mut length = 1;
        while let Some(&byte) = rest.next() {
            length += 1;
            match byte {
                b'"' => {
                    self.at += length;
                    return Ok(Token::Str(bytes));
                }
                b'\\' => {
                    let Some(&escaped) = rest.next() else { break };
                    length += 1;
                    if escaped != b'x' {
                        bytes.push(escaped);
                        continue;
                    }
                    let mut digit = || rest.next().and_then(|&digit| char::from(digit).to_digit(16));
                    let (Some(high), Some(low)) = (digit(), digit()) else {
                        return self.error(place + length - 2, "'\\x' takes two hexadecimal digits");
                    };
                    length += 2;
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                }
                _ => bytes.push(byte),
            }
        }
        self.error(place, "this string has no closing quote")
    }
}

fn not(mut predicate: impl FnMut(char) -> bool) -> impl FnMut(char) -> bool {
    move |c| !predicate(c)
}
