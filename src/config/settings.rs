//! `lsqc.toml` as found for a model, and what it and the shared flags say together about data and engines.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::bits::Bits;
use super::choices::{BatchNorm, LossChoice};
use super::deployment::Deployment;
use super::file::{self, AugmentTable, DataTable, File, Location};
use super::flags::{DataFlags, EngineFlags, QuantizeFlags};
use super::inputs::InputWishes;
use super::layers::LayerRules;
use super::plan::{DEFAULT_BATCH, EnginePlan};
use crate::data::{Augment, Mirror, Source, Spec};
use crate::failure::{Failure, Kind};

/// The part of the data that is set aside for testing where nothing says otherwise.
const DEFAULT_TEST_FRACTION: f64 = 0.1;

/// Refuses a model file that is not there.
///
/// # Errors
/// Bad input.
pub fn check_model(path: &Path) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    let what = if path.is_dir() {
        "is a folder, not a model"
    } else {
        "is not there"
    };
    let failure = Failure::new(Kind::BadInput, format!("model {} {what}", path.display()));
    Err(failure.help("give the path of an ONNX file").into())
}

/// What is quantized, and to how many bits: all that decides where quantizers stand.
#[derive(Clone, Debug)]
pub struct Quantization {
    /// The float model.
    pub model: PathBuf,
    /// The `lsqc.toml` that was read, if one was.
    pub config: Option<PathBuf>,
    /// Bits where no rule for a layer says otherwise.
    pub bits: Bits,
    /// The runtime that it is for.
    pub deployment: Deployment,
    /// Rules for single layers.
    pub layers: LayerRules,
    /// What is settled about the model's inputs.
    pub inputs: InputWishes,
}

/// `lsqc.toml`, and where it lies.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    model: PathBuf,
    pub(super) path: Option<PathBuf>,
    pub(super) file: File,
}

impl Settings {
    /// Reads the named file, or `lsqc.toml` beside the model where there is one.
    ///
    /// # Errors
    /// Usage, if it cannot be read or says what it may not.
    pub fn read(model: &Path, named: Option<&Path>) -> Result<Settings> {
        let beside = model.with_file_name(file::FILE_NAME);
        let path = match named {
            Some(path) => path.to_owned(),
            None if beside.is_file() => beside,
            None => {
                return Ok(Settings {
                    model: model.to_owned(),
                    ..Settings::default()
                });
            }
        };
        let file = file::read(&path)?;
        for (input, preprocess) in &file.input {
            preprocess
                .check()
                .map_err(|problem| Failure::usage(format!("{}: [input.{input}]: {problem}", path.display())))?;
        }
        for (output, rule) in &file.output {
            if let Some(weight) = rule.weight.filter(|weight| !(*weight > 0.0 && weight.is_finite())) {
                let message = format!(
                    "{}: [output.{output}]: weight is {weight}, but must be above 0",
                    path.display()
                );
                return Err(Failure::usage(message)
                    .help("an output that is not to be trained has kind = \"ignored\"")
                    .into());
            }
        }
        let train = &file.train;
        if train.epochs.is_some() && train.steps.is_some() {
            return Err(
                Failure::usage(format!("{}: [train] has both epochs and steps", path.display()))
                    .help("keep one")
                    .into(),
            );
        }
        Ok(Settings {
            model: model.to_owned(),
            path: Some(path),
            file,
        })
    }

    /// What the quantization flags and `[quantize]` say; 8 bits where they say nothing.
    ///
    /// # Errors
    /// Usage, for what the target does not have.
    pub fn quantization(&self, flags: &QuantizeFlags) -> Result<Quantization> {
        let quantize = &self.file.quantize;
        let bits = flags.bits.or(quantize.bits).unwrap_or_default();
        Ok(Quantization {
            model: self.model.clone(),
            config: self.path.clone(),
            bits,
            deployment: Deployment::new(flags, quantize, bits)?,
            layers: quantize.layers.clone(),
            inputs: InputWishes::new(&flags.shapes, &self.file.model),
        })
    }

