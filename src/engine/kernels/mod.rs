//! Kernels of lsqc's own ops, for engines that take foreign ones: plain functions over slices, the same for every engine.
//!
//! Work is cut into parts by shape alone, and parts are added up in their order, so that results do not depend on the number of threads.
//! Each function is compiled for several instruction sets, and the best that the machine has is taken at run time.

mod batch_norm;
mod conv_weight;
mod fake_quantize;
mod table;

use std::sync::Mutex;

use conv_weight::ConvWeight;
use fake_quantize::FakeQuantize;
pub(super) use table::{Attributes, Kernel, NATIVE, NativeOp, Operand, ShapeOf};

/// Runs independent pieces of work, on as many threads as the engine has.
pub(super) trait Parallel {
    /// Calls `work(0)` … `work(total − 1)`, in any order.
    fn each(&self, total: usize, work: &(dyn Fn(usize) + Send + Sync));
}

/// One after another, on this thread.
#[cfg(test)]
pub(super) struct Serial;

#[cfg(test)]
impl Parallel for Serial {
    fn each(&self, total: usize, work: &(dyn Fn(usize) + Send + Sync)) {
        (0..total).for_each(work);
    }
}

/// Maps each part to its result; the results are in the order of the parts.
fn map<T: Send, R: Send>(parallel: &dyn Parallel, parts: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    let slots: Vec<Mutex<(Option<T>, Option<R>)>> = parts.into_iter().map(|part| Mutex::new((Some(part), None))).collect();
    parallel.each(slots.len(), &|at| {
        let Some(slot) = slots.get(at) else { return };
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(part) = slot.0.take() {
            slot.1 = Some(work(part));
        }
    });
    let results = slots
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1);
    results.flatten().collect()
}

/// Numbers that are added up side by side: one vector register of the widest instruction set.
const LANES: usize = 16;

#[cfg(test)]
mod tests;
