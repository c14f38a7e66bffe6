//! Computes fake-quantized constants: where the weight and its step are constants, v̂ = s·v̄ is one too.

use super::Fixed;
use crate::ir::{Model, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static BAKE_WEIGHTS: Pass = Pass {
    name: "bake-weights",
    about: "compute fake-quantized weights",
    needs: "weights and steps are constants",
    gives: "no fake quantizer of a constant",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        let Some(fixed) = Fixed::of(graph, &graph[id]) else { continue };
        let Some(weight) = graph[fixed.x].constant().cloned() else {
            continue;
        };
        let levels = fixed
            .levels(&weight)
            .ok_or_else(|| PassError::at(graph, id, "its weight is not a number"))?;
        #[allow(clippy::cast_precision_loss)]
        let value = |(index, &level): (usize, &i32)| level as f32 * fixed.step_at(weight.shape(), index);
        let baked = Tensor::new(weight.shape(), levels.iter().enumerate().map(value).collect());
        let base = format!("{}/baked", graph[fixed.y].name());
        let constant = graph.add_constant(&base, baked);
        graph.replace(fixed.y, constant);
        graph.remove_node(id);
        changed = true;
    }
    Ok(Changed::from(changed))
}
