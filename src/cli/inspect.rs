//! `lsqc inspect`: what `quantize` would do with a model, and what not and why.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};

use super::details;
use crate::compiler::Compiler;
use crate::config::{EngineFlags, MessageFlags, Quantization, QuantizeFlags, Settings, check_model};
use crate::confirm::{Confirming, OnnxRuntime, Runtime};
use crate::engine::{self, EngineChoice, OpenVino, Selected};
use crate::failure::{Failure, Kind};
use crate::inspect::inspect;
use crate::report;
use crate::terminal::{self, Terminal};

const EXAMPLES: &str = "\
Examples:
  lsqc inspect model.onnx --bits 3
      layers with their bits and multiply-adds, what stays in floats and why, which BatchNorms fold
  lsqc inspect model.onnx --bits 4 --confirm
      also asks ONNX Runtime which layers it computes in integers; with --target openvino, OpenVINO
  lsqc inspect model.onnx --bits w4a8 --placement paper --json
      the same as JSON (docs/inspect.schema.json)";

/// The flags of `lsqc inspect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// What is quantized, and to how many bits.
    #[command(flatten)]
    pub quantize: QuantizeFlags,
    /// Settings [default: lsqc.toml beside the model, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Ask the target's runtime which layers it computes in integers, by its own optimised graph; for the targets ort and openvino
    #[arg(long, action = ArgAction::SetTrue)]
    pub confirm: bool,
    /// The ONNX Runtime library to confirm with [default: ORT_DYLIB_PATH, the Python environment's, the system's]
    #[arg(long, value_name = "FILE", requires = "confirm")]
    pub ort_lib: Option<PathBuf>,
    /// The OpenVINO library to confirm with, libopenvino_c [default: OPENVINO_LIB, the Python environment's, the system's]
    #[arg(long, value_name = "FILE", requires = "confirm")]
    pub openvino_lib: Option<PathBuf>,
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
pub fn run(args: &InspectArgs) -> Result<()> {
    check_model(&args.model)?;
    let settings = Settings::read(&args.model, args.config.as_deref())?;
    let terminal = Terminal::new(args.messages.manner());
    let mut compiler = Compiler {
        file: Some(args.model.clone()),
        ..Compiler::default()
    };
    let (loss, _) = settings.training();
    let asked = settings.quantization(&args.quantize)?;
    let witness = witness(args, &asked, &settings)?;
    let confirming = witness.as_ref().map(|(runtime, engine)| Confirming {
        runtime: runtime.as_ref(),
        engine: engine.engine.as_ref(),
        terminal: &terminal,
    });
    let inspection = inspect(&asked, loss, confirming.as_ref(), &mut compiler)?;
    details(&compiler, &terminal);
    for warning in &inspection.warnings {
        terminal.warn(warning);
    }
    let text = if args.json {
        report::to_json(&inspection)?
    } else {
        inspection.render()
    };
    terminal::print(&text)?;
    match inspection.confirmation.map(|confirmed| confirmed.differ) {
        Some(layers) if !layers.is_empty() => Err(Failure::new(
            Kind::Gate,
            format!("the runtime does not compute as said above: {}", layers.join(", ")),
        )
        .help("this is a defect of lsqc, or a version of the runtime that lsqc does not know: please report it with the model")
        .into()),
        _ => Ok(()),
    }
}

/// The runtime to confirm with and the engine that calibrates for it, where a confirmation is asked for.
fn witness(args: &InspectArgs, asked: &Quantization, settings: &Settings) -> Result<Option<(Box<dyn Runtime>, Selected)>> {
    if !args.confirm {
        return Ok(None);
    }
    if asked.deployment.weight_only.is_some() {
        let message = format!(
            "--confirm asks which layers are computed in integers, and --bits {} quantizes weights alone",
            asked.bits
        );
        return Err(Failure::usage(message)
            .help("leave --confirm out: every product is computed in floats")
            .into());
    }
    let flags = EngineFlags {
        ort_lib: args.ort_lib.clone(),
        ..EngineFlags::default()
    };
    let library = settings.engine(&flags).ort_lib;
    let target = asked.deployment.target;
    if let (Some(file), true) = (&args.openvino_lib, target.name != "openvino") {
        let message = format!("--openvino-lib {}, and the model is for {}", file.display(), target.title);
        return Err(Failure::usage(message).help("leave it out, or give --target openvino").into());
    }
    match target.name {
        "ort" => {
            let selected = engine::select(EngineChoice::Ort, library.as_deref())?;
            let runtime = OnnxRuntime(selected.engine.clone());
            Ok(Some((Box::new(runtime), selected)))
        }
        "openvino" => {
            let runtime = OpenVino::find(args.openvino_lib.as_deref())?;
            let selected = engine::select(EngineChoice::AutoCpu, library.as_deref())?;
            Ok(Some((Box::new(runtime), selected)))
        }
        _ => Err(Failure::usage(format!(
            "--confirm asks ONNX Runtime and OpenVINO, and the model is for {}",
            target.title
        ))
        .help("leave --confirm out: `lsqc quantize --target … --deploy DIR` writes an example to look at it there")
        .into()),
    }
}
