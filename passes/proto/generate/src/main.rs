//! Writes `passes/src/onnx/proto.rs` (the messages, by prost) and `passes/src/onnx/schema.rs` (which fields each message has, for the
//! scan for unknown ones) from `passes/proto/onnx-ml.proto`.
//!
//! `cargo run --manifest-path passes/proto/generate/Cargo.toml`, from the repository's root; with `--check` it writes nothing and
//! fails where the committed files differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

const HEADER: &str = "// Generated from passes/proto/onnx-ml.proto (Apache-2.0, by the ONNX project's contributors) by
// `cargo run --manifest-path passes/proto/generate/Cargo.toml`. Do not edit.
";

fn main() -> Result<()> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument '{other}'; the only one is --check"),
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = here.join("../onnx-ml.proto");
    let set = protox::compile([&source], [here.join("..")])?;
    let schema = format!("{HEADER}\n{}", schema(&set)?);
    let proto = format!("{HEADER}\n{}", messages(set)?);
    for (name, text) in [("proto.rs", proto), ("schema.rs", schema)] {
        let path = here.join("../../src/onnx").join(name);
        if check {
            let committed = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            ensure!(committed == text, "{} is not what the schema gives: run without --check", path.display());
        } else {
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn messages(set: FileDescriptorSet) -> Result<String> {
    let out = std::env::temp_dir().join(format!("generate-onnx-proto-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let written = prost_build::Config::new()
        .bytes(["."])
        .disable_comments(["."])
        .out_dir(&out)
        .compile_fds(set)
        .and_then(|()| std::fs::read_to_string(out.join("onnx.rs")));
    std::fs::remove_dir_all(&out)?;
    Ok(written?)
}

/// The table of fields: for each message its name and the fields' numbers, names and, for messages, which.
fn schema(set: &FileDescriptorSet) -> Result<String> {
    let mut found = BTreeMap::new();
    for file in &set.file {
        collect(file, &mut found);
    }
    let places: BTreeMap<&str, usize> = found.keys().map(String::as_str).zip(0..).collect();
    let mut text = String::from(
        "/// A message of the schema.
pub(super) struct Message {
    /// Its name.
    pub name: &'static str,
    /// Number and name of each field and, where it is a message, that message's place in [`MESSAGES`]; by number.
    pub fields: &'static [(u32, &'static str, Option<usize>)],
}

",
    );
    let model = places.get("ModelProto").context("no ModelProto")?;
    writeln!(text, "/// Where the outermost message stands in [`MESSAGES`].\npub(super) const MODEL: usize = {model};\n")?;
    writeln!(text, "/// Every message of the schema.\n#[rustfmt::skip]\npub(super) static MESSAGES: &[Message] = &[")?;
    for (name, message) in &found {
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        writeln!(text, "    Message {{\n        name: \"{name}\",\n        fields: &[")?;
        for field in fields {
            let place = if field.r#type() == Type::Message {
                let name = field.type_name().trim_start_matches(".onnx.");
                Some(places.get(name).with_context(|| format!("no message {name}"))?)
            } else {
                None
            };
            writeln!(text, "            ({}, \"{}\", {place:?}),", field.number(), field.name())?;
        }
        writeln!(text, "        ],\n    }},")?;
    }
    writeln!(text, "];")?;
    Ok(text)
}

fn collect(file: &FileDescriptorProto, found: &mut BTreeMap<String, DescriptorProto>) {
    let mut pending: Vec<(String, &DescriptorProto)> =
        file.message_type.iter().map(|message| (message.name().to_owned(), message)).collect();
    while let Some((name, message)) = pending.pop() {
        for nested in &message.nested_type {
            pending.push((format!("{name}.{}", nested.name()), nested));
        }
        found.insert(name, message.clone());
    }
}
