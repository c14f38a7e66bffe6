//! `lsqc opt`: single passes over a model, for looking and for tests.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args, ValueEnum};

use lsqc_passes::ir::Model;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pass::Pass;
use lsqc_passes::pipelines;
use lsqc_passes::text::{self, PrintOptions};

use super::{noted, timed};
use crate::compiler::Compiler;
use crate::config::{MessageFlags, check_model};
use crate::failure::Failure;
use crate::model_file::{self, ModelFile};
use crate::output::{self, Staged};
use crate::terminal::{self, Terminal};

const EXAMPLES: &str = "\
Examples:
  lsqc opt --list
      the passes, a line each
  lsqc opt model.onnx -o same.onnx
      reads and writes: the result is an equal message
  lsqc opt model.onnx -p fold-constants,remove-dead --emit text
      prints the graph after two passes
  lsqc opt model.onnx -p fold-constants --dump-ir ir/ --time-passes";

/// How the model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// ONNX, as a file
    #[default]
    Onnx,
    /// ONNX's textual syntax
    Text,
}

/// The flags of `lsqc opt`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct OptArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL", required_unless_present = "list")]
    pub model: Option<PathBuf>,
    /// Where the result goes [text without it goes to standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Passes to run, in this order
    #[arg(long, short, value_name = "PASS,PASS", value_delimiter = ',')]
    pub passes: Vec<String>,
    /// How the result is written [default: by the output's name, else onnx]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub emit: Option<Emit>,
    /// Write the graph after every pass into this folder
    #[arg(long, value_name = "DIR")]
    pub dump_ir: Option<PathBuf>,
    /// Say how long every pass takes
    #[arg(long, action = ArgAction::SetTrue)]
    pub time_passes: bool,
    /// List the passes
    #[arg(long, action = ArgAction::SetTrue)]
    pub list: bool,
    /// How much is said.
    #[command(flatten)]
    pub messages: MessageFlags,
}

impl OptArgs {
    /// Refuses what can be refused before the model is read.
    ///
    /// # Errors
    /// Usage, or bad input if the model is not there.
    pub fn check(&self) -> Result<()> {
        if let Some(model) = &self.model {
            check_model(model)?;
        }
        self.output.as_deref().map_or(Ok(()), output::check_file)?;
        self.dump_ir.as_deref().map_or(Ok(()), output::check_directory)
    }
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &OptArgs) -> Result<()> {
    if args.list {
        return Ok(terminal::print(&listing())?);
    }
    args.check()?;
    let passes = args.passes.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
    let Some(path) = &args.model else { return Ok(()) };
    let terminal = Terminal::new(args.messages.manner());
    let ModelFile { mut model, warnings, .. } = model_file::read(path)?;
    for warning in &warnings {
        terminal.warn(warning.to_string());
    }
    let mut compiler = Compiler {
        file: Some(path.to_owned()),
        dump: args.dump_ir.clone(),
        ..Compiler::default()
    };
    compiler
        .run(&passes, &mut model, |_| (), |_| ())
        .map_err(|error| error.context(path.display().to_string()))?;
    for note in &compiler.notes {
        terminal.note(noted(note));
    }
    for run in &compiler.runs {
        if args.time_passes {
            terminal.note(timed(run));
        } else {
            terminal.detail(timed(run));
        }
    }
    write(args, &model)
}

fn listing() -> String {
    pipelines::ALL
        .iter()
        .map(|pass| format!("{:<22} {}\n", pass.name, pass.about))
        .collect()
}

fn find(name: &str) -> Result<&'static Pass> {
    let Some(pass) = pipelines::find(name) else {
        let nearest = pipelines::ALL
            .iter()
            .map(|pass| pass.name)
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        return Err(Failure::usage(format!("there is no pass '{name}'"))
            .help(format!(
                "`lsqc opt --list` shows the passes; the nearest is '{}'",
                nearest.unwrap_or_default()
            ))
            .into());
    };
    Ok(pass)
}

fn write(args: &OptArgs, model: &Model) -> Result<()> {
    let text = args.emit == Some(Emit::Text) || args.emit.is_none() && args.output.as_deref().is_some_and(model_file::is_text);
    let mut staged = Staged::new();
    match (&args.output, text) {
        (None, true) => terminal::print(&text::print(model, &PrintOptions::default()))?,
        (None, false) if args.emit == Some(Emit::Onnx) => {
            return Err(Failure::usage("an ONNX file needs a place to go")
                .help("name it with -o FILE")
                .into());
        }
        (None, false) => {}
        (Some(path), true) => staged.file(path, text::print(model, &PrintOptions::default()).as_bytes())?,
        (Some(path), false) => {
            model_file::stage(&mut staged, path, model, OwnOps::Keep)?;
        }
    }
    staged.commit()
}
