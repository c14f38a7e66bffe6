//! Makes inputs with defaults constants.
//!
//! Files of IR version 3 and below had to list every weight as an input, and some exporters still do; a caller could then feed another
//! weight, but not to a network whose weights are compiled.

use crate::ir::{Model, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FREEZE_DEFAULTS: Pass = Pass {
    name: "freeze-defaults",
    about: "make inputs with defaults constants",
    needs: "any graph but a step graph",
    gives: "no input has a default",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let inputs = graph.inputs().iter().copied();
    let defaults: Vec<ValueId> = inputs.filter(|&input| graph[input].initial().is_some()).collect();
    for &input in &defaults {
        graph.demote(input);
    }
    Ok(Changed::from(!defaults.is_empty()))
}
