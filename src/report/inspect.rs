//! What `lsqc inspect` says: what would be quantized, what not and why.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::{File, Note, Tool};

part! {
    /// What `lsqc inspect --json` prints.
    Inspection {
        /// The version of this shape; 1.
        schema_version: u32,
        /// The program that looked.
        tool: Tool,
        /// The model.
        model: File,
        /// The version of the default operator set.
        opset: i64,
        /// What is remarkable about the model.
        warnings: Vec<String>,
        /// What a caller feeds.
        inputs: Vec<Port>,
        /// What the model gives.
        outputs: Vec<Port>,
        /// How the model is quantized already; null where it is not. Then nothing below is known.
        quantized_already: Option<QuantizedAlready>,
        /// Why `lsqc quantize` would refuse the model; null where it would not.
        refusal: Option<String>,
        /// Bits of weights and activations where no rule says otherwise, such as w3a3, or of weights alone, such as w4.
        bits: String,
        /// The runtime that it is for: ort, openvino, tensorrt or portable.
        target: String,
        /// Where quantizers stand at residual additions: q8, shared, shortcut or paper; none where weights alone are quantized.
        placement: String,
        /// The layers that would be quantized, in the order of the graph.
        layers: Vec<InspectedLayer>,
        /// The products of two activations that would be quantized, in the order of the graph.
        products: Vec<InspectedProduct>,
        /// Additions, concatenations and pools that would be computed on quantized inputs.
        joins: Vec<JoinLayer>,
        /// What would stay in floats.
        not_quantized: Vec<Unquantized>,
        /// Every BatchNormalization.
        batch_norms: Vec<BatchNormFold>,
        /// The multiply-adds of one sample, in Conv, ConvTranspose, Gemm and MatMul.
        multiply_adds: MultiplyAdds,
        /// Why it is not known whether gradients reach the layers; null where it is.
        gradients_unknown: Option<String>,
        /// What the runtime's own graph has; null where it was not asked for.
        confirmation: Option<Confirmation>,
        /// What passes had to say besides.
        notes: Vec<Note>,
    }
}

/// One extent of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Extent {
    /// A number.
    Number(u64),
    /// A symbol, or "?".
    Symbol(String),
}

part! {
    /// An input or output.
    Port {
        /// Its name.
        name: String,
        /// Its element type, in ONNX's words; null where the model does not say.
        dtype: Option<String>,
        /// Its shape, a number or a symbol for each extent; null where the rank is unknown.
        shape: Option<Vec<Extent>>,
    }
}

part! {
    /// How a model is quantized already.
    QuantizedAlready {
        /// Ops that only quantized models have, and how many of each.
        ops: Vec<OpCount>,
        /// Its bits, where lsqc wrote it.
        bits: Option<String>,
        /// Its placement, where lsqc wrote it.
        placement: Option<String>,
        /// The version of lsqc that wrote it.
        lsqc_version: Option<String>,
    }
}

part! {
    /// How many nodes of an op there are.
    OpCount {
        /// The op.
        op: String,
        /// How many.
        count: u64,
    }
}

part! {
    /// A layer that would be quantized.
    InspectedLayer {
        /// The name of the node.
        name: String,
        /// The operator.
        op: String,
        /// Bits of its weight.
        weight_bits: u8,
        /// Bits of its input; null where it stays in floats.
        activation_bits: Option<u8>,
        /// Weights along the input axis that share a step; null where steps are not of blocks.
        block: Option<u64>,
        /// Whether it is the first weighted layer on some path from an input.
        first: bool,
        /// Whether it is the last on some path to an output.
        last: bool,
        /// The shape of its weight.
        weight_shape: Vec<u64>,
        /// Weights and biases.
        parameters: u64,
        /// The multiply-adds of one sample; null where its shape is unknown.
        multiply_adds: Option<u64>,
        /// Whether training reaches it; null where that is not known.
        gradient: Option<GradientReach>,
        /// Whether the target computes it in integers.
        integers: bool,
        /// Why it does not.
        float_reason: Option<String>,
    }
}

part! {
    /// A product of two activations that would be quantized.
    InspectedProduct {
        /// The name of the node.
        name: String,
        /// The operator.
        op: String,
        /// Bits of both operands.
        bits: u8,
        /// The multiply-adds of one sample; null where its shape is unknown.
        multiply_adds: Option<u64>,
        /// Whether the target computes it in integers.
        integers: bool,
        /// Why it does not.
        float_reason: Option<String>,
    }
}

part! {
    /// What the runtime's own graph has.
    Confirmation {
        /// The runtime that was asked.
        engine: String,
        /// The quantized layers and products of activations that it computes in integers.
        integer_layers: u64,
        /// Layers of which something else is said above.
        differ: Vec<String>,
        /// Layers that its graph does not show: larger ops have them, or one op stands for equal ones.
        hidden: Vec<String>,
    }
}

