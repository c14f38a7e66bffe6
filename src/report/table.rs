//! The report for people: a table of layers, then metrics, proof, sizes and what to beware of.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::stats::{Agreement, Metric};
use super::{BlockLayerProof, GateOutcome, Layer, LayerProof, Proof, Report, TensorReport};

/// The report as text for a terminal, with a newline at the end.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = layers(report);
    // Writing to a string cannot fail.
    let _ = write_rest(&mut text, report);
    text
}

fn layers(report: &Report) -> String {
    if report.layers.is_empty() {
        return String::new();
    }
    let proofs: BTreeMap<&str, &LayerProof> = report.proof.layers.iter().map(|proof| (proof.name.as_str(), proof)).collect();
    let blocks: BTreeMap<&str, &BlockLayerProof> = report.proof.blocks.iter().map(|proof| (proof.name.as_str(), proof)).collect();
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["layer", "op", "bits", "sign", "weight step", "input step", "clipped", "proof"]);
    for layer in &report.layers {
        let proven = match blocks.get(layer.name.as_str()) {
            Some(proof) => by_weights(proof),
            None => by_levels(proofs.get(layer.name.as_str()).copied()),
        };
        table.add_row(row(layer, proven));
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

fn row(layer: &Layer, proven: String) -> [String; 8] {
    let first_input = layer.activations.first();
    let width = |prefix: &str, tensor: Option<&TensorReport>| tensor.map(|t| format!("{prefix}{}", t.bits)).unwrap_or_default();
    let step = |tensor: Option<&TensorReport>| {
        tensor
            .map(|t| format!("{:.3e} → {:.3e}", t.first_step, t.last_step))
            .unwrap_or_default()
    };
    let clipped = first_input.and_then(|input| input.clipped).map(percent).unwrap_or_default();
    let sign = first_input.map_or("", |input| if input.signed { "±" } else { "+" });
    [
        layer.name.clone(),
        layer.op.clone(),
        layer
            .activations
            .iter()
            .fold(width("w", layer.weights.as_ref()), |text, input| {
                text + &width("a", Some(input))
            }),
        sign.to_owned(),
        step(layer.weights.as_ref()),
        step(first_input),
        clipped,
        proven,
    ]
}

fn by_levels(proof: Option<&LayerProof>) -> String {
    match proof {
        None => "-".to_owned(),
        Some(proof) if proof.mismatches > 0 => format!("{} WRONG", proof.mismatches),
        Some(proof) if proof.ties > 0 => format!("equal, {} ties", proof.ties),
        Some(_) => "equal".to_owned(),
    }
}

fn by_weights(proof: &BlockLayerProof) -> String {
    match proof.different + proof.beyond {
        0 => "weights equal".to_owned(),
        wrong => format!("{wrong} WRONG"),
    }
}

/// What was compared and found, in a line.
fn proof(proof: &Proof) -> String {
    let images = proof.images;
    let Some(outputs) = proof.outputs else {
        let compared: u64 = proof.layers.iter().map(|layer| layer.compared).sum();
        let ties: u64 = proof.layers.iter().map(|layer| layer.ties).sum();
        let mismatches = proof.mismatches();
        return format!("{mismatches} mismatches and {ties} ties in {compared} levels on {images} images");
    };
    let sum = |count: fn(&BlockLayerProof) -> u64| proof.blocks.iter().map(count).sum::<u64>();
    let (weights, different) = (sum(|layer| layer.weights), sum(|layer| layer.different));
    let (results, beyond) = (sum(|layer| layer.results), sum(|layer| layer.beyond));
    format!(
        "{different} of {weights} weights differ; {beyond} of {results} results beyond the rounding of floats; outputs within {:.1e} ({:.0e} allowed) \
         on {images} images",
        outputs.largest, outputs.allowed
    )
}

fn write_rest(text: &mut String, report: &Report) -> std::fmt::Result {
    for site in &report.not_quantized {
        writeln!(text, "float: {} ({}): {}", site.name, site.op, site.reason)?;
    }
    if let Some(seen) = report.training.as_ref().and_then(|training| training.oscillating.as_ref()) {
        writeln!(
            text,
            "{:>15}: {} of {} weights of few bits, {} still oscillate",
            "frozen",
            percent(seen.frozen),
            seen.weights,
            percent(seen.share)
        )?;
    }
    if let Some(metrics) = &report.metrics {
        let lowered = if report.settings.block.is_some() {
            "lowered"
        } else {
            "integer"
        };
        let models = [
            ("float", metrics.float.as_ref()),
            ("fake-quantized", metrics.fake_quantized.as_ref()),
            (lowered, metrics.lowered.as_ref()),
        ];
        for (name, metric) in models {
            if let Some(metric) = metric {
                writeln!(text, "{name:>15}: {}", accuracy(metric))?;
            }
        }
        if let Some(drop) = &metrics.drop {
            let [low, high] = drop.interval;
            writeln!(
                text,
                "{:>15}: {:.2} points of top-1 (95 %: {low:.2} to {high:.2})",
                "lost", drop.points
            )?;
        }
        // Where top-1 says it all, one output needs no more.
        if metrics.lowered.is_none() || metrics.outputs.len() > 1 {
            for output in &metrics.outputs {
                writeln!(text, "{:>15}: '{}' {}", "integer", output.name, output.lowered.line())?;
            }
        }
        let compared = format!("fake = {lowered}");
        writeln!(text, "{compared:>15}: {}", agreement(&metrics.fake_quantized_lowered))?;
    }
    writeln!(text, "{:>15}: {}", "proof", proof(&report.proof))?;
    let sizes = &report.sizes;
    let (float, lowered, packed) = (size(sizes.float_model), size(sizes.lowered_model), size(sizes.packed_weights));
    writeln!(
        text,
        "{:>15}: {float} → {lowered} (weights alone at their bits: {packed})",
        "size"
    )?;
    if let Some(estimate) = report.training.as_ref().and_then(|training| training.memory_estimate) {
        let peak = report.timing.memory_peak.map(|peak| format!(", measured {}", size(peak)));
        writeln!(
            text,
            "{:>15}: a training step, estimated {}{}",
            "memory",
            size(estimate),
            peak.unwrap_or_default()
        )?;
    }
    writeln!(
        text,
        "{:>15}: {} ({})",
        "engine", report.engine.description, report.engine.reason
    )?;
    if let Some(gate) = &report.gate {
        let drop = gate.drop.map_or_else(|| "?".to_owned(), |drop| format!("{drop:.2}"));
        let outcome = match gate.outcome {
            GateOutcome::Passed => "passed",
            GateOutcome::Failed => "FAILED",
            GateOutcome::NotMeasured => "not measured, there are no labels",
        };
        writeln!(
            text,
            "{:>15}: {outcome}: {drop} points lost, at most {} allowed",
            "gate", gate.max_drop
        )?;
    }
    for warning in &report.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    Ok(())
}

fn accuracy(metric: &Metric) -> String {
    let [low, high] = metric.top1_interval.map(percent);
    let loss = metric
        .loss
        .map_or_else(|| "not finite".to_owned(), |loss| format!("{loss:.4}"));
    let (top1, top5) = (percent(metric.top1), percent(metric.top5));
    format!(
        "top-1 {top1} (95 %: {low} to {high}), top-5 {top5}, loss {loss}, n = {}",
        metric.samples
    )
}

fn agreement(agreement: &Agreement) -> String {
    let largest = agreement
        .largest_difference
        .map_or_else(|| "not finite".to_owned(), |value| format!("{value:.2e}"));
    match agreement.same_top1 {
        Some(same) => format!("same top-1 on {same} of {}, largest difference {largest}", agreement.samples),
        None => format!("largest difference {largest} on {} samples", agreement.samples),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[allow(clippy::cast_precision_loss)]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}
