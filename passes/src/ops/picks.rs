//! What a Slice takes: per axis a first position, a count and a step, by the clamping rules of ONNX Slice.

use super::normalize_axes;
use crate::ir::Node;

/// What a Slice node takes of the axes that it names.
pub struct Picks(Vec<(usize, Pick)>);

/// Start, end and step on one axis, as the node says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    start: i64,
    end: i64,
    step: i64,
}

/// The positions `first`, `first + step`, … of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first position.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// From one to the next; not 0.
    pub step: i64,
}

impl Picks {
    /// Reads a Slice node, whose operands hold the integers that `ints` gives; `None` where one that matters is not known.
    ///
    /// # Errors
    /// If they do not fit each other or the rank.
    pub fn of(node: &Node, ints: impl Fn(usize) -> Option<Vec<i64>>, rank: usize) -> Result<Option<Picks>, String> {
        let read = |name: &str, index: usize| match node.ints(name) {
            Some(values) => Some(Some(values.to_vec())),
            None if node.input(index).is_none() => Some(None),
            None => ints(index).map(Some),
        };
        let all = (read("starts", 1), read("ends", 2), read("axes", 3), read("steps", 4));
        let (Some(starts), Some(ends), Some(axes), Some(steps)) = all else {
            return Ok(None);
        };
        let (Some(starts), Some(ends)) = (starts, ends) else {
            return Err("starts or ends are missing".to_owned());
        };
        let axes = match axes {
            Some(axes) => normalize_axes(&axes, rank)?,
            None => (0..starts.len()).collect(),
        };
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || starts.len() > rank {
            return Err("starts, ends, axes and steps differ in length".to_owned());
        }
        if steps.contains(&0) {
            return Err("a step of 0".to_owned());
        }
        let picks = starts.into_iter().zip(ends).zip(steps);
        let picks = picks.map(|((start, end), step)| Pick { start, end, step });
        Ok(Some(Picks(axes.into_iter().zip(picks).collect())))
    }

    /// What it takes of `axis`; `None` if it does not name the axis.
    #[must_use]
    pub fn on(&self, axis: usize) -> Option<Pick> {
        self.0.iter().find(|(named, _)| *named == axis).map(|(_, pick)| *pick)
    }
}

impl Pick {
    /// Does it take every position, whatever the extent is?
    #[must_use]
    pub fn takes_all(self) -> bool {
        // Exporters write "to the end" as the largest int32 or int64.
        self.start == 0 && self.step == 1 && self.end >= i64::from(i32::MAX)
    }

    /// The positions of an axis of this extent.
    #[must_use]
    pub fn span(self, extent: usize) -> Span {
        let extent = i128::try_from(extent).unwrap_or(i128::MAX);
        let step = i128::from(self.step);
        let from_front = |index: i64| i128::from(index) + if index < 0 { extent } else { 0 };
        let (lowest, highest) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
        let start = from_front(self.start).clamp(lowest.max(0), highest.max(0));
        let end = from_front(self.end).clamp(lowest, highest.max(lowest));
        let distance = if step > 0 { end - start } else { start - end };
        let size = step.abs();
        let count = if extent == 0 || distance <= 0 {
            0
        } else {
            (distance + size - 1) / size
        };
        Span {
            first: usize::try_from(start).unwrap_or_default(),
            count: usize::try_from(count).unwrap_or_default(),
            step: self.step,
        }
    }
}

impl Span {
    /// Every position, in order.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        let step = isize::try_from(self.step).unwrap_or_default();
        (0..self.count).scan(self.first, move |next, _| {
            let position = *next;
            *next = next.saturating_add_signed(step);
            Some(position)
        })
    }

    /// Is it every position of an axis of this extent, in order?
    #[must_use]
    pub fn is_all_of(self, extent: usize) -> bool {
        self.first == 0 && self.count == extent && self.step == 1
    }

    /// The lowest position, and how many lie from it to the highest, both included.
    #[must_use]
    pub fn covered(self) -> (usize, usize) {
        let Some(more) = self.count.checked_sub(1) else {
            return (self.first, 0);
        };
        let reach = more.saturating_mul(usize::try_from(self.step.unsigned_abs()).unwrap_or(usize::MAX));
        let lowest = if self.step < 0 {
            self.first.saturating_sub(reach)
        } else {
            self.first
        };
        (lowest, reach + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(start: i64, end: i64, step: i64, extent: usize) -> Vec<usize> {
        Pick { start, end, step }.span(extent).positions().collect()
    }

    #[test]
    fn positions_are_numpys() {
        assert_eq!(positions(1, 4, 1, 7), [1, 2, 3]);
        assert_eq!(positions(-3, i64::MAX, 2, 7), [4, 6]);
        assert_eq!(positions(-1, i64::MIN, -3, 7), [6, 3, 0]);
        assert_eq!(positions(100, 0, -2, 5), [4, 2]);
        assert_eq!(positions(-100, 2, 1, 5), [0, 1]);
        assert_eq!(positions(3, 1, 1, 5), [0usize; 0]);
        assert_eq!(positions(0, i64::MAX, 1, 0), [0usize; 0]);
        assert_eq!(positions(-1, i64::MIN, -1, 0), [0usize; 0]);
    }

    #[test]
    fn what_a_span_covers() {
        let span = Pick {
            start: -1,
            end: i64::MIN,
            step: -3,
        }
        .span(7);
        assert_eq!(span.covered(), (0, 7));
        let span = Pick {
            start: 1,
            end: 6,
            step: 2,
        }
        .span(7);
        assert_eq!(span.covered(), (1, 5));
    }
}
