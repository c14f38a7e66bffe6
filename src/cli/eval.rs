//! `lsqc eval`: top-1, top-5 and loss of any classifier on labelled data; with `--against` two models on the same data.
//!
//! Each model is fed as its own metadata says, where it says so. Two models are compared output by output; that needs no labels. Refused
//! are models that take or give other tensors than each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{ArgAction, Args};
use lsqc_passes::ir::Model;

use super::alike::{self, Named};
use super::{Preprocessing, Purpose, choose_engine, read_preprocessing, say_data};
use crate::config::{DataFlags, EngineFlags, MessageFlags, check_model, data_spec};
use crate::data::{Data, Spec};
use crate::engine::{Engine, LoadOptions};
use crate::failure::{Classify, Failure};
use crate::metric;
use crate::model_file::{self, ModelFile};
use crate::report::{
    self, DataOrigin, Evaluated, Evaluation, Metric, OutputAgreement, OutputDifference, PreprocessingSource, Tool,
};
use crate::run::{classes, model_inputs};
use crate::terminal::{self, Terminal};
use crate::tune::class_axis;

const EXAMPLES: &str = "\
Examples:
  lsqc eval model.onnx --data data/
      measures on the folder's test files
  lsqc eval model.w3a3.onnx --data test.npz --json
      preprocessing is read from the model, where lsqc wrote it
  lsqc eval model.onnx --against model.w3a3.onnx --data data/
      both on the same data: the paired difference of top-1, how often the first class is the same, the largest difference";

/// The flags of `lsqc eval`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// A second model, measured on the same data and compared with the first
    #[arg(long, value_name = "OTHER")]
    pub against: Option<PathBuf>,
    /// Where data comes from.
    #[command(flatten)]
    pub data: DataFlags,
    /// What runs graphs.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
    /// How much is said.
    #[command(flatten)]
    pub messages: MessageFlags,
}

/// A model's file.
struct File<'a> {
    path: &'a Path,
    file: ModelFile,
}

impl<'a> File<'a> {
    fn read(path: &'a Path) -> Result<File<'a>> {
        Ok(File {
            path,
            file: model_file::read(path)?,
        })
    }

    fn named(&self) -> Named<'_> {
        (self.path, &self.file.model.graph)
    }
}

/// A model that is measured.
struct Side {
    name: String,
    model: Model,
    data: Data,
    preprocessing: Option<PreprocessingSource>,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &EvalArgs) -> Result<()> {
    check_model(&args.model)?;
    args.against.as_deref().map_or(Ok(()), check_model)?;
    let (settings, spec) = data_spec(&args.model, &args.data)?;
    if spec.train.is_none() && spec.test.is_none() {
        return Err(crate::data::no_data("there is no data to measure on").into());
    }
    let terminal = Terminal::new(args.messages.manner());
    let plan = settings.engine(&args.engine);
    let engine = choose_engine(&plan, Purpose::Measure, &terminal)?;
    let options = LoadOptions {
        threads: plan.threads,
        ..LoadOptions::plain()
    };
    let first = File::read(&args.model)?;
    let second = args.against.as_deref().map(File::read).transpose()?;
    let outputs = match &second {
        Some(second) => {
            alike::inputs(&first.named(), &second.named())?;
            alike::outputs(&first.named(), &second.named())?
        }
        None => Vec::new(),
    };
    let mut said = BTreeSet::new();
    let first = open(first, &spec, &mut said, &terminal)?;
    say_data(&first.data, &terminal);
    let base = Evaluation {
        schema_version: report::SCHEMA_VERSION,
        tool: Tool::this(),
        engine: engine.engine.version(),
        data: DataOrigin::Real,
        samples: first.data.test.len() as u64,
        model: evaluated(&first, None),
        against: None,
        drop: None,
        agreement: None,
    };
    let evaluation = match second {
        None => Evaluation {
            model: evaluated(&first, Some(alone(&first, engine.engine.as_ref(), &options, &terminal)?)),
            ..base
        },
        Some(second) => {
            let second = open(second, &spec, &mut said, &terminal)?;
            together(base, [&first, &second], &outputs, engine.engine.as_ref(), &options, &terminal)?
        }
    };
    let text = if args.json {
        report::to_json(&evaluation)?
    } else {
        evaluation.render()
    };
    Ok(terminal::print(&text)?)
}

