//! Spreads int4 and int2 constants behind a Cast to bytes, and shifts them where a Mul does, for an engine that has no such types. Both are exact
//! in integers, so the graph computes the same; runtimes that have the types do this when they load a file.

use crate::ir::{DType, Graph, Model, Node, NodeId, Tensor, ValueId};
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
        // A Mul goes with the Cast before it.
        let found = graph.contains(id).then(|| unpacked(graph, &graph[id])).flatten();
        let Some((levels, bytes)) = found else { continue };
        let Some(mut y) = graph[id].output(0) else { continue };
        let mut bytes = bytes;
        let mut ended = vec![id];
        if let Some((shift, shifted)) = shifted(graph, y, &bytes) {
            y = match graph[shift].output(0) {
                Some(result) => result,
                None => continue,
            };
            bytes = shifted;
            ended.push(shift);
        }
        let base = format!("{}/bytes", graph[levels].name());
        let bytes = graph.add_constant(&base, bytes);
        graph.replace(y, bytes);
        for node in ended.into_iter().rev() {
            graph.remove_node(node);
        }
        graph.remove_source(levels);
        changed = true;
    }
    Ok(Changed::from(changed))
}

/// The Mul by a constant byte that alone takes these levels, and what it gives.
fn shifted(graph: &Graph, levels: ValueId, bytes: &Tensor) -> Option<(NodeId, Tensor)> {
    let only = graph.only_use(levels)?;
    let factor = graph.constant_input(only.node, 1)?.values::<i8>()?.first().copied();
    let factor = factor.filter(|_| graph[only.node].op.is("Mul") && only.index == 0)?;
    let product: Option<Vec<i8>> = bytes.values::<i8>()?.iter().map(|level| level.checked_mul(factor)).collect();
    Some((only.node, Tensor::new(bytes.shape(), product?)))
}

/// The packed constant that a Cast takes, and what it gives.
fn unpacked(graph: &Graph, node: &Node) -> Option<(ValueId, Tensor)> {
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
