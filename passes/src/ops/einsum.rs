//! Einsum (ONNX 12): a sum of products over labelled axes.
//!
//! The gradient of one operand is the Einsum of ∂y and the other operands, taken two at a time, with that operand's labels as the result;
//! labels that only it has are broadcast. Each contraction of two is one batched MatMul between transposes and reshapes: labels of both that
//! are still needed are the batch, labels of both that are not are summed. Axes of an ellipsis are labels too, aligned at the end.
//!
//! Refused: gradients where an operand has a label twice (a diagonal).

use std::collections::BTreeMap;

use super::build::{Build, KeepDims, as_i64};
use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry, broadcast};
use crate::ir::{Dim, Node, TensorType, ValueId};

pub(super) const ENTRIES: &[OpEntry] = &[OpEntry::new("Einsum", infer, "").gradient(gradient, samples)];

/// An axis: a letter, or the axis of the ellipsis with this many behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(std::cmp::Reverse<usize>),
    Letter(char),
}

/// One term of the equation: letters, and where the ellipsis stands among them.
struct Term {
    letters: Vec<char>,
    ellipsis: Option<usize>,
}

impl Term {
    fn parse(text: &str) -> Result<Term, String> {
        let (before, after) = text.split_once("...").map_or((text, None), |(a, b)| (a, Some(b)));
        let letters: Vec<char> = before.chars().chain(after.unwrap_or_default().chars()).collect();
        if !letters.iter().all(char::is_ascii_alphabetic) {
            return Err(format!("the term '{text}' has other signs than letters"));
        }
        Ok(Term {
            letters,
            ellipsis: after.map(|_| before.chars().count()),
        })
    }

    /// Its axes, where the ellipsis stands for `hidden` axes.
    fn labels(&self, hidden: usize) -> Vec<Label> {
        let at = self.ellipsis.unwrap_or(self.letters.len());
        let (before, after) = self.letters.split_at(at.min(self.letters.len()));
        let letters = |part: &[char]| part.iter().map(|&letter| Label::Letter(letter)).collect::<Vec<_>>();
        let ellipsis = if self.ellipsis.is_some() { hidden } else { 0 };
        let hidden = (0..ellipsis).rev().map(|behind| Label::Ellipsis(std::cmp::Reverse(behind)));
        letters(before).into_iter().chain(hidden).chain(letters(after)).collect()
    }
}

struct Equation {
    inputs: Vec<Term>,
    /// `None` where it follows from the inputs.
    output: Option<Term>,
}

impl Equation {
    fn of(node: &Node) -> Result<Equation, String> {
        let text: String = node
            .text("equation")
            .ok_or("equation is missing")?
            .split_whitespace()
            .collect();
        let (inputs, output) = text.split_once("->").map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
        let inputs: Vec<Term> = inputs.split(',').map(Term::parse).collect::<Result<_, _>>()?;
        if inputs.len() != node.inputs().len() {
            return Err(format!("{} terms for {} operands", inputs.len(), node.inputs().len()));
        }
        let output = output.map(Term::parse).transpose()?;
        Ok(Equation { inputs, output })
    }

    /// The labels of operand `index`, of this rank.
    fn input(&self, index: usize, rank: usize) -> Result<Vec<Label>, String> {
        let term = self.inputs.get(index).ok_or("it has more operands than terms")?;
        let hidden = rank.checked_sub(term.letters.len());
        let hidden = hidden.filter(|&hidden| term.ellipsis.is_some() || hidden == 0);
        let hidden = hidden.ok_or_else(|| format!("its term does not fit operand {index}, of rank {rank}"))?;
        Ok(term.labels(hidden))
    }

    /// The labels of the result. Where the equation does not say them: the ellipsis, then letters that stand in it once.
    fn output(&self, inputs: &[Vec<Label>]) -> Vec<Label> {
        let all: Vec<Label> = inputs.iter().flatten().copied().collect();
        let hidden = all.iter().filter_map(|label| match label {
            Label::Ellipsis(behind) => Some(behind.0 + 1),
            Label::Letter(_) => None,
        });
        let hidden = hidden.max().unwrap_or(0);
        if let Some(output) = &self.output {
            return output.labels(hidden);
        }
        let mut labels: Vec<Label> = all
            .iter()
            .copied()
            .filter(|label| matches!(label, Label::Ellipsis(_)) || all.iter().filter(|other| *other == label).count() == 1)
            .collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }
}

