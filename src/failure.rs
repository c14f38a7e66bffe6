//! How runs end: the exit codes, errors that know theirs, and the one renderer.
//!
//! An error travels as [`anyhow::Error`]. Somewhere in its chain a [`Failure`] says which exit code it means and how to cure it. The
//! classification nearest to the cause stands: `.usage()` around an error that is already `.bad_input()` changes nothing, so callers may
//! classify generously. An error that nobody classified counts as bad input, because what fails without a name is nearly always a
//! model or a file that is not what it should be.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::engine::EngineError;

/// What ended a run, and with it the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Flags, `lsqc.toml`, globs, an output that cannot be written: 2.
    Usage,
    /// A gate was not passed: 3.
    Gate,
    /// Model or data files that cannot be used: 4.
    BadInput,
    /// An engine is missing or fails, or training diverged: 5.
    Engine,
    /// The lowered model is not the fake-quantized one: 6.
    Proof,
    /// A signal asked the run to stop: 128 + its number.
    Interrupted(Signal),
}

/// A signal that ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `SIGTERM`.
    Terminate,
}

impl Kind {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Gate => 3,
            Kind::BadInput => 4,
            Kind::Engine => 5,
            Kind::Proof => 6,
            Kind::Interrupted(Signal::Interrupt) => 130,
            Kind::Interrupted(Signal::Terminate) => 143,
        }
    }
}

/// An error that knows its exit code, its cure, or both.
#[derive(Debug)]
pub struct Failure {
    kind: Option<Kind>,
    help: Vec<String>,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Message(String),
    /// Shown as if this wrapper were not there.
    Wrapped(anyhow::Error),
}

impl Failure {
    /// A failure of `kind` that says `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind: Some(kind),
            help: Vec::new(),
            inner: Inner::Message(message.into()),
        }
    }

    /// A failure of [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// A failure of [`Kind::BadInput`].
    pub fn bad_input(message: impl Into<String>) -> Failure {
        Failure::new(Kind::BadInput, message)
    }

    /// The same failure with a cure; several are shown one under another.
    #[must_use]
    pub fn help(mut self, cure: impl Into<String>) -> Failure {
        self.help.push(cure.into());
        self
    }

    /// What it ends the run as, if this wrapper says so.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Wraps `error`, or changes it where its outermost layer is a failure already.
    fn around(error: anyhow::Error) -> Failure {
        if error.chain().next().is_some_and(|outermost| outermost.is::<Failure>()) {
            match error.downcast::<Failure>() {
                Ok(failure) => failure,
                Err(error) => Failure::wrapping(error),
            }
        } else {
            Failure::wrapping(error)
        }
    }

    fn wrapping(error: anyhow::Error) -> Failure {
        Failure {
            kind: classified(&error),
            help: Vec::new(),
            inner: Inner::Wrapped(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Message(message) => f.write_str(message),
            Inner::Wrapped(error) => error.fmt(f),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.inner {
            Inner::Message(_) => None,
            Inner::Wrapped(error) => error.source(),
        }
    }
}

/// Classifies errors and attaches cures.
pub trait Classify<T> {
    /// The error ends the run as `kind`, unless something nearer to its cause has said otherwise.
    ///
    /// # Errors
    /// The classified error.
    fn classify(self, kind: Kind) -> anyhow::Result<T>;

    /// The error comes with a cure.
    ///
    /// # Errors
    /// The error with its cure.
    fn help(self, cure: impl Into<String>) -> anyhow::Result<T>;

    /// [`Classify::classify`] as [`Kind::Usage`].
    ///
    /// # Errors
    /// The classified error.
    fn usage(self) -> anyhow::Result<T>
    where
        Self: Sized,
    {
        self.classify(Kind::Usage)
    }

    /// [`Classify::classify`] as [`Kind::BadInput`].
    ///
    /// # Errors
    /// The classified error.
    fn bad_input(self) -> anyhow::Result<T>
    where
        Self: Sized,
    {
        self.classify(Kind::BadInput)
    }

    /// [`Classify::classify`] as [`Kind::Engine`].
    ///
    /// # Errors
    /// The classified error.
    fn engine(self) -> anyhow::Result<T>
    where
        Self: Sized,
    {
        self.classify(Kind::Engine)
    }

    /// [`Classify::classify`] as [`Kind::Proof`].
    ///
    /// # Errors
    /// The classified error.
    fn proof(self) -> anyhow::Result<T>
    where
        Self: Sized,
    {
        self.classify(Kind::Proof)
    }
}

impl<T, E: Into<anyhow::Error>> Classify<T> for Result<T, E> {
    fn classify(self, kind: Kind) -> anyhow::Result<T> {
        self.map_err(|error| {
            let mut failure = Failure::around(error.into());
            failure.kind.get_or_insert(kind);
            failure.into()
        })
    }

    fn help(self, cure: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| Failure::around(error.into()).help(cure).into())
    }
}