/// Opens the data as one model wants it: what its own metadata says of an input holds, lsqc.toml says the rest. A warning that was `said`
/// is not repeated.
fn open(File { path, file }: File, spec: &Spec, said: &mut BTreeSet<String>, terminal: &Terminal) -> Result<Side> {
    let ModelFile { mut model, warnings, .. } = file;
    // As a run takes it: its inputs may have no axis for a batch.
    crate::run::batch::settle(&mut model);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut spec = spec.clone();
    let Preprocessing { source, overruled } = read_preprocessing(&model, &mut spec)?;
    for input in overruled {
        terminal.warn(super::overruled(&name, &input));
    }
    let data = crate::data::open_test(&spec, &model_inputs(&model), classes(&model))?;
    for warning in warnings.iter().map(ToString::to_string).chain(data.warnings.iter().cloned()) {
        if said.insert(warning.clone()) {
            terminal.warn(warning);
        }
    }
    Ok(Side {
        name,
        model,
        data,
        preprocessing: source,
    })
}

fn evaluated(side: &Side, metric: Option<Metric>) -> Evaluated {
    Evaluated {
        name: side.name.clone(),
        preprocessing: side.preprocessing,
        metric,
    }
}

/// One model by itself: that needs labels.
fn alone(side: &Side, engine: &dyn Engine, options: &LoadOptions, terminal: &Terminal) -> Result<Metric> {
    let Some((place, _)) = metric::scored_output(&side.model) else {
        return Err(
            Failure::bad_input("there is nothing to measure by: the model has no output [N, classes] of scores")
                .help("give a second model: --against OTHER compares any outputs, without labels")
                .into(),
        );
    };
    let measured = metric::Measured {
        model: &side.model,
        data: &side.data.test,
        options,
    };
    let scored = metric::Compared {
        places: vec![place],
        classes: None,
    };
    let comparison = metric::compare(&[measured], &[scored], (Some(0), &[]), engine, terminal)?;
    let scores = comparison.scores.into_iter().next().flatten();
    let outcomes = scores.as_ref().and_then(metric::Scores::outcomes).ok_or_else(|| {
        Failure::bad_input("there is nothing to measure by: the data has no labels, or the scores are not numbers")
            .help("give labels, or a second model: --against OTHER compares without them")
    })?;
    Metric::of(&outcomes).context("there is no sample to measure on").bad_input()
}

/// Two models on the same samples.
fn together(
    base: Evaluation,
    sides: [&Side; 2],
    outputs: &[(usize, usize)],
    engine: &dyn Engine,
    options: &LoadOptions,
    terminal: &Terminal,
) -> Result<Evaluation> {
    let pair = sides.map(|side| metric::Measured {
        model: &side.model,
        data: &side.data.test,
        options,
    });
    let [a, b] = sides;
    let graph = &a.model.graph;
    let axis = |place: usize| graph.outputs().get(place).and_then(|&output| class_axis(graph, output));
    let compared: Vec<metric::Compared> = outputs
        .iter()
        .map(|&(left, right)| metric::Compared {
            places: vec![left, right],
            classes: axis(left),
        })
        .collect();
    // A model whose types do not say it may still give rows of scores.
    let scored = metric::scored_output(&a.model).map_or(0, |(place, _)| place);
    let scored = outputs.iter().position(|&(left, _)| left == scored);
    let comparison = metric::compare(&pair, &compared, (scored, &[(0, 1)]), engine, terminal)?;
    let scores = |side: usize| comparison.scores.get(side).and_then(Option::as_ref);
    let answers = [0, 1].map(|side| scores(side).and_then(metric::Scores::outcomes));
    let [of_first, of_second] = [0, 1].map(|side: usize| Metric::of(answers.get(side)?.as_ref()?));
    let agreement = comparison.agreement(0, (0, 1));
    let name = |side: &Side, place: usize| {
        let value = side.model.graph.outputs().get(place);
        value.map_or_else(String::new, |&value| side.model.graph[value].name().to_owned())
    };
    let each = outputs.iter().zip(comparison.pairs.iter().flatten());
    let each = each.map(|(&(left, right), fidelity)| OutputDifference {
        name: name(a, left),
        against: name(b, right),
        largest_difference: fidelity.largest_difference(),
        fidelity: fidelity.report(),
    });
    Ok(Evaluation {
        model: evaluated(a, of_first),
        against: Some(evaluated(b, of_second)),
        drop: answers[0]
            .as_ref()
            .zip(answers[1].as_ref())
            .and_then(|(a, b)| report::drop_of(a, b)),
        agreement: Some(OutputAgreement {
            same_top1: agreement.same_top1,
            largest_difference: agreement.largest_difference,
            outputs: each.collect(),
        }),
        ..base
    })
}
