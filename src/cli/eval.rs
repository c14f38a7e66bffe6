//! `lsqc eval`: top-1, top-5 and loss of any classifier on labelled data.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgAction, Args};
use serde::Serialize;

use super::{Purpose, choose_engine, read_preprocessing};
use crate::config::{DataFlags, EngineFlags, check_model, data_spec};
use crate::engine::LoadOptions;
use crate::failure::{Classify, Failure};
use crate::metric;
use crate::model_file::{self, ModelFile};
use crate::report::Metric;
use crate::run::{classes, model_inputs};
use crate::terminal::{self, Terminal, Verbosity};

const EXAMPLES: &str = "\
Examples:
  lsqc eval model.onnx --data data/
      measures on the folder's test files
  lsqc eval model.w3a3.onnx --data test.npz --json
      preprocessing is read from the model, where lsqc wrote it";

/// The flags of `lsqc eval`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Where data comes from.
    #[command(flatten)]
    pub data: DataFlags,
    /// What runs graphs.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
    /// Say nothing but the result, warnings and errors
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Measured {
    /// Without its folder.
    model: String,
    engine: String,
    #[serde(flatten)]
    metric: Metric,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &EvalArgs) -> Result<()> {
    check_model(&args.model)?;
    let (settings, mut spec) = data_spec(&args.model, &args.data)?;
    if spec.train.is_none() && spec.test.is_none() {
        return Err(crate::data::no_data("there is no data to measure on").into());
    }
    let terminal = Terminal::new(if args.quiet { Verbosity::Quiet } else { Verbosity::Normal });
    let plan = settings.engine(&args.engine);
    let engine = choose_engine(&plan, Purpose::Measure, &terminal)?;
    let ModelFile { model, warnings, .. } = model_file::read(&args.model)?;
    read_preprocessing(&model, &mut spec)?;
    let data = crate::data::open_test(&spec, &model_inputs(&model), classes(&model))?;
    for warning in warnings.iter().map(ToString::to_string).chain(data.warnings.iter().cloned()) {
        terminal.warn(warning);
    }
    let options = LoadOptions {
        threads: plan.threads,
        ..LoadOptions::plain()
    };
    let scores = metric::scores(&model, &data.test, engine.engine.as_ref(), &options, "measure", &terminal)?;
    let outcomes = scores.outcomes().ok_or_else(|| {
        Failure::bad_input("there is nothing to measure by: the data has no labels, or the scores are not numbers")
    })?;
    let metric = Metric::of(&outcomes)
        .context("there is no sample to measure on")
        .bad_input()?;
    if args.json {
        let name = args
            .model
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let measured = Measured {
            model: name,
            engine: engine.engine.version(),
            metric,
        };
        terminal::print(&(serde_json::to_string_pretty(&measured)? + "\n"))?;
    } else {
        let [low, high] = metric.top1_interval;
        let line = format!(
            "top-1 {:.2} % (95 %: {:.2} to {:.2})  top-5 {:.2} %  loss {:.4}  on {} samples\n",
            metric.top1 * 100.0,
            low * 100.0,
            high * 100.0,
            metric.top5 * 100.0,
            metric.loss.unwrap_or(f64::NAN),
            metric.samples
        );
        terminal::print(&line)?;
    }
    Ok(())
}
