//! Who may use whom, read from the sources: the rules of ARCHITECTURE.md, section "Layering".
//!
//! A module is a file or folder directly under `src/`. A path `crate::a::…`, or one that climbs there by `super`, uses module `a`; imports in
//! braces count one by one. Comments and strings do not count. Tests inside a module count as the module does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of `lsqc-passes` with the modules that each may use besides itself. A stage (`simplify` and those after it) never uses another.
const COMPILER: &[(&str, &[&str])] = &[
    ("ir", &[]),
    ("text", &["ir"]),
    ("onnx", &["ir"]),
    ("ops", &["ir"]),
    ("pass", &["ir"]),
    ("analyze", &["ir", "ops", "pass"]),
    ("target", &[]),
    ("simplify", &["ir", "ops", "pass", "analyze"]),
    ("quantize", &["ir", "ops", "pass", "analyze", "target"]),
    ("train", &["ir", "ops", "pass", "analyze"]),
    ("legalize", &["ir", "ops", "pass", "analyze"]),
    ("lower", &["ir", "ops", "pass", "analyze", "target"]),
    (
        "pipelines",
        &["pass", "analyze", "simplify", "quantize", "train", "legalize", "lower"],
    ),
    ("check", &["ir", "ops", "analyze", "target", "pipelines"]),
];

/// Modules of `lsqc` that may use these alone: modules of `lsqc`, then modules of `lsqc-passes`. Those not listed are free.
const TOOL: &[(&str, &[&str], &[&str])] = &[
    ("engine", &[], &["ir"]),
    ("report", &[], &[]),
    ("failure", &["engine"], &[]),
    ("interrupt", &["failure"], &[]),
    ("output", &["failure"], &[]),
    ("terminal", &[], &[]),
    ("machine", &[], &[]),
    ("data", &["engine", "failure", "interrupt", "machine"], &["ir"]),
    ("config", &["data", "failure", "output", "terminal"], &["target"]),
    ("model_file", &["failure", "output"], &["ir", "onnx", "text"]),
];

/// Crates that only one part of the sources may name: the crate, and the folders or files that may.
const CONFINED: &[(&str, &[&str])] = &[
    ("prost", &["passes/src/onnx"]),
    ("ort", &["src/engine/ort"]),
    ("tract_onnx", &["src/engine/tract"]),
    ("tract_linalg", &["src/engine/tract"]),
    ("indicatif", &["src/terminal.rs"]),
    ("comfy_table", &["src/report"]),
    ("image", &["src/data"]),
    ("clap", &["src/cli", "src/config"]),
];

/// What the compiler does not have: files, a clock, threads, an environment, a terminal.
const NOT_IN_COMPILER: &[&str] = &[
    "std::fs",
    "std::env",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "println!",
    "print!",
    "dbg!",
];

