//! What `lsqc check` says: which rules of a target a finished quantized file breaks, where, and what helps.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::{File, Tool};

part! {
    /// What `lsqc check --json` prints.
    Checked {
        /// The version of this shape; 1.
        schema_version: u32,
        /// The program that looked.
        tool: Tool,
        /// The file.
        model: File,
        /// The target whose rules were looked at.
        target: String,
        /// The version of it that must load the file; null where none was named.
        runtime: Option<String>,
        /// The version of the default operator set.
        opset: i64,
        /// The version of ONNX's file format.
        ir_version: i64,
        /// What is remarkable about the file.
        warnings: Vec<String>,
        /// The ids of the rules that were looked at.
        rules: Vec<String>,
        /// The violations, rule by rule; none where the file is as the target needs it.
        findings: Vec<CheckFinding>,
    }
}

part! {
    /// A violation.
    CheckFinding {
        /// The rule's id.
        rule: String,
        /// The node; null where it is about the whole file.
        node: Option<String>,
        /// Its op.
        op: Option<String>,
        /// What is wrong.
        what: String,
        /// What must hold, and why.
        says: String,
        /// What to do about it.
        cure: String,
    }
}

impl Checked {
    /// As text for a terminal, with a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        super::written(|text| self.write(text))
    }

    /// How many rules are broken.
    #[must_use]
    pub fn broken(&self) -> usize {
        let rules: BTreeSet<&str> = self.findings.iter().map(|finding| finding.rule.as_str()).collect();
        rules.len()
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let target = &self.target;
        for finding in &self.findings {
            match (&finding.node, &finding.op) {
                (Some(node), Some(op)) => writeln!(text, "{node} ({op}): {}", finding.what)?,
                _ => writeln!(text, "{}: {}", self.model.name, finding.what)?,
            }
            writeln!(text, "  rule {target}/{}: {}", finding.rule, finding.says)?;
            writeln!(text, "  cure: {}", finding.cure)?;
        }
        let (rules, findings) = (self.rules.len(), self.findings.len());
        if findings == 0 {
            writeln!(text, "{}: all {rules} rules of {target} hold", self.model.name)
        } else {
            let broken = self.broken();
            writeln!(
                text,
                "{}: {broken} of {rules} rules of {target} broken, {findings} findings",
                self.model.name
            )
        }
    }
}
