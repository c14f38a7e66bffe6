//! `docs/ops.md` is the op table, rendered. `UPDATE_DOCS=1 cargo test op_table` writes it again.

use std::path::PathBuf;

use lsqc_passes::ir::LSQC_DOMAIN;
use lsqc_passes::ops::{self, Gradient, OpEntry, Quant};

const HEAD: &str = "\
# Ops

The op table of `lsqc-passes`, rendered; a test keeps this page as the table is.

Any op that is not here passes through unharmed: it keeps the types that the model declares, stays in floats, and lets no gradient through.

**Gradient**: `yes`: there is a rule, checked against finite differences on the number of cases in brackets. `straight-through`: there is a
rule, and it is no slope. `zero`: the result does not depend on the operands almost everywhere, or is no float. `no`: gradients stop there,
so that what lies before the op is trained only along other paths; the report notes it, with the reason given here.

**Quantization**: `weighted`: a matrix multiply, its constant weight and its input are quantized. `inputs`: computed on quantized inputs
into a quantized result. `joins`: joins several quantized inputs. `transparent`: moves values, levels pass through unchanged. `clamp`:
folded into the integer range of the quantizer behind it. `float`: stays in floats.
";

#[test]
fn page_is_the_table() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/ops.md");
    let current = render();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&page).unwrap();
    assert!(
        committed == current,
        "docs/ops.md is not the op table: UPDATE_DOCS=1 cargo test op_table"
    );
}

fn render() -> String {
    let (own, standard): (Vec<&OpEntry>, Vec<&OpEntry>) = ops::entries().partition(|entry| entry.domain == LSQC_DOMAIN);
    let own_head = "\
Quantizers and backward ops, of the domain `lsqc`. They live inside the compiler: `legalize` spells them in standard ops, and no file that a
run writes has them.";
    format!(
        "{HEAD}\n## Standard ops\n\n{}\n## Ops of lsqc's own\n\n{own_head}\n\n{}",
        table(standard),
        table(own)
    )
}

fn table(mut entries: Vec<&OpEntry>) -> String {
    entries.sort_by_key(|entry| entry.name);
    let row = |entry: &OpEntry| format!("| `{}` | {} | {} |\n", entry.name, gradient(entry), quantization(entry.quant));
    let rows: String = entries.into_iter().map(row).collect();
    format!("| op | gradient | quantization |\n|---|---|---|\n{rows}")
}

fn gradient(entry: &OpEntry) -> String {
    match entry.gradient {
        Gradient::Rule(_) => match (entry.samples)().len() {
            0 => "straight-through".to_owned(),
            cases => format!("yes ({cases})"),
        },
        Gradient::Zero => "zero".to_owned(),
        Gradient::Unsupported(why) => format!("no: {why}"),
    }
}

fn quantization(quant: Quant) -> &'static str {
    match quant {
        Quant::Weighted { .. } => "weighted",
        Quant::Inputs => "inputs",
        Quant::Transparent => "transparent",
        Quant::Joins => "joins",
        Quant::Clamp => "clamp",
        Quant::Float => "float",
    }
}