/// ONNX Einsum, operator set 12.
fn infer(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let equation = Equation::of(cx.node)?;
    let mut dims: BTreeMap<Label, Dim> = BTreeMap::new();
    let mut inputs = Vec::new();
    for index in 0..equation.inputs.len() {
        let Some(shape) = cx.shape(index) else {
            return cx.one(cx.dtype(0), None);
        };
        let labels = equation.input(index, shape.len())?;
        for (label, dim) in labels.iter().zip(shape) {
            let joined = match dims.get(label) {
                None => dim.clone(),
                Some(known) => broadcast(std::slice::from_ref(known), std::slice::from_ref(dim))?.swap_remove(0),
            };
            dims.insert(*label, joined);
        }
        inputs.push(labels);
    }
    let output = equation.output(&inputs);
    let shape = output
        .iter()
        .map(|label| dims.get(label).cloned().ok_or("a label of the result has no axis"));
    cx.one(cx.dtype(0), Some(shape.collect::<Result<_, _>>()?))
}

/// A value with the labels of its axes.
#[derive(Clone)]
struct Labelled {
    value: ValueId,
    labels: Vec<Label>,
}

type Extents = BTreeMap<Label, usize>;

fn gradient(cx: &mut GradCx) -> Result<(), String> {
    let equation = Equation::of(&cx.node)?;
    let dy = cx.dy()?;
    let mut extents = Extents::new();
    let mut operands = Vec::new();
    for index in 0..equation.inputs.len() {
        let (value, shape) = (cx.x(index)?, cx.x_shape(index)?);
        let labels = equation.input(index, shape.len())?;
        let mut sorted = labels.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != labels.len() {
            return Err("the gradient of a diagonal is not written".to_owned());
        }
        for (&label, extent) in labels.iter().zip(shape) {
            let known = extents.entry(label).or_insert(extent);
            *known = if *known == 1 { extent } else { *known };
        }
        operands.push(Labelled { value, labels });
    }
    let labels = equation.output(&operands.iter().map(|operand| operand.labels.clone()).collect::<Vec<_>>());
    for wanted in 0..operands.len() {
        let Some(target) = operands.get(wanted).map(|operand| operand.labels.clone()) else {
            continue;
        };
        cx.give_with(wanted, |b| {
            let mut product = Labelled {
                value: dy,
                labels: labels.clone(),
            };
            let mut others: Vec<Labelled> = operands.clone();
            others.remove(wanted);
            while let Some(other) = others.pop() {
                let other = stretched(b, other, &extents)?;
                let needed = |label: &Label| target.contains(label) || others.iter().any(|rest| rest.labels.contains(label));
                product = contract(b, product, other, &extents, &needed)?;
            }
            let product = reduced(b, product, |label| target.contains(label));
            spread(b, product, &target, &extents)
        })?;
    }
    Ok(())
}

/// The operand with the whole extent of each of its labels.
fn stretched(b: &mut Build, x: Labelled, extents: &Extents) -> Result<Labelled, String> {
    let shape = extents_of(&x.labels, extents);
    let value = if b.shape(x.value)? == shape {
        x.value
    } else {
        b.expand(x.value, &shape)
    };
    Ok(Labelled { value, ..x })
}

fn extents_of(labels: &[Label], extents: &Extents) -> Vec<usize> {
    labels.iter().map(|label| extents.get(label).copied().unwrap_or(1)).collect()
}

/// Sums over the labels that are not to stay.
fn reduced(b: &mut Build, x: Labelled, stays: impl Fn(&Label) -> bool) -> Labelled {
    let axes = (0..).zip(&x.labels).filter(|(_, label)| !stays(label));
    let axes: Vec<i64> = axes.map(|(axis, _)| axis).collect();
    if axes.is_empty() {
        return x;
    }
    Labelled {
        value: b.reduce_sum(x.value, &axes, KeepDims::No),
        labels: x.labels.into_iter().filter(|label| stays(label)).collect(),
    }
}

/// `x` with its axes in the order of `labels`, which are the same.
fn ordered(b: &mut Build, x: &Labelled, labels: &[Label]) -> Result<ValueId, String> {
    let at = |label| x.labels.iter().position(|own| own == label);
    let order: Vec<usize> = labels.iter().map(at).collect::<Option<_>>().ok_or("a label is missing")?;
    if order.iter().copied().eq(0..order.len()) {
        return Ok(x.value);
    }
    Ok(b.transpose(x.value, &as_i64(&order)))
}

