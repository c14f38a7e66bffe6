//! Raises the weight steps of output channels whose weights vanish beside their bias, until the bias fits the 32 bits of the accumulator.
//!
//! Exporters leave such channels behind: a BatchNormalization with a γ of next to nothing was folded into them, or weight decay has shrunk
//! them to 1e-20. With a step of its own (`--per-channel`) the grid of such a channel is so fine that its bias does not fit. With the raised
//! step its weights round to zero or nearly so: the result changes by at most K·Q_x/2^30 of the bias, where K products go into it.
//!
//! It refuses, silently, a step that all channels share and a weight that another op takes too: `snap-biases` then says that the bias does
//! not fit.

use super::snap_biases::BIAS_LIMIT;
use super::{Fixed, Form, input_quantizer};
use crate::analyze::{Weighted, weighted};
use crate::ir::{Graph, Model, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static RAISE_STEPS: Pass = Pass {
    name: "raise-steps",
    about: "raise weight steps of output channels that vanish beside their bias",
    needs: "trained values are constants; BatchNormalization is folded",
    gives: "biases of such channels that fit the accumulator",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let form: Form = cx.get();
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        let Ok(op) = weighted(graph, id) else { continue };
        let raised = raise(graph, op, form).unwrap_or(0);
        if raised > 0 {
            cx.note(
                graph,
                id,
                format!("output channels whose weights vanish beside their bias, and are coarser now: {raised}"),
            );
            changed = true;
        }
    }
    Ok(Changed::from(changed))
}

/// Raises the steps of one op; gives the number of channels.
fn raise(graph: &mut Graph, op: Weighted, form: Form) -> Option<usize> {
    let operand = graph[op.node].input(op.weight_index)?;
    let (quantizer, fixed) = Fixed::behind(graph, operand)?;
    let bias = graph[op.node].input(op.bias_index?)?;
    let bias = graph[bias].constant().and_then(Tensor::to_f32)?;
    let input = f64::from(input_quantizer(graph, op.node)?.step()?) / f64::from(1u32 << form.shift(graph, &fixed));
    let own = graph[operand].uses().len() == 1 && fixed.quantizer.axis.is_some();
    if !own || fixed.steps.len() != bias.len() {
        return None;
    }
    let mut steps = fixed.steps.clone();
    let mut raised = 0;
    for (step, &bias) in steps.iter_mut().zip(&bias) {
        // In double precision: in single, the unit of the accumulator may be too small for a number.
        let times = f64::from(bias.abs()) / (f64::from(*step) * input * f64::from(BIAS_LIMIT));
        if times > 1.0 && times.is_finite() {
            // A power of two, so that no rounding takes the bias over the limit again.
            #[allow(clippy::cast_possible_truncation)]
            let higher = (f64::from(*step) * times.log2().ceil().exp2()) as f32;
            *step = higher;
            raised += 1;
        }
    }
    if raised > 0 {
        let base = format!("{}/raised", graph[fixed.step_value].name());
        let constant = graph.add_constant(&base, Tensor::vector(steps));
        graph.set_input(quantizer, 1, Some(constant));
        graph.remove_source(fixed.step_value);
    }
    Some(raised)
}
