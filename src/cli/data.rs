//! `lsqc data`: the first training samples as a model gets them, in numbers and as a contact sheet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};
use lsqc_passes::ir::Tensor;

use super::read_preprocessing;
use crate::config::{DataFlags, Settings, check_model};
use crate::data::{self, Augmented, Data, Dataset, ModelInput, Spec};
use crate::engine::Tensors;
use crate::failure::Failure;
use crate::interrupt;
use crate::model_file::{self, ModelFile};
use crate::output::{Staged, check_file, is_same_file};
use crate::report::{ClassCount, DATA_SCHEMA_VERSION, DataOrigin, DataReport, InputSummary, TestSet};
use crate::run::{classes, model_inputs};
use crate::summary;
use crate::terminal::{self, Terminal, Verbosity};

const EXAMPLES: &str = "\
Examples:
  lsqc data model.onnx --data images/
      samples, shapes, value ranges and classes, after the preprocessing of the lsqc.toml beside the model
  lsqc data model.onnx -o sheet.png --count 64
      also the first 64 training images as the model gets them, each with its class under it
  lsqc data model.onnx -o sheet.png --augmented --seed 7
      as training changes them";

/// Training samples that the statistics are of: enough for two digits of a mean, few enough to be decoded at once.
const LOOKED_AT: usize = 1024;
/// Samples that are prepared at a time.
const BATCH: usize = 64;
/// More classes than these are summed up; `--json` has all.
const LISTED: usize = 40;

/// The flags of `lsqc data`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DataArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Where data comes from.
    #[command(flatten)]
    pub data: DataFlags,
    /// A contact sheet of the first training images, a PNG
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Samples on the sheet
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub count: u16,
    /// Samples as they are augmented in the first epoch
    #[arg(long, action = ArgAction::SetTrue)]
    pub augmented: bool,
    /// Decides the split and the augmentation [default: that of lsqc.toml, or 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
    /// Say nothing but the result, warnings and errors
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &DataArgs) -> Result<()> {
    check_model(&args.model)?;
    if let Some(path) = &args.output {
        check_file(path)?;
        if is_same_file(path, &args.model) {
            return Err(Failure::usage(format!("output {} is the model itself", path.display()))
                .help("choose another with -o")
                .into());
        }
    }
    let settings = Settings::read(&args.model, args.data.config.as_deref())?;
    let mut spec = settings.data_spec(&args.data, settings.test_fraction(None)?)?;
    let seed = args.seed.or(settings.seed()).unwrap_or(0);
    let terminal = Terminal::new(if args.quiet { Verbosity::Quiet } else { Verbosity::Normal });
    let ModelFile { model, warnings, .. } = model_file::read(&args.model)?;
    read_preprocessing(&model, &mut spec)?;
    let inputs = model_inputs(&model);
    let data = data::open(&spec, &inputs, classes(&model), seed)?;

    let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    warnings.extend(data.warnings.iter().cloned());
    let augmented = args.augmented.then_some(Augmented {
        how: &spec.augment,
        seed,
        epoch: 0,
    });
    if args.augmented && spec.augment.is_nothing() {
        warnings.push("lsqc.toml asks for no augmentation: samples are as they are".to_owned());
    }
    let count = usize::from(args.count).min(data.train.len());
    let first: Vec<usize> = (0..count).collect();
    let first = data.train.batch(&first, augmented)?;
    let labels = first.labels.as_ref().and_then(Tensor::to_i64);

    let mut shown = None;
    if let Some(path) = &args.output {
        match sheet(&inputs, &first.inputs, &spec, labels.as_deref())? {
            Some((input, sheet)) => {
                let mut staged = Staged::new();
                staged.file(path, &sheet.png)?;
                staged.commit()?;
                shown = Some((path, input, sheet));
            }
            None => warnings.push(format!(
                "no input of the model is an image of one or three channels: {} is not written",
                path.display()
            )),
        }
    }
    let report = DataReport {
        schema_version: DATA_SCHEMA_VERSION,
        origin: match data.origin {
            data::Origin::Real => DataOrigin::Real,
            data::Origin::Synthetic => DataOrigin::Synthetic,
        },
        files: data.files.iter().map(summary::file).collect(),
        train_samples: data.train.len() as u64,
        test_samples: data.test.len() as u64,
        test_set: match data.test_origin {
            data::TestOrigin::Given => TestSet::Given,
            data::TestOrigin::Split { .. } => TestSet::Split,
            data::TestOrigin::Synthetic => TestSet::Synthetic,
        },
        inputs: statistics(data.train.as_ref(), &inputs, augmented)?,
        classes: class_counts(&data),
        augmented: args.augmented,
        first_labels: labels,
        warnings,
    };
    for warning in &report.warnings {
        terminal.warn(warning);
    }
    terminal::print(&if args.json { report.to_json()? } else { text(&report) })?;
    if let Some((path, input, sheet)) = shown {
        terminal.note(format!(
            "wrote {}: {count} samples of \"{input}\", {:.4} in black to {:.4} in white",
            path.display(),
            sheet.low,
            sheet.high
        ));
    }
    Ok(())
}