/// The product of both, summed over the labels that are no longer needed.
fn contract(
    b: &mut Build,
    a: Labelled,
    c: Labelled,
    extents: &Extents,
    needed: &dyn Fn(&Label) -> bool,
) -> Result<Labelled, String> {
    let (a_has, c_has) = (a.labels.clone(), c.labels.clone());
    let a = reduced(b, a, |label| needed(label) || c_has.contains(label));
    let c = reduced(b, c, |label| needed(label) || a_has.contains(label));
    let pick = |from: &Labelled, both: bool, stays: Option<bool>| -> Vec<Label> {
        let other = if std::ptr::eq(from, &raw const a) { &c } else { &a };
        let picked = from
            .labels
            .iter()
            .copied()
            .filter(|label| other.labels.contains(label) == both);
        picked
            .filter(|label| stays.is_none_or(|stays| needed(label) == stays))
            .collect()
    };
    let (batch, summed) = (pick(&a, true, Some(true)), pick(&a, true, Some(false)));
    let (left, right) = (pick(&a, false, None), pick(&c, false, None));
    let size = |labels: &[Label]| extents_of(labels, extents).into_iter().product::<usize>();
    let rows = ordered(b, &a, &[batch.as_slice(), &left, &summed].concat())?;
    let rows = b.reshape(rows, &[size(&batch), size(&left), size(&summed)]);
    let columns = ordered(b, &c, &[batch.as_slice(), &summed, &right].concat())?;
    let columns = b.reshape(columns, &[size(&batch), size(&summed), size(&right)]);
    let product = b.matmul(rows, columns);
    let labels = [batch, left, right].concat();
    Ok(Labelled {
        value: b.reshape(product, &extents_of(&labels, extents)),
        labels,
    })
}

/// `x` with the labels `target`, broadcast along those that it does not have.
fn spread(b: &mut Build, x: Labelled, target: &[Label], extents: &Extents) -> Result<ValueId, String> {
    let has: Vec<Label> = target.iter().copied().filter(|label| x.labels.contains(label)).collect();
    let value = ordered(b, &x, &has)?;
    if has.len() == target.len() {
        return Ok(value);
    }
    let full = extents_of(target, extents);
    let thin: Vec<usize> = target
        .iter()
        .zip(&full)
        .map(|(label, &extent)| if has.contains(label) { extent } else { 1 })
        .collect();
    let value = b.reshape(value, &thin);
    Ok(b.expand(value, &full))
}

fn samples() -> Vec<Sample> {
    let case = |equation: &'static str| Sample::new(equation).attr("equation", equation);
    vec![
        case("ij,jk->ik").x(&[2, 3]).x(&[3, 4]),
        case("bhqd,bhkd->bhqk").x(&[2, 2, 3, 2]).x(&[2, 2, 4, 2]),
        case("bij, jk -> bki").x(&[2, 3, 2]).x(&[2, 4]),
        case("ij,kl->jl").x(&[2, 3]).x(&[2, 2]),
        case("...ij,...jk->...ik").x(&[2, 1, 2, 3]).x(&[1, 2, 3, 2]),
        case("ij,jk").x(&[2, 3]).x(&[3, 2]),
        case("ij->ji").x(&[2, 3]),
        case("ijk->j").x(&[2, 3, 2]),
        case("i,ij,j->").x(&[2]).x(&[2, 3]).x(&[3]),
        case("i,i->i").x(&[3]).x(&[3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_follows_from_the_operands_where_it_is_not_said() {
        let terms = [Term::parse("b...a").expect("parses"), Term::parse("ac").expect("parses")];
        let inputs = [terms[0].labels(1), terms[1].labels(0)];
        let equation = Equation {
            inputs: terms.into(),
            output: None,
        };
        let ellipsis = Label::Ellipsis(std::cmp::Reverse(0));
        assert_eq!(equation.output(&inputs), [ellipsis, Label::Letter('b'), Label::Letter('c')]);
        assert!(equation.input(1, 3).is_err() && equation.input(0, 1).is_err());
        assert!(Term::parse("a1").is_err());
    }
}
