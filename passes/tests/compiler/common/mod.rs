//! What the tests of passes share: text in, the graph or the message out.
#![allow(dead_code)] // Each file uses a part of it.

use lsqc_passes::ir::Model;
use lsqc_passes::pass::{self, Pass, PassCx};
use lsqc_passes::text::{parse, print_node};

/// Runs passes on a text.
pub fn run_in(passes: &[&'static Pass], cx: &mut PassCx, text: &str) -> Result<Model, String> {
    let mut model = parse(text).unwrap_or_else(|error| panic!("{error}"));
    run_on(passes, cx, &mut model).map(|()| model)
}

/// Runs passes on a model.
pub fn run_on(passes: &[&'static Pass], cx: &mut PassCx, model: &mut Model) -> Result<(), String> {
    pass::run_quietly(passes, model, cx).map_err(|failed| failed.to_string())
}

/// The nodes, a line each, without their names.
pub fn nodes(model: &Model) -> String {
    let line = |id| {
        let line = print_node(&model.graph, id);
        let line = line.trim();
        line.split_once("] ")
            .filter(|_| line.starts_with('['))
            .map_or(line, |(_, rest)| rest)
            .to_owned()
    };
    let lines: Vec<String> = model.graph.node_ids().map(line).collect();
    lines.join("\n")
}

/// The elements of a constant, or of an input's default.
pub fn elements(model: &Model, name: &str) -> Vec<f32> {
    let value = model.graph.find(name).unwrap_or_else(|| panic!("there is no '{name}'"));
    let tensor = model.graph[value]
        .initial()
        .unwrap_or_else(|| panic!("'{name}' is no constant"));
    tensor.to_f32().unwrap_or_else(|| panic!("'{name}' is not numeric"))
}

/// What passes declined, a line each.
pub fn notes(cx: &PassCx) -> String {
    let lines: Vec<String> = cx
        .notes
        .iter()
        .map(|note| format!("{} ({}): {}", note.node, note.op, note.reason))
        .collect();
    lines.join("\n")
}