/// The sheet of the first input that is an image.
fn sheet(inputs: &[ModelInput], samples: &Tensors, spec: &Spec, labels: Option<&[i64]>) -> Result<Option<(String, data::Sheet)>> {
    for input in inputs {
        let how = spec.inputs.get(&input.name).cloned().unwrap_or_default();
        let Some(tensor) = samples.get(&input.name) else { continue };
        if let Some(sheet) = data::contact_sheet(tensor, &how, labels)? {
            return Ok(Some((input.name.clone(), sheet)));
        }
    }
    Ok(None)
}

/// What values take, over an even choice of samples.
#[derive(Clone, Copy)]
struct Values {
    count: f64,
    min: f64,
    max: f64,
    sum: f64,
    squares: f64,
}

impl Values {
    const NONE: Values = Values {
        count: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        sum: 0.0,
        squares: 0.0,
    };

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
        self.squares += value * value;
    }
}

fn statistics(train: &dyn Dataset, inputs: &[ModelInput], augmented: Option<Augmented<'_>>) -> Result<Vec<InputSummary>> {
    let count = train.len().min(LOOKED_AT);
    let chosen: Vec<usize> = (0..count).map(|index| index * train.len() / count.max(1)).collect();
    let mut found: BTreeMap<String, (Values, Vec<u64>)> = BTreeMap::new();
    for samples in chosen.chunks(BATCH) {
        interrupt::check()?;
        for (name, tensor) in train.batch(samples, augmented)?.inputs {
            let shape = tensor.shape().iter().skip(1).map(|&extent| extent as u64).collect();
            let (values, _) = found.entry(name).or_insert((Values::NONE, shape));
            tensor
                .to_f64()
                .unwrap_or_default()
                .into_iter()
                .for_each(|value| values.add(value));
        }
    }
    let summary = |input: &ModelInput| {
        let (values, shape) = found.remove(&input.name)?;
        let mean = values.sum / values.count;
        let variance = (values.squares / values.count - mean * mean).max(0.0);
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        Some(InputSummary {
            name: input.name.clone(),
            dtype: input.dtype.to_string(),
            shape,
            samples: count as u64,
            min: finite(values.min),
            max: finite(values.max),
            mean: finite(mean),
            std: finite(variance.sqrt()),
        })
    };
    Ok(inputs.iter().filter_map(summary).collect())
}

fn class_counts(data: &Data) -> Option<Vec<ClassCount>> {
    let train = data.train.labels()?;
    let mut counts: BTreeMap<i64, ClassCount> = BTreeMap::new();
    let mut of = |class: i64, train: u64, test: u64| {
        let count = counts.entry(class).or_insert_with(|| ClassCount {
            class,
            name: data.class_names.get(&class).cloned(),
            train: 0,
            test: 0,
        });
        count.train += train;
        count.test += test;
    };
    data.class_names.keys().for_each(|&class| of(class, 0, 0));
    train.iter().for_each(|&class| of(class, 1, 0));
    let test = data.test.labels().unwrap_or_default();
    test.iter().for_each(|&class| of(class, 0, 1));
    Some(counts.into_values().collect())
}

fn text(report: &DataReport) -> String {
    let mut lines = Vec::new();
    let kind = if report.origin == DataOrigin::Synthetic {
        " of noise"
    } else {
        ""
    };
    lines.push(format!(
        "training: {} samples{kind}; test: {} samples{}",
        report.train_samples,
        report.test_samples,
        match report.test_set {
            TestSet::Given => "",
            TestSet::Split => ", set aside from the data",
            TestSet::Synthetic => " of noise",
        }
    ));
    for file in &report.files {
        lines.push(format!("file {}: {} bytes, SHA-256 {}", file.name, file.bytes, file.sha256));
    }
    for input in &report.inputs {
        let number = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:.4}"));
        lines.push(format!(
            "input \"{}\": {} {:?}, min {}, max {}, mean {}, std {}, over {} training samples{}",
            input.name,
            input.dtype,
            input.shape,
            number(input.min),
            number(input.max),
            number(input.mean),
            number(input.std),
            input.samples,
            if report.augmented { ", augmented" } else { "" }
        ));
    }
    match &report.classes {
        None => lines.push("no labels".to_owned()),
        Some(classes) if classes.len() > LISTED => {
            let train = classes.iter().map(|class| class.train);
            lines.push(format!(
                "{} classes of {} to {} training samples; --json lists them",
                classes.len(),
                train.clone().min().unwrap_or(0),
                train.max().unwrap_or(0)
            ));
        }
        Some(classes) => lines.extend(classes.iter().map(|class| {
            // A folder whose name is the number says nothing more.
            let name = class.name.as_ref().filter(|name| **name != class.class.to_string());
            let name = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
            format!(
                "class {}{name}: {} training samples, {} test",
                class.class, class.train, class.test
            )
        })),
    }
    if let Some(labels) = &report.first_labels {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        lines.push(format!("labels of the first {}: {}", labels.len(), labels.join(" ")));
    }
    lines.join("\n") + "\n"
}
