//! Raises the default domain's operator set, rewriting what changed on the way.
//!
//! `opset_changes.txt` (written by `passes/tools/opset_changes.py` from the onnx package) says of every op which operator sets changed it;
//! [`opset_rules`](super::opset_rules) rewrites a node for one such change. Refused by name: a node whose op changed in a way that no rule
//! covers. Nodes in subgraphs are rewritten too; ops that ONNX's default domain never had stay as they are, with a note. Other domains and
//! the bodies of functions, which import operator sets of their own, are not touched. The IR version rises with the operator set.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::opset_rules;
use crate::analyze;
use crate::ir::{Graph, Model, NodeId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static UPGRADE_OPSET: Pass = Pass {
    name: "upgrade-opset",
    about: "raise the operator set, rewriting what changed on the way",
    needs: "operator set 7 to 25",
    gives: "the target operator set or the model's own, if that is higher",
    run,
};

/// The version of the default domain to raise a model to; higher ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetOpset(pub i64);

impl Default for TargetOpset {
    /// The lowest in which everything that lsqc writes can be said: axes as operands, per-axis DequantizeLinear, Clip on integers.
    fn default() -> TargetOpset {
        TargetOpset(13)
    }
}

/// What `opset_changes.txt` says.
struct Table {
    /// The IR version that an operator set needs.
    ir: HashMap<i64, i64>,
    /// The versions of each op, and whether each changed it.
    ops: HashMap<&'static str, Vec<(i64, Meaning)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Same,
    Changed,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table {
        ir: HashMap::new(),
        ops: HashMap::new(),
    };
    for line in include_str!("opset_changes.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let mut words = line.split(' ');
        match words.next() {
            Some("ir") => table.ir = words.filter_map(|word| parse_pair(word.split_once(':')?)).collect(),
            Some(op) => drop(table.ops.insert(op, words.filter_map(parse_version).collect())),
            None => {}
        }
    }
    table
});

fn parse_pair((opset, ir): (&str, &str)) -> Option<(i64, i64)> {
    Some((opset.parse().ok()?, ir.parse().ok()?))
}

fn parse_version(word: &str) -> Option<(i64, Meaning)> {
    match word.strip_suffix('!') {
        Some(version) => Some((version.parse().ok()?, Meaning::Changed)),
        None => Some((word.strip_suffix('=')?.parse().ok()?, Meaning::Same)),
    }
}

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let TargetOpset(target) = cx.get();
    let from = model.opset();
    if target <= from {
        return Ok(Changed::No);
    }
    let Some(&ir_version) = TABLE.ir.get(&target) else {
        return Err(PassError::new(format!("operator set {target} is not known")).help("choose one of 7 to 25"));
    };
    // Rules look at element types and ranks.
    analyze::infer(model)?;
    upgrade(&mut model.graph, from, target, cx)?;
    model.set_opset("", target);
    model.ir_version = model.ir_version.max(ir_version);
    Ok(Changed::Yes)
}

fn upgrade(graph: &mut Graph, from: i64, to: i64, cx: &mut PassCx) -> Result<(), PassError> {
    for id in graph.node_list() {
        for subgraph in graph[id].subgraphs_mut() {
            upgrade(subgraph, from, to, cx)?;
            subgraph.sort();
        }
        if graph[id].op.in_default_domain() {
            upgrade_node(graph, id, from, to, cx)?;
        }
    }
    Ok(())
}

fn upgrade_node(graph: &mut Graph, id: NodeId, from: i64, to: i64, cx: &mut PassCx) -> Result<(), PassError> {
    let mut at = from;
    // A rule may put another op in the node's place, which goes on from there.
    while graph.contains(id) {
        let op = graph[id].op.name.clone();
        let Some(versions) = TABLE.ops.get(op.as_ref()) else {
            cx.note(graph, id, "ONNX has no such op: it stays as it is under the new operator set");
            return Ok(());
        };
        let next = versions
            .iter()
            .find(|(version, meaning)| (at + 1..=to).contains(version) && *meaning == Meaning::Changed);
        let Some(&(version, _)) = next else { return Ok(()) };
        let rewritten = match opset_rules::rule(&op, version) {
            Some(rule) => rule(graph, id),
            None => Err("lsqc has no rule for it".to_owned()),
        };
        rewritten.map_err(|why| {
            PassError::at(graph, id, format!("operator set {version} changed what it means: {why}"))
                .help(format!("export the model with operator set {version} or higher"))
        })?;
        at = version;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_stands_for_a_change_in_the_table() {
        for (op, versions) in &TABLE.ops {
            for version in 0..30 {
                let changed = versions.contains(&(version, Meaning::Changed));
                assert!(changed || opset_rules::rule(op, version).is_none(), "{op} {version}");
            }
        }
    }

    #[test]
    fn changes_without_a_rule_are_those_that_are_refused() {
        let mut refused: Vec<String> = Vec::new();
        for (op, versions) in &TABLE.ops {
            for (version, meaning) in versions {
                if *meaning == Meaning::Changed && opset_rules::rule(op, *version).is_none() {
                    refused.push(format!("{op} {version}"));
                }
            }
        }
        refused.sort();
        assert_eq!(
            refused,
            ["Attention 24", "Attention 25", "DFT 20", "GroupNormalization 21", "Scan 9"]
        );
    }
}