part! {
    /// Does a gradient reach a layer's weight?
    GradientReach {
        /// Whether one does.
        reaches: bool,
        /// Why none does.
        reason: Option<String>,
    }
}

part! {
    /// An op that joins or pools quantized values.
    JoinLayer {
        /// The name of the node.
        name: String,
        /// The operator.
        op: String,
        /// Bits of its inputs, the most of them.
        bits: u8,
    }
}

part! {
    /// An op that stays in floats.
    Unquantized {
        /// The name of the node.
        name: String,
        /// The operator.
        op: String,
        /// Why.
        reason: String,
        /// The multiply-adds of one sample; null where it has none, or its shape is unknown.
        multiply_adds: Option<u64>,
        /// Whether training reaches it; null for ops without a weight, and where that is not known.
        gradient: Option<GradientReach>,
    }
}

part! {
    /// A BatchNormalization.
    BatchNormFold {
        /// The name of the node.
        name: String,
        /// The layer that it is folded into at the end, exactly; null where it stays.
        folds_into: Option<String>,
        /// Why it stays.
        reason: Option<String>,
    }
}

part! {
    /// Multiply-adds of one sample.
    MultiplyAdds {
        /// Of all layers; null where one is unknown.
        total: Option<u64>,
        /// Of those that would be quantized; null where one is unknown.
        quantized: Option<u64>,
        /// The share of the quantized ones, 0 to 1.
        share: Option<f64>,
        /// Why they are unknown.
        unknown_because: Option<String>,
    }
}

impl Inspection {
    /// As text for a terminal, with a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        super::written(|text| self.write(text))
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{}: operator set {}", self.model.name, self.opset)?;
        for (what, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for port in ports {
                writeln!(text, "{what} {}", port.line())?;
            }
        }
        if let Some(already) = &self.quantized_already {
            return already.write(text);
        }
        if let Some(refusal) = &self.refusal {
            writeln!(text, "lsqc quantize would refuse it: {refusal}")?;
        }
        if !(self.layers.is_empty() && self.products.is_empty()) {
            match self.layers.iter().filter_map(|layer| layer.block).max() {
                Some(block) => writeln!(
                    text,
                    "quantized for {}, {}: weights alone, {block} of them to a step:",
                    self.target, self.bits
                )?,
                None => writeln!(
                    text,
                    "quantized for {}, {} with placement {}:",
                    self.target, self.bits, self.placement
                )?,
            }
            writeln!(text, "{}", self.table())?;
            self.write_fit(text)?;
        }
        self.write_joins(text)?;
        self.write_floats(text)?;
        self.write_norms(text)?;
        let adds = &self.multiply_adds;
        if adds.total == Some(0) {
            return Ok(());
        }
        match (&adds.unknown_because, adds.total, adds.quantized, adds.share) {
            (None, Some(total), Some(quantized), Some(share)) => writeln!(
                text,
                "multiply-adds of one sample: {}, of which {} ({:.2} %) quantized",
                scaled(total),
                scaled(quantized),
                share * 100.0
            )?,
            (why, ..) => writeln!(
                text,
                "multiply-adds of one sample: unknown{}",
                why.as_ref().map_or_else(String::new, |why| format!(" ({why})"))
            )?,
        }
        self.write_gradients(text)?;
        for note in &self.notes {
            let at = note.node.as_ref().map_or_else(String::new, |node| format!("{node}: "));
            writeln!(text, "note: {at}{}", note.message)?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["layer", "op", "bits", "weight", "parameters", "multiply-adds", "runs in"]);
        for layer in &self.layers {
            let shape: Vec<String> = layer.weight_shape.iter().map(u64::to_string).collect();
            table.add_row([
                layer.name.clone(),
                layer.op.clone(),
                match layer.activation_bits {
                    Some(activation_bits) => format!("w{}a{activation_bits}", layer.weight_bits),
                    None => format!("w{}", layer.weight_bits),
                },
                shape.join("×"),
                layer.parameters.to_string(),
                layer.multiply_adds.map_or_else(|| "unknown".to_owned(), scaled),
                if layer.integers { "integers" } else { "floats" }.to_owned(),
            ]);
        }
        for product in &self.products {
            table.add_row([
                product.name.clone(),
                product.op.clone(),
                format!("a{0}a{0}", product.bits),
                String::new(),
                String::new(),
                product.multiply_adds.map_or_else(|| "unknown".to_owned(), scaled),
                if product.integers { "integers" } else { "floats" }.to_owned(),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Which quantized layers run in integers, and what the runtime says of it.
    fn write_fit(&self, text: &mut String) -> std::fmt::Result {
        if self.products.is_empty() && self.layers.iter().all(|layer| layer.block.is_some()) {
            return Ok(());
        }
        let layers = self.layers.iter().map(|layer| (&layer.name, &layer.float_reason));
        let all: Vec<_> = layers
            .chain(self.products.iter().map(|product| (&product.name, &product.float_reason)))
            .collect();
        let integer = all.iter().filter(|(_, reason)| reason.is_none()).count();
        writeln!(text, "in integers: {integer} of {} layers", all.len())?;
        for (name, reason) in all {
            if let Some(reason) = reason {
                writeln!(text, "  in floats: {name}: {reason}")?;
            }
        }
        let Some(confirmed) = &self.confirmation else { return Ok(()) };
        write!(
            text,
            "confirmed by {}: {} in integers",
            confirmed.engine, confirmed.integer_layers
        )?;
        for (what, names) in [("it differs at", &confirmed.differ), ("it does not show", &confirmed.hidden)] {
            if !names.is_empty() {
                write!(text, "; {what} {}", names.join(", "))?;
            }
        }
        writeln!(text)
    }

    fn write_joins(&self, text: &mut String) -> std::fmt::Result {
        let mut counts: BTreeMap<(&str, u8), usize> = BTreeMap::new();
        for join in &self.joins {
            *counts.entry((&join.op, join.bits)).or_default() += 1;
        }
        let shown: Vec<String> = counts
            .iter()
            .map(|((op, bits), count)| format!("{count} {op} ({bits} bits)"))
            .collect();
        if shown.is_empty() {
            return Ok(());
        }
        writeln!(text, "computed on quantized inputs: {}", shown.join(", "))
    }

    /// Ops in floats, those of one op and reason on one line.
    fn write_floats(&self, text: &mut String) -> std::fmt::Result {
        let mut groups: Vec<((&str, &str), Vec<&str>)> = Vec::new();
        for site in &self.not_quantized {
            let key = (site.op.as_str(), site.reason.as_str());
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, names)) => names.push(&site.name),
                None => groups.push((key, vec![&site.name])),
            }
        }
        for ((op, reason), names) in groups {
            writeln!(text, "float: {} ({op}): {reason}", few(&names))?;
        }
        Ok(())
    }

