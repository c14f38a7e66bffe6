//! Sliding windows, which convolutions and pools share: resolved pads and output extents, axis by axis.
//!
//! Along one spatial axis of input extent D, kernel k, dilation d, stride s and pads p₀, p₁ the window covers e = d·(k − 1) + 1 and gives
//! ⌊(D + p₀ + p₁ − e) / s⌋ + 1 outputs (`ceil_mode`: rounded up, without windows that would start in the end pad). `SAME_UPPER` and
//! `SAME_LOWER` give ⌈D / s⌉ outputs; of an odd pad total the larger half goes to the end, or to the begin. ONNX Conv, MaxPool and
//! AveragePool, operator sets 7 to 25.

use super::build::as_i64;
use crate::ir::{Attribute, Dim, Node};

/// How a window that does not fit whole at the end counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Not at all.
    Floor,
    /// As a window of its own, if it starts inside the input or its begin pad (`ceil_mode`).
    Ceil,
}

/// A window over the spatial axes, with the pads resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extents of the kernel.
    pub kernel: Vec<usize>,
    /// Strides.
    pub strides: Vec<usize>,
    /// Dilations.
    pub dilations: Vec<usize>,
    /// Pads before each axis.
    pub pads_begin: Vec<usize>,
    /// Pads after each axis.
    pub pads_end: Vec<usize>,
    /// What becomes of a last window that does not fit.
    pub rounding: Rounding,
}

impl Window {
    /// The window of a Conv or pool over an input of these spatial extents; a pool's kernel is [`kernel_shape`], a Conv's that of its
    /// weight.
    ///
    /// # Errors
    /// If the attributes do not fit the input.
    pub fn of(node: &Node, input: &[usize], kernel: &[usize]) -> Result<Window, String> {
        let axes = axes(node, kernel)?;
        if axes.len() != input.len() {
            return Err(format!(
                "a kernel of shape {kernel:?} does not fit {} spatial axes",
                input.len()
            ));
        }
        let resolved: Vec<Axis> = axes.iter().zip(input).map(|(axis, &extent)| axis.resolved(extent)).collect();
        Ok(Window {
            kernel: kernel.to_vec(),
            strides: resolved.iter().map(|axis| axis.stride).collect(),
            dilations: resolved.iter().map(|axis| axis.dilation).collect(),
            pads_begin: resolved.iter().map(|axis| axis.begin).collect(),
            pads_end: resolved.iter().map(|axis| axis.end).collect(),
            rounding: resolved.first().map_or(Rounding::Floor, |axis| axis.rounding),
        })
    }

    /// What the kernel covers with its dilation, along each axis.
    #[must_use]
    pub fn covered(&self) -> Vec<usize> {
        let pairs = self.kernel.iter().zip(&self.dilations);
        pairs.map(|(&kernel, &dilation)| covered(kernel, dilation)).collect()
    }

    /// The spatial extents of the result.
    ///
    /// # Errors
    /// If the window does not fit into the padded input.
    pub fn output_extents(&self, input: &[usize]) -> Result<Vec<usize>, String> {
        if input.len() != self.kernel.len() {
            return Err(format!("a window over {} axes does not fit {input:?}", self.kernel.len()));
        }
        let rest = self
            .strides
            .iter()
            .zip(&self.dilations)
            .zip(&self.pads_begin)
            .zip(&self.pads_end);
        let axes = self.kernel.iter().zip(rest);
        axes.zip(input)
            .map(|((&kernel, (((&stride, &dilation), &begin), &end)), &extent)| {
                let axis = Axis {
                    kernel,
                    stride,
                    dilation,
                    begin,
                    end,
                    rounding: self.rounding,
                    same: None,
                };
                axis.output(extent)
            })
            .collect()
    }

    /// The pads as ONNX writes them: the begins of all axes, then the ends.
    #[must_use]
    pub fn pads(&self) -> Vec<i64> {
        as_i64(&[self.pads_begin.as_slice(), &self.pads_end].concat())
    }

    /// The window as attributes, without `auto_pad`.
    #[must_use]
    pub fn attributes(&self) -> Vec<Attribute> {
        let mut attributes = vec![
            Attribute::new("kernel_shape", as_i64(&self.kernel)),
            Attribute::new("strides", as_i64(&self.strides)),
            Attribute::new("pads", self.pads()),
        ];
        if self.dilations.iter().any(|&dilation| dilation != 1) {
            attributes.push(Attribute::new("dilations", as_i64(&self.dilations)));
        }
        if self.rounding == Rounding::Ceil {
            attributes.push(Attribute::new("ceil_mode", 1));
        }
        attributes
    }
}

/// The `kernel_shape` of a pool.
///
/// # Errors
/// If it is missing or not positive.
pub fn kernel_shape(node: &Node) -> Result<Vec<usize>, String> {
    let kernel = node.ints("kernel_shape").ok_or("kernel_shape is missing")?;
    positive(kernel, "kernel_shape")
}

