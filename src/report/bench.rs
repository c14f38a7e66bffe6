//! What `lsqc bench` says: medians of interleaved rounds, engine by engine.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::{DataOrigin, Tool};

part! {
    /// What `lsqc bench --json` prints.
    Bench {
        /// The version of this shape; 1.
        schema_version: u32,
        /// The program that measured.
        tool: Tool,
        /// The float model's file, without the folder.
        model: String,
        /// The file of --against, without the folder; null without.
        against: Option<String>,
        /// Samples in a batch, of inference as of a training step.
        batch: u64,
        /// Rounds that were timed.
        rounds: u64,
        /// Rounds before them that were not.
        warm_up: u64,
        /// Threads that were asked for; 0: the engine's choice.
        threads: u64,
        /// Cores that the system lets the process use.
        cores: u64,
        /// What was fed; noise is good enough for timing.
        data: DataOrigin,
        /// Bits of weights and activations in the training step, such as w3a3.
        bits: String,
        /// What the training step minimises: ce, kd or both.
        loss: String,
        /// The engines, one after another.
        engines: Vec<EngineBench>,
    }
}

part! {
    /// One engine.
    EngineBench {
        /// The name that --engine takes.
        name: String,
        /// Its version and kind.
        description: String,
        /// Bytes that the values of a training step were estimated to take at any one time.
        memory_estimate: u64,
        /// What was timed, in turn within each round.
        rows: Vec<BenchRow>,
    }
}

word! {
    /// What was timed.
    Measured {
        /// Inference of the float model.
        FloatInference,
        /// A training step of the quantized model.
        TrainingStep,
        /// Inference of the file of --against.
        AgainstInference,
    }
}

part! {
    /// One thing that was timed.
    BenchRow {
        /// What.
        what: Measured,
        /// The median over the rounds, for one batch.
        seconds: f64,
        /// The fastest round.
        least: f64,
        /// The slowest round.
        most: f64,
        /// The median over that of the engine's first row.
        ratio: f64,
        /// Samples in a second, at the median.
        samples_per_second: f64,
        /// The most bytes that were resident in the warm-up of a training step, above those before its first one; null where it was not
        /// measured.
        memory_peak: Option<u64>,
    }
}

impl Bench {
    /// As text for a terminal, with a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        super::written(|text| self.write(text))
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let threads = match self.threads {
            0 => format!("threads by the engine's choice on {} cores", self.cores),
            1 => format!("1 thread on {} cores", self.cores),
            n => format!("{n} threads on {} cores", self.cores),
        };
        let data = match self.data {
            DataOrigin::Real => "data from files",
            DataOrigin::Synthetic => "noise for data",
        };
        writeln!(
            text,
            "batch {}, {threads}, {data}; medians of {} rounds after {} to warm up",
            self.batch, self.rounds, self.warm_up
        )?;
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["engine", "what", "median", "least", "most", "ratio", "samples/s", "memory"]);
        for engine in &self.engines {
            for row in &engine.rows {
                table.add_row(self.cells(engine, row));
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(text, "{table}")?;
        writeln!(
            text,
            "memory: what a training step was estimated to take, and what was resident in it beyond what was there before"
        )
    }

    fn cells(&self, engine: &EngineBench, row: &BenchRow) -> [String; 8] {
        let what = match row.what {
            Measured::FloatInference => format!("inference of {}", self.model),
            Measured::TrainingStep => format!("training step {} ({})", self.bits, self.loss),
            Measured::AgainstInference => format!("inference of {}", self.against.as_deref().unwrap_or("--against")),
        };
        let [median, least, most] = [row.seconds, row.least, row.most].map(|seconds| format!("{:.2} ms", seconds * 1e3));
        let memory = match (row.what, row.memory_peak) {
            (Measured::TrainingStep, Some(peak)) => format!("{}, {}", bytes(engine.memory_estimate), bytes(peak)),
            (Measured::TrainingStep, None) => bytes(engine.memory_estimate),
            _ => String::new(),
        };
        [
            engine.name.clone(),
            what,
            median,
            least,
            most,
            format!("{:.2}", row.ratio),
            format!("{:.0}", row.samples_per_second),
            memory,
        ]
    }
}

#[allow(clippy::cast_precision_loss)]
fn bytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
