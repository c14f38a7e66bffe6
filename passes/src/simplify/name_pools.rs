//! Spells the mean over every spatial axis as the GlobalAveragePool that it is, which runtimes compute in integers.
//!
//! torch.export writes `AdaptiveAvgPool2d(1)` and `x.mean((2, 3))` as ReduceMean over the last axes of [N, C, H, W]; one that drops them
//! becomes a GlobalAveragePool and a Flatten. Left alone: ranks below 4, where the last axis may be the features of a sequence; means that
//! are subtracted from what they are the mean of, which normalize it.

use crate::analyze;
use crate::ir::{Graph, Model, NodeId, Op, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static NAME_POOLS: Pass = Pass {
    name: "name-pools",
    about: "spell a ReduceMean over every spatial axis as GlobalAveragePool",
    needs: "constants are folded",
    gives: "no such ReduceMean of rank 4 or more, but in normalizations",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    analyze::infer(model)?;
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        if let Some(x) = pooled(graph, id) {
            spell(graph, id, x);
            changed = true;
        }
    }
    graph.sort();
    Ok(Changed::from(changed))
}

/// What the node takes the mean of, over every spatial axis.
fn pooled(graph: &Graph, id: NodeId) -> Option<ValueId> {
    const LEAST_RANK: i64 = 4;
    let node = &graph[id];
    let x = node.input(0).filter(|_| node.op.is("ReduceMean"))?;
    let ty = graph[x].ty.as_ref().filter(|ty| ty.dtype.is_float())?;
    let rank = i64::try_from(ty.shape.as_ref()?.len()).ok()?;
    // An attribute before operator set 18, an operand from then on.
    let mut axes = match node.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => graph.constant_input(id, 1)?.to_i64()?,
    };
    for axis in &mut axes {
        *axis += if *axis < 0 { rank } else { 0 };
    }
    axes.sort_unstable();
    (rank >= LEAST_RANK && axes.iter().copied().eq(2..rank) && !is_centred(graph, x, node.output(0)?)).then_some(x)
}

/// Is `mean` subtracted from `x`?
fn is_centred(graph: &Graph, x: ValueId, mean: ValueId) -> bool {
    let takes_both = |id: NodeId| graph[id].op.is("Sub") && graph[id].inputs().contains(&Some(x));
    graph[mean].uses().iter().any(|used| takes_both(used.node))
}

fn spell(graph: &mut Graph, id: NodeId, x: ValueId) {
    let pool = Op::onnx("GlobalAveragePool");
    let keeps = graph[id].int("keepdims").unwrap_or(1) != 0;
    for name in ["axes", "keepdims", "noop_with_empty_axes"] {
        graph[id].take_attr(name);
    }
    graph.set_input(id, 1, None);
    if keeps {
        graph[id].op = pool;
    } else {
        let base = match graph[id].output(0) {
            Some(mean) => format!("{}/pooled", graph[mean].name()),
            None => "pooled".to_owned(),
        };
        let pooled = graph.insert(pool, &[x], vec![], &base);
        graph[id].op = Op::onnx("Flatten");
        graph.set_input(id, 0, Some(pooled));
    }
}
