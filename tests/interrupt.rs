//! Signals: the first asks the run to stop, with the exit code of that signal.

use lsqc::failure::{Kind, Signal, kind_of};
use lsqc::interrupt;

#[test]
fn signals_are_told_apart() {
    interrupt::listen().unwrap();
    interrupt::check().unwrap();
    for (number, signal, code) in [
        (signal_hook::consts::SIGTERM, Signal::Terminate, 143),
        (signal_hook::consts::SIGINT, Signal::Interrupt, 130),
    ] {
        signal_hook::low_level::raise(number).unwrap();
        let kind = kind_of(&interrupt::check().unwrap_err());
        assert_eq!((kind, kind.exit_code()), (Kind::Interrupted(signal), code));
    }
}
