//! How much memory a step takes: estimated before it is taken, and measured.
//!
//! The estimate walks the step graph in order and adds up the bytes of every value between its making and its last use; state counts
//! twice, for the two sets of buffers that swap. What an engine keeps beside the values (packed weights, scratch) is not in it.
//!
//! Measured is the process's resident memory, in Linux's words: the high-water mark while steps ran, above what was resident before the
//! first of them. Memory of a GPU is not in it.

use std::collections::HashMap;

use lsqc_passes::ir::{Graph, TensorType, ValueId};

use crate::engine::release_freed_memory;

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

/// Measures what the process's resident memory grows by.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    resident: Option<u64>,
    /// The high-water mark at the start; `None` where it starts from what is resident.
    mark: Option<u64>,
}

impl Meter {
    /// Starts here. Freed memory that the process kept is given back first, since using it again would not show.
    #[must_use]
    pub fn start() -> Meter {
        release_freed_memory();
        // 5 sets the mark to what is resident (proc(5)). Where that is not allowed, an old mark may hide the new one.
        let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        Meter {
            resident: status("VmRSS:"),
            mark: status("VmHWM:").filter(|_| !reset),
        }
    }

    /// The most that was resident since the start, above what was resident then; `None` where the system does not tell.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        let mark = status("VmHWM:")?;
        let is_new = self.mark.is_none_or(|old| mark > old);
        Some(mark.saturating_sub(self.resident?)).filter(|_| is_new)
    }
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kilobytes.checked_mul(1024)
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

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_touched_shows() {
        const BYTES: usize = 64 << 20;
        let meter = Meter::start();
        let before = meter.peak();
        let touched = std::hint::black_box(vec![1u8; BYTES]);
        drop(touched);
        // Other tests of the process may free and take some at the same time.
        let least = BYTES as u64 / 2;
        match (before, meter.peak()) {
            (Some(_), Some(after)) => assert!(after >= least, "{after}"),
            // The mark cannot be reset here, and was higher before.
            (None, after) => assert!(after.is_none_or(|after| after >= least), "{after:?}"),
            (Some(before), None) => panic!("{before} was measured, and then nothing"),
        }
    }
}
