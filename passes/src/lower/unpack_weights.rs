//! Spreads int4 and int2 constants behind a Cast to bytes, for an engine that has no such types. A Cast of an integer is exact, so the graph
//! computes the same; runtimes that have the types do this when they load a file.

use crate::ir::{DType, Graph, Model, Node, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static UNPACK_WEIGHTS: Pass = Pass {
    name: "unpack-weights",
    about: "spread int4 and int2 constants to bytes",
    needs: "nothing",
    gives: "no Cast of an int4 or int2 constant to int8",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        let Some((levels, bytes)) = unpacked(graph, &graph[id]) else {
            continue;
        };
        let Some(y) = graph[id].output(0) else { continue };
        let base = format!("{}/bytes", graph[levels].name());
        let bytes = graph.add_constant(&base, bytes);
        graph.replace(y, bytes);
        graph.remove_node(id);
        graph.remove_source(levels);
        changed = true;
    }
    Ok(Changed::from(changed))
}

/// The packed constant that a Cast takes, and what it gives.
fn unpacked(graph: &Graph, node: &Node) -> Option<(crate::ir::ValueId, Tensor)> {
    let to_bytes = node.op.is("Cast") && node.int("to") == Some(i64::from(DType::I8.code()));
    let levels = node.input(0).filter(|_| to_bytes)?;
    let tensor = graph[levels].constant()?;
    let bits: u32 = match tensor.dtype() {
        DType::I4 => 4,
        DType::I2 => 2,
        _ => return None,
    };
    let spread = tensor.bytes().iter().flat_map(|&byte| {
        // Up against the sign bit, and back down with the sign.
        (0..8)
            .step_by(bits as usize)
            .map(move |at| (byte << (8 - bits - at)).cast_signed() >> (8 - bits))
    });
    let levels_of: Vec<i8> = spread.take(tensor.len()).collect();
    Some((levels, Tensor::new(tensor.shape(), levels_of)))
}
