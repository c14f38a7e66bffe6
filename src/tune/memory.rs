//! How much memory a step takes, before it is taken.
//!
//! The estimate walks the step graph in order and adds up the bytes of every value between its making and its last use; state counts
//! twice, for the two sets of buffers that swap. What an engine keeps beside the values (packed weights, scratch) is not in it.

use std::collections::HashMap;

use lsqc_passes::ir::{Graph, TensorType, ValueId};

/// The most bytes that the values of a graph of fixed shapes take at any one time.
#[must_use]
pub fn peak_bytes(graph: &Graph) -> u64 {
    let bytes = |value: ValueId| graph[value].ty.as_ref().map_or(0, size);
    let mut uses: HashMap<ValueId, usize> = HashMap::new();
    for (_, node) in graph.nodes() {
        for value in node.inputs().iter().flatten() {
            *uses.entry(*value).or_default() += 1;
        }
    }
    for &output in graph.outputs() {
        *uses.entry(output).or_default() += 1;
    }
    let resident: u64 = graph
        .values()
        .filter(|(_, value)| value.producer().is_none())
        .map(|(id, _)| bytes(id))
        .sum();
    let (mut live, mut peak) = (resident, resident);
    for (_, node) in graph.nodes() {
        live += node.outputs().iter().flatten().map(|&value| bytes(value)).sum::<u64>();
        peak = peak.max(live);
        for &value in node.inputs().iter().flatten() {
            let Some(left) = uses.get_mut(&value) else { continue };
            *left -= 1;
            if *left == 0 && graph[value].producer().is_some() {
                live = live.saturating_sub(bytes(value));
            }
        }
        for &value in node.outputs().iter().flatten() {
            if !uses.contains_key(&value) {
                live = live.saturating_sub(bytes(value));
            }
        }
    }
    peak
}

fn size(ty: &TensorType) -> u64 {
    let count: usize = ty.known_shape().unwrap_or_default().iter().product();
    ty.dtype.byte_len(count).unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_holds_two_values_at_a_time() {
        let text = "chain (float[4] x) => (float[4] d) <float[4] a, float[4] b, float[4] c> {
            a = Relu (x)
            b = Relu (a)
            c = Relu (b)
            d = Relu (c)
        }";
        let graph = lsqc_passes::text::parse_graph(text).unwrap();
        // x stays, and two of the others.
        assert_eq!(peak_bytes(&graph), 3 * 16);
    }
}
