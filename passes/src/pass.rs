//! Passes: what each is, what it is given, and the runner that checks and times them.
//!
//! A pass is a function and a static description. It works on a whole [`Model`]; what it must compute it asks of the [`Evaluator`] in its
//! context; what it declines it says in a [`Note`], which reaches the user's report. After every pass the runner verifies the graph, so
//! the pass that broke it is the one that is named.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ir::{Graph, Model, NodeId, Tensor, verify};

/// Did a pass change the graph?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Yes.
    Yes,
    /// No.
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Changed {
        if changed { Changed::Yes } else { Changed::No }
    }
}

/// Why a pass failed: the model cannot be compiled as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PassError {
    /// The node at fault, as messages call it.
    pub node: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What the user can do about it.
    pub help: Option<String>,
}

impl PassError {
    /// An error about the whole model.
    #[must_use]
    pub fn new(message: impl Into<String>) -> PassError {
        PassError {
            node: None,
            message: message.into(),
            help: None,
        }
    }

    /// An error about one node.
    #[must_use]
    pub fn at(graph: &Graph, node: NodeId, message: impl Into<String>) -> PassError {
        let node = &graph[node];
        let message = format!("{} ({}): {}", node.label(graph), node.op, message.into());
        PassError {
            node: Some(node.label(graph).into_owned()),
            message,
            help: None,
        }
    }

    /// The same error with a cure.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> PassError {
        PassError {
            help: Some(help.into()),
            ..self
        }
    }
}

/// Something that a pass declined to do, and why; for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The pass.
    pub pass: &'static str,
    /// The node, as messages call it.
    pub node: String,
    /// The node's op.
    pub op: String,
    /// The reason.
    pub reason: String,
}

/// Computes constants: one node at a time, or a whole model. The tool fills it with the embedded engine.
pub trait Evaluator {
    /// The outputs of `model`, whose graph has no input, in order.
    ///
    /// # Errors
    /// Why it cannot be computed.
    fn evaluate(&self, model: &Model) -> Result<Vec<Tensor>, String>;
}

/// An evaluator that computes nothing: passes then leave what they cannot compute.
#[derive(Clone, Copy, Debug)]
pub struct NoEvaluator;

impl Evaluator for NoEvaluator {
    fn evaluate(&self, _: &Model) -> Result<Vec<Tensor>, String> {
        Err("there is no evaluator".to_owned())
    }
}

/// What a pass is given besides the model, and where it leaves what it has to say.
pub struct PassCx<'a> {
    /// Computes constants.
    pub evaluator: &'a dyn Evaluator,
    /// What passes declined.
    pub notes: Vec<Note>,
    /// Parameters of the compilation, by type; see [`PassCx::set`].
    settings: BTreeMap<&'static str, Box<dyn std::any::Any>>,
    pass: &'static str,
}

impl<'a> PassCx<'a> {
    /// A context without settings.
    #[must_use]
    pub fn new(evaluator: &'a dyn Evaluator) -> PassCx<'a> {
        PassCx {
            evaluator,
            notes: Vec::new(),
            settings: BTreeMap::new(),
            pass: "",
        }
    }

    /// Gives the passes that look for a `T` this one.
    pub fn set<T: 'static>(&mut self, settings: T) {
        self.settings.insert(std::any::type_name::<T>(), Box::new(settings));
    }

    /// The `T` that was set, or the default one.
    #[must_use]
    pub fn get<T: Clone + Default + 'static>(&self) -> T {
        let found = self.settings.get(std::any::type_name::<T>());
        found
            .and_then(|settings| settings.downcast_ref::<T>())
            .cloned()
            .unwrap_or_default()
    }

    /// Takes out the `T` that a pass left.
    #[must_use]
    pub fn take<T: 'static>(&mut self) -> Option<T> {
        let found = self.settings.remove(std::any::type_name::<T>())?;
        found.downcast::<T>().ok().map(|boxed| *boxed)
    }

    /// Says that the pass declines to touch `node`, and why.
    pub fn note(&mut self, graph: &Graph, node: NodeId, reason: impl Into<String>) {
        let at = &graph[node];
        let note = Note {
            pass: self.pass,
            node: at.label(graph).into_owned(),
            op: at.op.to_string(),
            reason: reason.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// A pass.
#[derive(Clone, Copy)]
pub struct Pass {
    /// The name that `lsqc opt -p` takes: a verb phrase.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// What must hold before it.
    pub needs: &'static str,
    /// What holds after it.
    pub gives: &'static str,
    /// The pass itself.
    pub run: fn(&mut Model, &mut PassCx) -> Result<Changed, PassError>,
}

/// What a pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRun {
    /// The pass.
    pub pass: &'static str,
    /// Did the graph change?
    pub changed: Changed,
    /// How long it ran, without the check; zero where the caller gave no clock.
    pub time: Duration,
}

/// A failed pass, and the model as it was then, for a dump.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// The pass.
    pub pass: &'static str,
    /// Why.
    #[source]
    pub error: PassError,
}

/// Runs passes one after another; after each, sorts and verifies the graph and calls `after` with the model.
///
/// `clock` gives the time since some fixed moment; the compiler itself has none.
///
/// # Errors
/// The first pass that fails, or that leaves a broken graph behind.
pub fn run(
    passes: &[&'static Pass],
    model: &mut Model,
    cx: &mut PassCx,
    clock: &dyn Fn() -> Duration,
    after: &mut dyn FnMut(&PassRun, &Model),
) -> Result<Vec<PassRun>, Failed> {
    let mut runs = Vec::with_capacity(passes.len());
    for pass in passes {
        let start = clock();
        cx.pass = pass.name;
        model.graph.author = Some(pass.name);
        let changed = (pass.run)(model, cx).map_err(|error| Failed { pass: pass.name, error })?;
        model.graph.author = None;
        model.graph.sort();
        let run = PassRun {
            pass: pass.name,
            changed,
            time: clock().saturating_sub(start),
        };
        verify(&model.graph).map_err(|broken| {
            let line = broken
                .node
                .filter(|&node| model.graph.contains(node))
                .map(|node| model.graph[node].label(&model.graph));
            let at = line.map(|line| format!(" (at {line})")).unwrap_or_default();
            let message = format!("pass {} broke the graph: {broken}{at}", pass.name);
            Failed {
                pass: pass.name,
                error: PassError::new(message).help("this is a defect of lsqc: please report it"),
            }
        })?;
        after(&run, model);
        runs.push(run);
    }
    Ok(runs)
}

/// Runs passes with neither clock nor dumps.
///
/// # Errors
/// As [`run`].
pub fn run_quietly(passes: &[&'static Pass], model: &mut Model, cx: &mut PassCx) -> Result<(), Failed> {
    run(passes, model, cx, &|| Duration::ZERO, &mut |_, _| ()).map(|_| ())
}
