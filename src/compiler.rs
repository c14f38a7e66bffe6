//! The compiler as the tool drives it: pass pipelines with a clock, dumps, settings and the embedded evaluator.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::lower::{SEPARATE_WEIGHTS, UNPACK_BLOCKS, UNPACK_WEIGHTS};
use lsqc_passes::onnx::{OwnOps, WriteOptions};
use lsqc_passes::pass::{self, Evaluator, Failed, Note, Pass, PassCx, PassRun};
use lsqc_passes::text;

use crate::engine::{CpuFallback, Engine, LoadOptions, QdqFusion, Session, Tensors, TractEngine};
use crate::failure::{Classify, Failure};

/// Computes constants with the embedded engine.
#[derive(Clone, Copy, Debug)]
pub struct TractEvaluator;

impl Evaluator for TractEvaluator {
    fn evaluate(&self, model: &Model) -> Result<Vec<Tensor>, String> {
        let bytes = serialize(model, OwnOps::Refuse).map_err(|error| format!("{error:#}"))?;
        let session = TractEngine.load(&bytes, &LoadOptions::plain());
        let mut outputs = session
            .and_then(|mut session| session.run(&Tensors::new()))
            .map_err(|error| format!("{error:#}"))?;
        let name = |&value: &lsqc_passes::ir::ValueId| model.graph[value].name().to_owned();
        model
            .graph
            .outputs()
            .iter()
            .map(name)
            .map(|name| outputs.remove(&name).ok_or(format!("'{name}' was not computed")))
            .collect()
    }
}

impl LoadOptions {
    /// One thread, no state, default fusion.
    #[must_use]
    pub fn plain() -> LoadOptions {
        LoadOptions {
            threads: 1,
            qdq_fusion: QdqFusion::Default,
            state: Vec::new(),
            cpu_fallback: CpuFallback::Allowed,
            optimized_model: None,
        }
    }
}

/// The model as the bytes of one `ModelProto`.
///
/// # Errors
/// If it holds ops that only lsqc knows and `own_ops` refuses them, or is too large for one message.
pub fn serialize(model: &Model, own_ops: OwnOps) -> Result<Vec<u8>> {
    let written = lsqc_passes::onnx::write(
        model,
        &WriteOptions {
            own_ops,
            ..WriteOptions::default()
        },
    )?;
    anyhow::ensure!(
        written.external.is_none(),
        "the model is over 2 GB, which one message does not hold"
    );
    Ok(written.model.to_vec())
}

/// Where graphs are dumped after each pass, and what passes had to say.
#[derive(Default)]
pub struct Compiler {
    /// The model's file, which errors name.
    pub file: Option<PathBuf>,
    /// The folder for `NN-pass.txt`; none: no dumps.
    pub dump: Option<PathBuf>,
    /// What passes declined, over all pipelines so far.
    pub notes: Vec<Note>,
    /// What ran, over all pipelines so far.
    pub runs: Vec<PassRun>,
}

impl Compiler {
    /// Runs passes over `model`; `prepare` gives the context its settings. Gives the context's settings back through `collect`.
    ///
    /// # Errors
    /// Bad input, with the pass, the node and the cure.
    pub fn run<T>(
        &mut self,
        passes: &[&'static Pass],
        model: &mut Model,
        prepare: impl FnOnce(&mut PassCx),
        collect: impl FnOnce(&mut PassCx) -> T,
    ) -> Result<T> {
        let mut cx = PassCx::new(&TractEvaluator);
        prepare(&mut cx);
        let start = Instant::now();
        let clock = move || start.elapsed();
        let mut dumps = Ok(());
        let mut number = self.runs.len();
        let dump = self.dump.clone();
        let mut after = |run: &PassRun, model: &Model| {
            number += 1;
            if let (Some(folder), Ok(())) = (&dump, &dumps) {
                dumps = write_dump(folder, number, run.pass, model);
            }
        };
        let runs = pass::run(passes, model, &mut cx, &clock, &mut after);
        // Kept where a pass fails, too: what it declined before often says why.
        for note in std::mem::take(&mut cx.notes) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        let runs = runs.map_err(|failed| failure(self.file.as_deref(), failed))?;
        dumps?;
        self.runs.extend(runs);
        Ok(collect(&mut cx))
    }

    /// The time in passes so far.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.runs.iter().map(|run| run.time).sum()
    }
}

/// Loads a model that was written for a runtime, with types that the engine does not have spelled in those that it has.
///
/// # Errors
/// If the engine refuses it.
pub fn load(engine: &dyn Engine, model: &Model, options: &LoadOptions) -> Result<Box<dyn Session>> {
    let mut passes: Vec<&'static Pass> = Vec::new();
    if !engine.packed_types() {
        passes.extend([&UNPACK_WEIGHTS, &UNPACK_BLOCKS]);
    }
    if !engine.shares_weights() && options.qdq_fusion == QdqFusion::Default {
        passes.push(&SEPARATE_WEIGHTS);
    }
    if passes.is_empty() {
        return load_as_is(engine, model, OwnOps::Refuse, options);
    }
    let mut model = model.clone();
    Compiler::default().run(&passes, &mut model, |_| (), |_| ())?;
    load_as_is(engine, &model, OwnOps::Refuse, options)
}

/// Loads a model as it is, of whatever size the engine takes.
///
/// # Errors
/// If it holds ops that only lsqc knows and `own_ops` refuses them, or the engine refuses it.
pub fn load_as_is(engine: &dyn Engine, model: &Model, own_ops: OwnOps, options: &LoadOptions) -> Result<Box<dyn Session>> {
    let written = WriteOptions {
        own_ops,
        ..WriteOptions::default()
    };
    load_within(engine, model, &written, options)
}

/// As [`load_as_is`], with limits of the caller's on what one message holds.
///
/// # Errors
/// As [`load_as_is`].
pub fn load_within(
    engine: &dyn Engine,
    model: &Model,
    written: &WriteOptions,
    options: &LoadOptions,
) -> Result<Box<dyn Session>> {
    let least = written.min_external;
    let written = lsqc_passes::onnx::write(model, written)?;
    if written.external.is_none() {
        return engine.load(&written.model, options);
    }
    let graph = &model.graph;
    let large = graph.initializers().iter().filter_map(|&value| {
        let tensor = graph[value].initial().filter(|tensor| tensor.bytes().len() >= least)?;
        Some((graph[value].name().to_owned(), tensor.clone()))
    });
    engine.load_apart(&written.model, &large.collect(), options)
}

fn failure(file: Option<&Path>, failed: Failed) -> Failure {
    let file = file.map_or(String::new(), |file| format!("{}: ", file.display()));
    let failure = Failure::bad_input(format!("{file}{}: {}", failed.pass, failed.error));
    match failed.error.help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn write_dump(folder: &std::path::Path, number: usize, pass: &str, model: &Model) -> Result<()> {
    let path = folder.join(format!("{number:02}-{pass}.txt"));
    std::fs::write(&path, text::print(model, &text::PrintOptions::brief()))
        .with_context(|| format!("cannot write {}", path.display()))
        .usage()
}
