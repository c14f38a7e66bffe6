//! `lsqc bench`: how long inference and a training step take on each engine that is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::{ArgAction, Args};
use lsqc_passes::ir::Model;

use super::{Purpose, alike, choose_engine, details, say_data};
use crate::bench::{Rounds, Subjects, WARM_UP, Wish};
use crate::compiler::Compiler;
use crate::config::{self, DataFlags, EngineFlags, EnginePlan, MessageFlags, QuantizeFlags, check_model, data_spec};
use crate::data::{self, Origin};
use crate::engine::{Engine, TractEngine};
use crate::failure::Failure;
use crate::model_file;
use crate::report::{self, Bench, DataOrigin, Tool};
use crate::run::{self, classes, fixed_batch, model_inputs};
use crate::terminal::{self, Terminal};

const EXAMPLES: &str = "\
Examples:
  lsqc bench model.onnx --bits 3
      each engine that is there: inference, and a training step, of one batch; noise where there is no data
  lsqc bench model.onnx --against model.w3a3.onnx --batch 1 --rounds 50 --threads 1
      also inference of the integer model
  lsqc bench model.onnx --engine ort --json
      one engine, as JSON (docs/bench.schema.json)";

/// Rounds where nothing else is said.
const DEFAULT_ROUNDS: u64 = 5;

/// The flags of `lsqc bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// The float model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// A second file whose inference is timed, such as the integer model
    #[arg(long, value_name = "LOWERED")]
    pub against: Option<PathBuf>,
    /// Samples in a batch [default: as quantize takes it: lsqc.toml's, else 128]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Rounds that are timed, after one to warm up [default: 5]
    #[arg(long, value_name = "N")]
    pub rounds: Option<u64>,
    /// What is quantized, and to how many bits.
    #[command(flatten)]
    pub quantize: QuantizeFlags,
    /// Where data comes from.
    #[command(flatten)]
    pub data: DataFlags,
    /// What runs graphs; without `--engine`, each that is there.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
    /// How much is said.
    #[command(flatten)]
    pub messages: MessageFlags,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &BenchArgs) -> Result<()> {
    check_model(&args.model)?;
    args.against.as_deref().map_or(Ok(()), check_model)?;
    let (settings, spec) = data_spec(&args.model, &args.data)?;
    let batch = settings.batch(args.batch)?;
    let rounds = match args.rounds.unwrap_or(DEFAULT_ROUNDS) {
        0 => return Err(Failure::usage("the number of rounds is 0, but must be at least 1").into()),
        rounds => rounds,
    };
    let terminal = Terminal::new(args.messages.manner());
    let plan = settings.engine(&args.engine);
    let engines = engines(&plan, &terminal)?;
    let mut compiler = Compiler {
        file: Some(args.model.clone()),
        ..Compiler::default()
    };
    let asked = settings.quantization(&args.quantize)?;
    let front = run::read(&asked, &mut compiler)?;
    for warning in &front.warnings {
        terminal.warn(warning);
    }
    let mut float = front.float;
    match run::batch::freed(&float, &mut compiler) {
        Ok(freed) => float = freed.model,
        Err(why) => {
            let kept = why.map_or(Ok(None), |why| run::batch::kept(&float, &why))?;
            kept.iter().for_each(|warning| terminal.warn(warning));
        }
    }
    let against = match args.against.as_deref() {
        Some(path) => Some(read_against(path, (&args.model, &float), batch)?),
        None => None,
    };
    let data = data::open(&spec, &model_inputs(&float), classes(&float), 0)?;
    say_data(&data, &terminal);
    let batch = data.train.largest_batch().unwrap_or(usize::MAX).min(batch);
    let wish = Wish {
        asked: &asked,
        training: settings.training(),
        batch,
        threads: plan.threads,
    };
    let Some(first) = engines.last() else { return Ok(()) };
    let subjects = Subjects::make(&wish, float, against, &data, first.as_ref(), &mut compiler, &terminal);
    details(&compiler, &terminal);
    let subjects = subjects?;
    let rounds = Rounds {
        count: rounds,
        threads: plan.threads,
    };
    let mut timed = Vec::new();
    for engine in &engines {
        timed.push(subjects.time(engine.as_ref(), rounds, &mut compiler, &terminal)?);
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bench = Bench {
        schema_version: report::SCHEMA_VERSION,
        tool: Tool::this(),
        model: name(&args.model),
        against: args.against.as_deref().map(name),
        batch: batch as u64,
        rounds: rounds.count,
        warm_up: WARM_UP,
        threads: plan.threads as u64,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        data: if data.origin == Origin::Real {
            DataOrigin::Real
        } else {
            DataOrigin::Synthetic
        },
        bits: asked.bits.to_string(),
        loss: subjects.loss.to_string(),
        engines: timed,
    };
    let text = if args.json { report::to_json(&bench)? } else { bench.render() };
    Ok(terminal::print(&text)?)
}

/// Reads the second file, which takes the same batches.
fn read_against(path: &Path, (float_path, float): (&Path, &Model), batch: usize) -> Result<Model> {
    let model = model_file::read(path)?.model;
    alike::inputs(&(float_path, &float.graph), &(path, &model.graph))?;
    match fixed_batch(&model) {
        Some((input, extent)) if extent != batch => {
            let message = format!(
                "{}: input '{input}' has a fixed batch of {extent}, and the batch is {batch}",
                path.display()
            );
            Err(Failure::bad_input(message).help(format!("give --batch {extent}")).into())
        }
        _ => Ok(model),
    }
}

/// The engine that is asked for, or each that is there; the best last.
fn engines(plan: &EnginePlan, terminal: &Terminal) -> Result<Vec<Arc<dyn Engine>>> {
    let best = choose_engine(plan, Purpose::Train, terminal)?;
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    if plan.choice == config::EngineChoice::Auto {
        // What runs on CUDA is judged by the same library on the CPU.
        for engine in [Arc::new(TractEngine) as Arc<dyn Engine>, best.judge] {
            if engine.name() != best.engine.name() && engines.iter().all(|known| known.name() != engine.name()) {
                engines.push(engine);
            }
        }
    }
    engines.push(best.engine);
    Ok(engines)
}
