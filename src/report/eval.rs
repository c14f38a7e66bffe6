//! What `lsqc eval` says: how well a model does, and with `--against` how far two agree on the same samples.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::{DataOrigin, Drop, Fidelity, Metric, Tool};

part! {
    /// What `lsqc eval --json` prints.
    Evaluation {
        /// The version of this shape; 1.
        schema_version: u32,
        /// The program that measured.
        tool: Tool,
        /// What ran the models.
        engine: String,
        /// Where samples came from.
        data: DataOrigin,
        /// Samples that were measured on.
        samples: u64,
        /// The model.
        model: Evaluated,
        /// The model of --against; null without.
        against: Option<Evaluated>,
        /// What is lost from the model to the one of --against; null without that, or without labels.
        drop: Option<Drop>,
        /// How far the two agree; null without --against.
        agreement: Option<OutputAgreement>,
    }
}

part! {
    /// One model.
    Evaluated {
        /// Its file, without the folder.
        name: String,
        /// Where its preprocessing was read: its own metadata, lsqc.toml, both, or null where there is none.
        preprocessing: Option<PreprocessingSource>,
        /// How well it does; null without labels.
        metric: Option<Metric>,
    }
}

word! {
    /// Who says how a model's inputs are prepared.
    PreprocessingSource {
        /// The model's own metadata.
        Model,
        /// lsqc.toml.
        Settings,
        /// Each for some inputs.
        Both,
    }
}

part! {
    /// How far two models agree on the same samples.
    OutputAgreement {
        /// Samples with the same first class of the first output; null where that is not one row of scores for each sample.
        same_top1: Option<u64>,
        /// The largest difference of any value of any output; null if it is not finite.
        largest_difference: Option<f64>,
        /// Output by output.
        outputs: Vec<OutputDifference>,
    }
}

part! {
    /// The difference of one output.
    OutputDifference {
        /// Its name in the model.
        name: String,
        /// Its name in the model of --against.
        against: String,
        /// The largest difference of any value; null if it is not finite.
        largest_difference: Option<f64>,
        /// How near the one of --against is to it.
        fidelity: Fidelity,
    }
}

impl Evaluation {
    /// As text for a terminal, with a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        super::written(|text| self.write(text))
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let names = [Some(&self.model), self.against.as_ref()].into_iter().flatten();
        let width = names.clone().map(|model| model.name.chars().count()).max().unwrap_or(0);
        for model in names {
            if let Some(metric) = &model.metric {
                if self.against.is_some() {
                    write!(text, "{:width$}  ", model.name)?;
                }
                writeln!(text, "{}", line(metric))?;
            }
        }
        if let Some(drop) = &self.drop {
            let [low, high] = drop.interval;
            writeln!(
                text,
                "lost: {:.2} points of top-1 (95 %: {low:.2} to {high:.2}): {} samples lost, {} gained",
                drop.points, drop.lost, drop.gained
            )?;
        }
        let Some(agreement) = &self.agreement else { return Ok(()) };
        if let Some(same) = agreement.same_top1 {
            writeln!(text, "same first class on {same} of {} samples", self.samples)?;
        }
        let shown = |difference: Option<f64>| difference.map_or_else(|| "not finite".to_owned(), |d| format!("{d:.2e}"));
        write!(
            text,
            "largest difference of any output: {}",
            shown(agreement.largest_difference)
        )?;
        if let [_, _, ..] = &agreement.outputs[..] {
            let each = agreement
                .outputs
                .iter()
                .map(|output| format!("{}: {}", output.name, shown(output.largest_difference)));
            write!(text, " ({})", each.collect::<Vec<_>>().join(", "))?;
        }
        writeln!(text)?;
        for output in &agreement.outputs {
            writeln!(text, "'{}': {}", output.name, output.fidelity.line())?;
        }
        Ok(())
    }
}

fn line(metric: &Metric) -> String {
    let [low, high] = metric.top1_interval;
    format!(
        "top-1 {:.2} % (95 %: {:.2} to {:.2})  top-5 {:.2} %  loss {}  on {} samples",
        metric.top1 * 100.0,
        low * 100.0,
        high * 100.0,
        metric.top5 * 100.0,
        metric
            .loss
            .map_or_else(|| "not finite".to_owned(), |loss| format!("{loss:.4}")),
        metric.samples
    )
}