/// The spatial extents of the result, as far as those of the input tell.
///
/// # Errors
/// If the attributes do not fit the input.
pub fn infer_extents(node: &Node, input: &[Dim], kernel: &[usize]) -> Result<Vec<Dim>, String> {
    let axes = axes(node, kernel)?;
    if axes.len() != input.len() {
        return Err(format!(
            "a kernel of shape {kernel:?} does not fit {} spatial axes",
            input.len()
        ));
    }
    axes.iter()
        .zip(input)
        .map(|(axis, dim)| match dim {
            Dim::Known(extent) => axis.resolved(*extent).output(*extent).map(Dim::Known),
            dim if axis.keeps_any_extent() => Ok(dim.clone()),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// The shape of a convolution's result, `[N, M, …]`, from those of its input `[N, C, …]` and its weight `[M, C / group, …]`.
///
/// # Errors
/// If they contradict each other.
pub fn infer_conv(node: &Node, x: &[Dim], w: &[Dim]) -> Result<Vec<Dim>, String> {
    let ([batch, channels, spatial @ ..], [features, per_group, taps @ ..]) = (x, w) else {
        return Err("input and weight of a convolution have rank 3 or more".to_owned());
    };
    if spatial.len() != taps.len() || spatial.is_empty() {
        return Err(format!(
            "a weight of rank {} does not fit an input of rank {}",
            w.len(),
            x.len()
        ));
    }
    let group = match node.int("group").map_or(Ok(1), usize::try_from) {
        Ok(group) if group > 0 => group,
        _ => return Err("group must be positive".to_owned()),
    };
    if let (Some(channels), Some(per_group)) = (channels.known(), per_group.known())
        && per_group.checked_mul(group) != Some(channels)
    {
        return Err(format!(
            "the input has {channels} channels, the weight takes {per_group} in each of {group} groups"
        ));
    }
    if let Some(features) = features.known()
        && features % group != 0
    {
        return Err(format!("{features} output channels do not divide into {group} groups"));
    }
    let kernel: Option<Vec<usize>> = match node.ints("kernel_shape") {
        Some(kernel) => Some(positive(kernel, "kernel_shape")?),
        None => taps.iter().map(Dim::known).collect(),
    };
    let extents = match kernel {
        Some(kernel) => infer_extents(node, spatial, &kernel)?,
        None => vec![Dim::Unknown; spatial.len()],
    };
    Ok([batch, features].into_iter().cloned().chain(extents).collect())
}

/// What a kernel covers along one axis: d·(k − 1) + 1.
pub(super) fn covered(kernel: usize, dilation: usize) -> usize {
    dilation.saturating_mul(kernel.saturating_sub(1)).saturating_add(1)
}

/// Where the larger half of an odd pad total goes.
#[derive(Clone, Copy)]
enum Same {
    Upper,
    Lower,
}

/// One axis of a window; with `same` the pads are not resolved yet.
#[derive(Clone, Copy)]
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    begin: usize,
    end: usize,
    rounding: Rounding,
    same: Option<Same>,
}

impl Axis {
    fn resolved(self, extent: usize) -> Axis {
        let Some(same) = self.same else { return self };
        let last_start = extent.div_ceil(self.stride).saturating_sub(1).saturating_mul(self.stride);
        let needed = last_start.saturating_add(covered(self.kernel, self.dilation));
        let total = needed.saturating_sub(extent);
        let (small, large) = (total / 2, total - total / 2);
        let (begin, end) = match same {
            Same::Upper => (small, large),
            Same::Lower => (large, small),
        };
        // ⌈D / s⌉ outputs fit exactly, so that rounding up would add one that is not asked for.
        Axis {
            begin,
            end,
            rounding: Rounding::Floor,
            same: None,
            ..self
        }
    }

    fn output(self, extent: usize) -> Result<usize, String> {
        let covered = covered(self.kernel, self.dilation);
        let padded = extent
            .checked_add(self.begin)
            .and_then(|sum| sum.checked_add(self.end))
            .ok_or("pads are absurd")?;
        let room = padded
            .checked_sub(covered)
            .ok_or_else(|| format!("a window of {covered} does not fit into a padded extent of {padded}"))?;
        match self.rounding {
            Rounding::Floor => Ok(room / self.stride + 1),
            Rounding::Ceil => {
                let count = room.div_ceil(self.stride) + 1;
                let starts_in_end_pad = (count - 1).saturating_mul(self.stride) >= extent + self.begin;
                Ok(if starts_in_end_pad { count - 1 } else { count })
            }
        }
    }

    /// Is the output as long as the input, whatever that is?
    fn keeps_any_extent(self) -> bool {
        let covered = covered(self.kernel, self.dilation);
        self.stride == 1 && (self.same.is_some() || self.begin.saturating_add(self.end) == covered - 1)
    }
}

fn axes(node: &Node, kernel: &[usize]) -> Result<Vec<Axis>, String> {
    let rank = kernel.len();
    if kernel.contains(&0) {
        return Err("a kernel has no extent of 0".to_owned());
    }
    let strides = positive_or_ones(node, "strides", rank)?;
    let dilations = positive_or_ones(node, "dilations", rank)?;
    let same = match node.text("auto_pad") {
        Some("SAME_UPPER") => Some(Same::Upper),
        Some("SAME_LOWER") => Some(Same::Lower),
        None | Some("NOTSET" | "VALID" | "") => None,
        Some(other) => return Err(format!("auto_pad {other} is not known")),
    };
    let explicit = matches!(node.text("auto_pad"), None | Some("NOTSET" | ""));
    let pads = match node.ints("pads").filter(|_| explicit) {
        Some(pads) if pads.len() == 2 * rank => {
            let pads = pads.iter().map(|&pad| usize::try_from(pad));
            pads.collect::<Result<_, _>>().map_err(|_| "pads are not negative")?
        }
        Some(pads) => return Err(format!("{} pads for {rank} spatial axes", pads.len())),
        None => vec![0; 2 * rank],
    };
    let (begins, ends) = pads.split_at(rank);
    let rounding = match node.int("ceil_mode") {
        None | Some(0) => Rounding::Floor,
        Some(_) => Rounding::Ceil,
    };
    let steps = strides.iter().zip(&dilations).zip(begins.iter().zip(ends));
    let axes = kernel.iter().zip(steps);
    Ok(axes
        .map(|(&kernel, ((&stride, &dilation), (&begin, &end)))| Axis {
            kernel,
            stride,
            dilation,
            begin,
            end,
            rounding,
            same,
        })
        .collect())
}

/// An attribute with a positive number for each axis, 1 where it is left out.
pub(super) fn positive_or_ones(node: &Node, name: &str, rank: usize) -> Result<Vec<usize>, String> {
    match node.ints(name) {
        None | Some([]) => Ok(vec![1; rank]),
        Some(values) if values.len() == rank => positive(values, name),
        Some(values) => Err(format!("{} {name} for {rank} spatial axes", values.len())),
    }
}

fn positive(values: &[i64], name: &str) -> Result<Vec<usize>, String> {
    let positive = values
        .iter()
        .map(|&value| usize::try_from(value).ok().filter(|&value| value > 0));
    positive
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{name} {values:?} must be positive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Graph, Op};

    fn node(attributes: Vec<Attribute>) -> Node {
        let mut graph = Graph::new("test");
        let id = graph.add_node(Op::onnx("MaxPool"), &[], &[], attributes).expect("no names");
        graph[id].clone()
    }

    fn extents(attributes: Vec<Attribute>, input: &[usize], kernel: &[usize]) -> (Vec<i64>, Vec<usize>) {
        let window = Window::of(&node(attributes), input, kernel).expect("fits");
        let extents = window.output_extents(input).expect("fits");
        (window.pads(), extents)
    }

    #[test]
    fn same_pads_put_the_larger_half_where_the_name_says() {
        for (auto_pad, pads) in [("SAME_UPPER", vec![0, 1]), ("SAME_LOWER", vec![1, 0])] {
            let attributes = vec![Attribute::new("auto_pad", auto_pad), Attribute::new("strides", vec![2])];
            assert_eq!(extents(attributes, &[6], &[3]), (pads, vec![3]));
        }
    }

    #[test]
    fn dilation_widens_the_window() {
        let attributes = vec![Attribute::new("dilations", vec![2]), Attribute::new("pads", vec![1, 2])];
        assert_eq!(extents(attributes, &[7], &[3]), (vec![1, 2], vec![6]));
    }

    #[test]
    fn ceil_mode_drops_a_window_that_starts_in_the_end_pad() {
        let ceil = |pads: Vec<i64>| {
            vec![
                Attribute::new("ceil_mode", 1),
                Attribute::new("strides", vec![2]),
                Attribute::new("pads", pads),
            ]
        };
        assert_eq!(extents(ceil(vec![0, 0]), &[4], &[3]).1, [2]);
        assert_eq!(extents(ceil(vec![1, 1]), &[4], &[1]).1, [3]);
        assert_eq!(extents(ceil(vec![0, 1]), &[4], &[2]).1, [2]);
    }

    #[test]
    fn symbolic_extents_stay_where_the_window_keeps_them() {
        let symbol = [Dim::Symbol("h".into())];
        let same = node(vec![Attribute::new("pads", vec![1, 1])]);
        assert_eq!(infer_extents(&same, &symbol, &[3]), Ok(symbol.to_vec()));
        assert_eq!(infer_extents(&node(vec![]), &symbol, &[3]), Ok(vec![Dim::Unknown]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let stride = node(vec![Attribute::new("strides", vec![0])]);
        assert!(Window::of(&stride, &[4], &[3]).is_err());
        let plain = node(vec![]);
        assert!(infer_extents(&plain, &[Dim::Known(2)], &[3]).is_err());
        assert!(Window::of(&plain, &[4, 4], &[3]).is_err());
    }
}