    fn write_norms(&self, text: &mut String) -> std::fmt::Result {
        let folded = self.batch_norms.iter().filter(|norm| norm.folds_into.is_some()).count();
        if self.batch_norms.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "BatchNormalization: {folded} of {} fold exactly",
            self.batch_norms.len()
        )?;
        for norm in &self.batch_norms {
            if let Some(reason) = &norm.reason {
                writeln!(text, "  stays: {}: {reason}", norm.name)?;
            }
        }
        Ok(())
    }

    fn write_gradients(&self, text: &mut String) -> std::fmt::Result {
        if let Some(why) = &self.gradients_unknown {
            return writeln!(text, "gradients: unknown ({why})");
        }
        let of_layers = self.layers.iter().map(|layer| (&layer.name, &layer.gradient));
        let of_floats = self.not_quantized.iter().map(|site| (&site.name, &site.gradient));
        let all: Vec<(&String, &GradientReach)> = of_layers
            .chain(of_floats)
            .filter_map(|(name, reach)| Some((name, reach.as_ref()?)))
            .collect();
        if all.is_empty() {
            return Ok(());
        }
        let reached = all.iter().filter(|(_, reach)| reach.reaches).count();
        writeln!(text, "gradients: training reaches {reached} of {} layers", all.len())?;
        for (name, reach) in all {
            if let Some(reason) = &reach.reason {
                writeln!(text, "  not trained: {name}: {reason}")?;
            }
        }
        Ok(())
    }
}

impl QuantizedAlready {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let ops: Vec<String> = self.ops.iter().map(|op| format!("{} {}", op.count, op.op)).collect();
        let by = match (&self.bits, &self.placement, &self.lsqc_version) {
            (Some(bits), Some(placement), Some(version)) if placement == "none" => format!("by lsqc {version}, {bits}"),
            (Some(bits), Some(placement), Some(version)) => {
                format!("by lsqc {version}, {bits} with placement {placement}")
            }
            _ => "by another program".to_owned(),
        };
        writeln!(text, "it is quantized already, {by}: {}", ops.join(", "))?;
        writeln!(text, "lsqc quantizes float models: give the one that this was made from")
    }
}

impl Port {
    fn line(&self) -> String {
        let dtype = self.dtype.as_deref().unwrap_or("?");
        let extent = |extent: &Extent| match extent {
            Extent::Number(number) => number.to_string(),
            Extent::Symbol(symbol) => symbol.clone(),
        };
        let shape = self.shape.as_ref().map_or_else(
            || "?".to_owned(),
            |shape| shape.iter().map(extent).collect::<Vec<_>>().join(", "),
        );
        format!("{}: {dtype} [{shape}]", self.name)
    }
}

/// The first few names, and how many more there are.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[allow(clippy::cast_precision_loss)]
fn scaled(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{:.1} k", count as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.1} G", count as f64 / 1e9),
    }
}