    /// Samples in a training batch: what is asked for, else what `[train]` says, else the default.
    ///
    /// # Errors
    /// Usage, for 0.
    pub fn batch(&self, asked: Option<usize>) -> Result<usize> {
        match asked.or(self.file.train.batch).unwrap_or(DEFAULT_BATCH) {
            0 => Err(Failure::usage("the batch is 0, but must be at least 1").into()),
            batch => Ok(batch),
        }
    }

    /// What training minimises, and BatchNorm in it, as `[train]` says.
    #[must_use]
    pub fn training(&self) -> (LossChoice, BatchNorm) {
        let train = &self.file.train;
        (train.loss.unwrap_or_default(), train.bn.unwrap_or_default())
    }

    /// The part of the data that is set aside for testing: what the flag says, or `[data]`, or the default.
    ///
    /// # Errors
    /// Usage, if it is not between 0 and 1.
    pub fn test_fraction(&self, flag: Option<f64>) -> Result<f64> {
        match flag.or(self.file.data.test_fraction).unwrap_or(DEFAULT_TEST_FRACTION) {
            fraction if fraction > 0.0 && fraction < 1.0 => Ok(fraction),
            other => Err(Failure::usage(format!("the test fraction is {other}, but must be between 0 and 1")).into()),
        }
    }

    /// The seed that `[train]` says.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        self.file.train.seed
    }

    /// What the engine flags and `[train]` say.
    #[must_use]
    pub fn engine(&self, flags: &EngineFlags) -> EnginePlan {
        let train = &self.file.train;
        let in_file = train.ort_lib.as_ref().map(|library| self.folder().join(library));
        EnginePlan {
            choice: flags.engine.or(train.engine).unwrap_or_default(),
            ort_lib: flags.ort_lib.clone().or(in_file),
            threads: flags.threads.or(train.threads).unwrap_or(0),
        }
    }

    /// What data flags and `[data]` say. `--data` puts the file's test set out of force too: it belongs to the file's training set.
    ///
    /// # Errors
    /// Bad input if a file is not there.
    pub fn data_spec(&self, flags: &DataFlags, test_fraction: f64) -> Result<Spec> {
        let here = Path::new("");
        let DataTable { train, test, .. } = &self.file.data;
        let given = |text: &Option<String>| text.as_deref().map(|text| Source::find(text, here)).transpose();
        let in_file = |location: &Option<Location>| location.as_ref().map(|location| self.locate(location)).transpose();
        let (train, test) = match (given(&flags.data)?, given(&flags.test)?) {
            (Some(train), test) => (Some(train), test),
            (None, Some(test)) => (in_file(train)?, Some(test)),
            (None, None) => (in_file(train)?, in_file(test)?),
        };
        let AugmentTable { mirror, crop_pad } = self.file.augment;
        let mirror = if mirror { Mirror::Half } else { Mirror::Off };
        Ok(Spec {
            train,
            test,
            test_fraction,
            inputs: self.file.input.clone(),
            augment: Augment { mirror, crop_pad },
        })
    }

    fn locate(&self, location: &Location) -> Result<Source> {
        let folder = self.folder();
        match location {
            Location::Text(text) => Source::find(text, folder),
            Location::Pair(pair) => match &pair.labels {
                Some(labels) => Source::pair(&folder.join(&pair.images), &folder.join(labels)),
                None => Source::file(&folder.join(&pair.images)),
            },
        }
    }

    fn folder(&self) -> &Path {
        self.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }
}

/// The data that `eval` measures on.
///
/// # Errors
/// As [`Settings::read`] and [`Settings::data_spec`].
pub fn data_spec(model: &Path, flags: &DataFlags) -> Result<(Settings, Spec)> {
    let settings = Settings::read(model, flags.config.as_deref())?;
    let spec = settings.data_spec(flags, DEFAULT_TEST_FRACTION)?;
    Ok((settings, spec))
}
