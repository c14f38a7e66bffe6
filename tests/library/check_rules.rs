//! `docs/checks.md` is the lists of rules, rendered. `UPDATE_DOCS=1 cargo test check_rules` writes it again.

use std::path::PathBuf;

use lsqc_passes::check::rules_of;
use lsqc_passes::target::{TARGETS, Target};

const HEAD: &str = "\
# Rules of `lsqc check`

What `lsqc check FILE --target TARGET` looks for, rendered from its rules; a test keeps this page as they are. A broken rule means that the
runtime refuses the file, computes something else than it says, or runs a layer in floats without a word. Rules look at what is in the file:
scales that are no constants, and shapes that nobody knows, are passed over.

Those for ONNX Runtime are what its optimizer does on the CPU; `tests/python/check_rules.py` asks it. Those for OpenVINO were found on
OpenVINO 2026.4, those for TensorRT are read from its documents.
";

#[test]
fn page_is_the_rules() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/checks.md");
    let current = format!("{HEAD}{}", TARGETS.iter().map(|target| section(target)).collect::<String>());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&page).unwrap();
    assert!(
        committed == current,
        "docs/checks.md is not the rules: UPDATE_DOCS=1 cargo test check_rules"
    );
}

fn section(target: &Target) -> String {
    let row = |rule: &&lsqc_passes::check::Rule| format!("| `{}` | {} | {} |\n", rule.id, rule.says, rule.cure);
    let rows: String = rules_of(target).iter().map(row).collect();
    format!(
        "\n## {}: `--target {}`\n\n| rule | what must hold | what helps |\n|---|---|---|\n{rows}",
        target.title, target.name
    )
}