/// The classification nearest to the cause, if there is one.
fn classified(error: &anyhow::Error) -> Option<Kind> {
    let kind = |layer: &(dyn Error + 'static)| match layer.downcast_ref::<Failure>() {
        Some(failure) => failure.kind(),
        None => layer.is::<EngineError>().then_some(Kind::Engine),
    };
    error.chain().filter_map(kind).last()
}

/// What `error` ends the run as.
#[must_use]
pub fn kind_of(error: &anyhow::Error) -> Kind {
    classified(error).unwrap_or(Kind::BadInput)
}

/// `error: …`, a line per cause, a line per cure.
///
/// A cause that the line above it already quotes is left out: libraries differ in whether they repeat their source.
#[must_use]
pub fn render(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for (depth, layer) in error.chain().enumerate() {
        let line = layer.to_string();
        if depth == 0 {
            text.push_str("error: ");
        } else if last.contains(&line) {
            continue;
        } else {
            text.push_str("  because: ");
        }
        text.push_str(&line.trim_end().replace('\n', "\n  "));
        text.push('\n');
        last = line;
    }
    for cure in cures(error) {
        text.push_str("help: ");
        text.push_str(cure);
        text.push('\n');
    }
    text
}

fn cures(error: &anyhow::Error) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for failure in error.chain().filter_map(|layer| layer.downcast_ref::<Failure>()) {
        for cure in &failure.help {
            if !all.contains(&cure.as_str()) {
                all.push(cure);
            }
        }
    }
    all
}

/// Prints what went wrong to standard error and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprint!("{}", render(error));
    ExitCode::from(kind_of(error).exit_code())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn nearest_to_the_cause_stands() {
        let inner: anyhow::Result<()> = Err(anyhow!("truncated")).bad_input().context("cannot read x.npz").usage();
        let error = inner.unwrap_err();
        assert_eq!(kind_of(&error), Kind::BadInput);
        assert_eq!(render(&error), "error: cannot read x.npz\n  because: truncated\n");
    }

    #[test]
    fn unclassified_is_bad_input() {
        assert_eq!(kind_of(&anyhow!("?")).exit_code(), 4);
    }

    #[test]
    fn cures_are_shown_once_in_order() {
        let error = Err::<(), _>(Failure::usage("no such folder").help("make it"))
            .help("or choose another")
            .context("cannot write")
            .unwrap_err();
        assert_eq!(
            render(&error),
            "error: cannot write\n  because: no such folder\nhelp: make it\nhelp: or choose another\n"
        );
    }

    #[test]
    fn help_keeps_the_chain_below() {
        let error = Err::<(), _>(anyhow!("root").context("middle"))
            .help("cure")
            .engine()
            .unwrap_err();
        assert_eq!(render(&error), "error: middle\n  because: root\nhelp: cure\n");
        assert_eq!(kind_of(&error).exit_code(), 5);
    }

    #[test]
    fn codes() {
        let codes = [Kind::Usage, Kind::Gate, Kind::BadInput, Kind::Engine, Kind::Proof].map(Kind::exit_code);
        assert_eq!(codes, [2, 3, 4, 5, 6]);
        assert_eq!(Kind::Interrupted(Signal::Interrupt).exit_code(), 130);
        assert_eq!(Kind::Interrupted(Signal::Terminate).exit_code(), 143);
    }
}
