//! What the user sees while it runs: notes, warnings and progress, all on standard error.
//!
//! On a terminal progress is a bar; elsewhere (a file, a CI log) it is a plain line now and then; `--progress` says otherwise. With
//! `--quiet` there are neither notes nor progress, with `--verbose` there are details too, and what the runtime logs. Warnings are always
//! shown.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Plain progress lines are at least this far apart…
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// …and there is at most one per this part of the whole, so that a fast run prints few and a slow one is seen to live.
const LINE_PARTS: u64 = 10;

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Notes, progress, warnings and the report's table.
    #[default]
    Normal,
    /// Warnings and errors.
    Quiet,
    /// Details too: passes with their times, what they declined, where data came from, what the runtime logs.
    Verbose,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surface {
    /// A bar on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A bar, drawn anew in place.
    Bar,
    /// A plain line now and then.
    Lines,
    /// Not at all.
    Nothing,
}

/// What a user asks of the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// How much is said.
    pub verbosity: Verbosity,
    /// How progress is shown; quiet runs show none.
    pub progress: Surface,
}

impl From<Verbosity> for Manner {
    fn from(verbosity: Verbosity) -> Manner {
        Manner {
            verbosity,
            progress: Surface::Auto,
        }
    }
}

/// The terminal, or what stands in for it.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    verbosity: Verbosity,
    surface: Surface,
}

impl Terminal {
    /// Standard error, as it is connected.
    #[must_use]
    pub fn new(manner: impl Into<Manner>) -> Terminal {
        let Manner { verbosity, progress } = manner.into();
        let surface = match (verbosity, progress) {
            (Verbosity::Quiet, _) => Surface::Nothing,
            (_, Surface::Auto) if std::io::stderr().is_terminal() => Surface::Bar,
            (_, Surface::Auto) => Surface::Lines,
            (_, asked) => asked,
        };
        if verbosity == Verbosity::Verbose {
            show_logs();
        }
        Terminal { verbosity, surface }
    }

    /// One line, unless quiet.
    pub fn note(&self, line: impl AsRef<str>) {
        if self.verbosity != Verbosity::Quiet {
            eprintln!("{}", line.as_ref());
        }
    }

    /// One line for those who want details.
    pub fn detail(&self, line: impl AsRef<str>) {
        if self.verbosity == Verbosity::Verbose {
            eprintln!("{}", line.as_ref());
        }
    }

    /// `warning: …`, always.
    pub fn warn(&self, line: impl AsRef<str>) {
        eprintln!("warning: {}", line.as_ref());
    }

    /// Progress over `total` units of work. It disappears (or says its last line) when it is finished or dropped.
    #[must_use]
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        let bar = match self.surface {
            Surface::Bar => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            Surface::Auto | Surface::Lines | Surface::Nothing => {
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
            }
        };
        let template = "{prefix} [{bar:30}] {pos}/{len} {msg} {eta} left";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(label.to_owned());
        Progress {
            bar,
            surface: self.surface,
            label: label.to_owned(),
            total,
            shown_at: Cell::new(Instant::now()),
            shown_part: Cell::new(0),
        }
    }
}

/// Shows what the runtime logs. A second call in one process changes nothing.
fn show_logs() {
    /// What the engine's log is called.
    const RUNTIME: &str = "onnxruntime";
    let filter = tracing_subscriber::filter::Targets::new().with_target(RUNTIME, tracing::Level::DEBUG);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Writes a command's result to standard output. A reader that has closed it (`| head`) is no error.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// A piece of work under way.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    surface: Surface,
    label: String,
    total: u64,
    shown_at: Cell<Instant>,
    shown_part: Cell<u64>,
}

impl Progress {
    /// `units` more are done; `message` is the news, such as the loss.
    pub fn advance(&self, units: u64, message: impl AsRef<str>) {
        self.bar.inc(units);
        let message = message.as_ref();
        if self.surface == Surface::Bar {
            self.bar.set_message(message.to_owned());
        } else if self.surface == Surface::Lines {
            self.line(message);
        }
    }

    fn line(&self, message: &str) {
        let done = self.bar.position();
        let part = done.saturating_mul(LINE_PARTS) / self.total.max(1);
        let complete = done >= self.total && self.shown_part.get() < LINE_PARTS;
        let due = part > self.shown_part.get() && self.shown_at.get().elapsed() >= LINE_INTERVAL;
        if complete || due {
            self.shown_at.set(Instant::now());
            self.shown_part.set(part);
            eprintln!("{} {done}/{} {message}", self.label, self.total);
        }
    }

    /// The time that it took so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
