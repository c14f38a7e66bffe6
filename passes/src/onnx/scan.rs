//! The wire format, without the types: which fields a file has that the schema does not know, and why bytes are no model.

use std::collections::BTreeMap;

use prost::DecodeError;

use super::error::{ReadError, Warning};
use super::schema::{MESSAGES, MODEL, Message};

/// How deep messages may be nested, as prost limits it too.
const DEPTH: usize = 100;

/// A warning for each kind of field that the schema does not know.
pub(super) fn unknown_fields(bytes: &[u8]) -> Vec<Warning> {
    let mut found = BTreeMap::new();
    scan(bytes, MODEL, DEPTH, &mut found);
    let warning = |((message, number), count)| Warning::UnknownField { message, number, count };
    found.into_iter().map(warning).collect()
}

fn scan(mut bytes: &[u8], message: usize, depth: usize, found: &mut BTreeMap<(&'static str, u32), usize>) {
    let (Some(message), Some(depth)) = (MESSAGES.get(message), depth.checked_sub(1)) else {
        return;
    };
    while let Step::Field { number, content } = step(&mut bytes, depth) {
        match field(message, number) {
            None => *found.entry((message.name, number)).or_default() += 1,
            Some((_, Some(inner))) => {
                if let Some(content) = content {
                    scan(content, inner, depth, found);
                }
            }
            Some((_, None)) => {}
        }
    }
}

fn field(message: &Message, number: u32) -> Option<(&'static str, Option<usize>)> {
    let place = message.fields.binary_search_by_key(&number, |&(number, _, _)| number).ok()?;
    message.fields.get(place).map(|&(_, name, inner)| (name, inner))
}

/// Why bytes that prost refused are no model.
pub(super) fn diagnose(bytes: &[u8], error: &DecodeError) -> ReadError {
    if let Some(text) = text(bytes) {
        return ReadError::Text(text);
    }
    let detail = error.to_string();
    if detail.contains("recursion limit") {
        return ReadError::TooDeep;
    }
    let mut rest = bytes;
    loop {
        match step(&mut rest, DEPTH) {
            Step::Field { number, .. } if known(number).is_some() => {}
            Step::Cut { number, missing } => {
                return match known(number) {
                    Some(field) => ReadError::Truncated { field, missing },
                    None => ReadError::NotAModel(detail),
                };
            }
            _ => return ReadError::NotAModel(detail),
        }
    }
}

/// Why bytes that prost took are no model, where there is no graph in them.
pub(super) fn without_graph(bytes: &[u8]) -> ReadError {
    if bytes.is_empty() {
        return ReadError::Empty;
    }
    if let Some(text) = text(bytes) {
        return ReadError::Text(text);
    }
    let mut rest = bytes;
    match step(&mut rest, DEPTH) {
        Step::Field { number, .. } if known(number).is_some() => ReadError::NoGraph,
        _ => ReadError::NotAModel("its first field is none of a model's".to_owned()),
    }
}

fn known(number: u32) -> Option<&'static str> {
    field(MESSAGES.get(MODEL)?, number).map(|(name, _)| name)
}

/// What kind of text the bytes are, if they are text.
fn text(bytes: &[u8]) -> Option<&'static str> {
    const SHOWN: usize = 512;
    let head = bytes.get(..SHOWN).unwrap_or(bytes);
    let binary = |&byte: &u8| byte < b' ' && !b"\t\n\r\x0c".contains(&byte) || byte == 0x7f;
    let utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && head.len() == SHOWN,
    };
    if head.is_empty() || head.iter().any(binary) || !utf8 {
        return None;
    }
    let head = head.trim_ascii_start();
    let starts = |prefix: &str| {
        head.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    Some(if starts("version https://git-lfs") {
        "a Git LFS pointer"
    } else if starts("<!doctype") || starts("<html") || starts("<head") {
        "an HTML page"
    } else if starts("<?xml") {
        "an XML file"
    } else if starts("{") || starts("[") {
        "a JSON file"
    } else {
        "a text file"
    })
}

enum Step<'a> {
    /// A field, and what it holds where that is a string of bytes.
    Field { number: u32, content: Option<&'a [u8]> },
    /// A string of bytes that goes on after the end.
    Cut { number: u32, missing: u64 },
    /// The end, or the end of a group.
    End,
    /// No protobuf.
    Bad,
}

/// Takes the next field off the bytes.
fn step<'a>(bytes: &mut &'a [u8], depth: usize) -> Step<'a> {
    if bytes.is_empty() {
        return Step::End;
    }
    let Some(tag) = varint(bytes) else { return Step::Bad };
    let (Ok(number), wire) = (u32::try_from(tag >> 3), tag & 7) else {
        return Step::Bad;
    };
    let mut skip = |count: usize| match bytes.split_at_checked(count) {
        Some((_, rest)) => {
            *bytes = rest;
            Step::Field { number, content: None }
        }
        None => Step::Cut {
            number,
            missing: count.saturating_sub(bytes.len()) as u64,
        },
    };
    match wire {
        1 => skip(8),
        5 => skip(4),
        0 => match varint(bytes) {
            Some(_) => Step::Field { number, content: None },
            None => Step::Cut { number, missing: 1 },
        },
        2 => {
            let Some(length) = varint(bytes) else {
                return Step::Cut { number, missing: 1 };
            };
            let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
            match split {
                Some((content, rest)) => {
                    *bytes = rest;
                    Step::Field {
                        number,
                        content: Some(content),
                    }
                }
                None => Step::Cut {
                    number,
                    missing: length.saturating_sub(bytes.len() as u64),
                },
            }
        }
        3 => {
            let Some(depth) = depth.checked_sub(1) else { return Step::Bad };
            loop {
                match step(bytes, depth) {
                    Step::Field { .. } => {}
                    Step::End => return Step::Field { number, content: None },
                    other => return other,
                }
            }
        }
        4 => Step::End,
        _ => Step::Bad,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