#[test]
fn modules_of_the_compiler_use_only_what_is_below_them() {
    let mut found = Vec::new();
    for file in sources("passes/src") {
        if file.module == "lib" {
            continue;
        }
        match COMPILER.iter().find(|(module, _)| *module == file.module) {
            None => found.push(format!("{}: module {} has no rule", file.name, file.module)),
            Some((_, allowed)) => found.extend(file.beyond("crate", allowed)),
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn modules_of_the_tool_use_only_what_is_below_them() {
    let mut found = Vec::new();
    for file in sources("src") {
        if let Some((_, tool, compiler)) = TOOL.iter().find(|(module, ..)| *module == file.module) {
            found.extend(file.beyond("crate", tool));
            found.extend(file.beyond("lsqc_passes", compiler));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_compiler_does_not_know_the_tool() {
    let named = |file: &File| !paths(&file.code, "lsqc").is_empty();
    let found: Vec<String> = sources("passes/src")
        .into_iter()
        .filter(named)
        .map(|file| file.name)
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn crates_stay_where_they_belong() {
    let mut found = Vec::new();
    for file in sources("passes/src").iter().chain(&sources("src")) {
        for (name, places) in CONFINED {
            let belongs = places.iter().any(|place| file.name.starts_with(place));
            if !belongs && !paths(&file.code, name).is_empty() {
                found.push(format!("{} uses {name}", file.name));
            }
        }
        // The generated messages of the schema.
        if !file.name.starts_with("passes/src/onnx") && paths(&file.code, "onnx").contains("proto") {
            found.push(format!("{} uses onnx::proto", file.name));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_compiler_touches_no_world() {
    let mut found = Vec::new();
    for file in sources("passes/src") {
        for word in NOT_IN_COMPILER {
            let whole = |at: usize| !file.code[..at].ends_with(is_word);
            if file.code.match_indices(word).any(|(at, _)| whole(at)) {
                found.push(format!("{} uses {word}", file.name));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn paths_are_found() {
    let uses = |code: &str| paths(&plain(code), "crate").into_iter().collect::<Vec<_>>();
    assert_eq!(uses("use crate::a::B; fn f() { crate :: b :: c() }"), ["a", "b"]);
    assert_eq!(
        uses("use crate::{\n    a::{B, C},\n    b,\n    self,\n};"),
        ["a", "b", "self"]
    );
    assert_eq!(
        uses("// crate::a\n/* crate::b /* */ crate::c */ \"crate::d\" r#\"crate::e\"# 'x' '\\''"),
        Vec::<String>::new()
    );
    assert_eq!(uses("fn f<'a>(x: &'a str) { incrate::a(); crate::b(x) }"), ["b"]);
    let climbs = |code: &str, depth| climbed(&plain(code), depth).into_iter().collect::<Vec<_>>();
    assert_eq!(climbs("use super::a;\nmod tests {\n    use super::b;\n}\n", 1), ["a"]);
    assert_eq!(
        climbs("use super::a;\nmod tests {\n    use super::super::super::b;\n}\n", 2),
        ["b"]
    );
}

/// One source file.
struct File {
    /// Its path from the repository's root.
    name: String,
    /// The module directly under `src/` that it belongs to.
    module: String,
    /// How many modules deep its own module is: 1 for `src/a.rs` and `src/a/mod.rs`, 2 for `src/a/b.rs`.
    depth: usize,
    /// Its text without comments and strings.
    code: String,
}

impl File {
    /// The modules of `root` (`crate` or another) that it uses and that are neither its own nor allowed.
    fn beyond(&self, root: &str, allowed: &[&str]) -> Vec<String> {
        let mut used = paths(&self.code, root);
        if root == "crate" {
            used.extend(climbed(&self.code, self.depth));
            used.remove(&self.module);
        }
        used.into_iter()
            .filter(|module| !allowed.contains(&module.as_str()))
            .map(|module| format!("{} uses {root}::{module}", self.name))
            .collect()
    }
}

fn sources(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    files.sort();
    assert!(!files.is_empty(), "there are no sources in {folder}");
    files
        .iter()
        .map(|path| {
            let inner = path.strip_prefix(root.join(folder)).unwrap().with_extension("");
            let mut modules: Vec<String> = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if modules.len() > 1 && modules.last().is_some_and(|last| last == "mod") {
                modules.pop();
            }
            File {
                name: path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/"),
                module: modules[0].clone(),
                depth: modules.len(),
                code: plain(&fs::read_to_string(path).unwrap()),
            }
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first segments of all paths that start at `root`, each element of braces for itself.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].trim_end();
        let inside = code[..at].ends_with(is_word) || before.ends_with("::") && !is_global(before);
        if let (false, Some(rest)) = (inside, code[at + root.len()..].trim_start().strip_prefix("::")) {
            found.extend(first_segments(rest));
        }
    }
    found
}

/// Does the text end in the `::` that starts a path from the list of crates, rather than continue a path?
fn is_global(before: &str) -> bool {
    let head = before.strip_suffix("::").unwrap_or(before).trim_end();
    !head.ends_with(|c: char| is_word(c) || c == '>')
}

fn first_segments(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![rest.chars().take_while(|&c| is_word(c) || c == '*').collect()];
    };
    let (mut segments, mut depth, mut fresh) = (Vec::new(), 0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (is_word(c) || c == '*') => {
                segments.push(group[at..].chars().take_while(|&c| is_word(c) || c == '*').collect());
                fresh = false;
            }
            _ => {}
        }
    }
    segments
}

/// The modules that paths of `super` reach from a file whose own module is `depth` deep. Modules inside the file, which rustfmt closes at the
/// start of a line, are one deeper.
fn climbed(code: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inner = 0;
    for line in code.lines() {
        if line.starts_with('}') {
            inner = 0;
        }
        let head = line.trim_start_matches("pub ");
        if head.starts_with("mod ") && line.ends_with('{') {
            inner = 1;
        }
        for (at, _) in line.match_indices("super::") {
            if line[..at].ends_with(is_word) || line[..at].ends_with("super::") {
                continue;
            }
            let rest = line[at..].trim_start_matches("super::");
            let climbs = (line.len() - at - rest.len()) / "super::".len();
            if climbs >= depth + inner {
                found.extend(first_segments(rest));
            }
        }
    }
    found
}

/// The code without comments, and with strings and characters emptied.
fn plain(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, &code) {
            length
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        // What spans lines keeps them.
        code.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
        rest = &rest[skipped..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest.starts_with("*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn raw_string(text: &str, before: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    // `br"…"` is one as well; in `for"` the r is the end of a word.
    let word = before.ends_with(is_word) && !before.ends_with('b');
    let body = hashes[count..].strip_prefix('"').filter(|_| !word)?;
    let close = format!("\"{}", "#".repeat(count));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(1 + count + 1 + end)
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Does a character stand here, and no lifetime?
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}
