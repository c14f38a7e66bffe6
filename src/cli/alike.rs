//! Do two models take and give the same tensors, as far as their files say? Where not, the refusal names both.

use std::path::Path;

use anyhow::Result;
use lsqc_passes::ir::{Dim, Graph, ValueId};

use crate::failure::Failure;

/// A model's graph, and the file that messages name.
pub(super) type Named<'a> = (&'a Path, &'a Graph);

/// Refuses models whose inputs differ; they go by name.
pub(super) fn inputs(a: &Named, b: &Named) -> Result<()> {
    let fed = |(_, graph): &Named| {
        let fed = graph.inputs().iter().filter(|&&input| graph[input].initial().is_none());
        let mut fed: Vec<ValueId> = fed.copied().collect();
        fed.sort_by_key(|&input| graph[input].name().to_owned());
        fed
    };
    let (left, right) = (fed(a), fed(b));
    let same = |(&x, &y): (&ValueId, &ValueId)| a.1[x].name() == b.1[y].name() && may_be_same(a.1, x, b.1, y);
    if left.len() == right.len() && left.iter().zip(&right).all(same) {
        return Ok(());
    }
    Err(refusal("inputs", a, &left, b, &right))
}

/// Refuses models whose outputs differ; gives which of the first goes with which of the second: by name where all names are the same,
/// else by place.
pub(super) fn outputs(a: &Named, b: &Named) -> Result<Vec<(usize, usize)>> {
    let (left, right) = (a.1.outputs(), b.1.outputs());
    let place = |x: ValueId| right.iter().position(|&y| b.1[y].name() == a.1[x].name());
    let named: Option<Vec<usize>> = left.iter().map(|&x| place(x)).collect();
    let places = named.unwrap_or_else(|| (0..left.len()).collect());
    let pairs: Vec<(usize, usize)> = places.into_iter().enumerate().collect();
    let fits = |&(x, y): &(usize, usize)| match (left.get(x), right.get(y)) {
        (Some(&x), Some(&y)) => may_be_same(a.1, x, b.1, y),
        _ => false,
    };
    if left.len() == right.len() && pairs.iter().all(fits) {
        return Ok(pairs);
    }
    Err(refusal("outputs", a, left, b, right))
}

fn refusal(what: &str, a: &Named, left: &[ValueId], b: &Named, right: &[ValueId]) -> anyhow::Error {
    let described = |(_, graph): &Named, values: &[ValueId]| {
        let one = |&value: &ValueId| match &graph[value].ty {
            Some(ty) => format!("'{}' {ty}", graph[value].name()),
            None => format!("'{}'", graph[value].name()),
        };
        values.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let message = format!(
        "the two models cannot be compared, their {what} differ: {} has {}; {} has {}",
        a.0.display(),
        described(a, left),
        b.0.display(),
        described(b, right)
    );
    let help = "give two forms of one network, such as a float model and what `lsqc quantize` made of it";
    Failure::bad_input(message).help(help).into()
}

/// Can the two hold the same samples?
fn may_be_same(a: &Graph, x: ValueId, b: &Graph, y: ValueId) -> bool {
    let (Some(x), Some(y)) = (&a[x].ty, &b[y].ty) else {
        return true;
    };
    let (Some(left), Some(right)) = (&x.shape, &y.shape) else {
        return x.dtype == y.dtype;
    };
    let fits = |(left, right): (&Dim, &Dim)| left.known().zip(right.known()).is_none_or(|(left, right)| left == right);
    x.dtype == y.dtype && left.len() == right.len() && left.iter().zip(right).skip(1).all(fits)
}
