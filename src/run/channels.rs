//! Weights whose output channels are too unlike for one step: a depthwise filter may be a hundredth of its neighbour.

use lsqc_passes::analyze::weighted;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::lower::Fixed;
use lsqc_passes::quantize::PAPER_BITS;

/// Noise over signal, in energy, at which little is left of a channel: 10 dB.
const LOST: f64 = 0.1;
/// The share of a layer's channels that makes a layer worth a word.
const MANY: f64 = 0.25;
/// Channels of less than this part of the largest one's energy were dead before.
const DEAD: f64 = 1e-10;
/// Layers that are named.
const SHOWN: usize = 4;

/// What the user should know of layers of `initial`, whose steps are set, where one step costs many output channels most of what they say.
/// At few bits every layer is coarse, and training makes up for it: they are passed over.
pub fn coarse(initial: &Model) -> Option<String> {
    let graph = &initial.graph;
    let (mut layers, mut named) = (0, Vec::new());
    for id in graph.node_list() {
        let Ok(op) = weighted(graph, id) else { continue };
        let fixed = (graph[id].input(op.weight_index)).and_then(|operand| Fixed::behind(graph, operand));
        let Some((_, fixed)) = fixed else { continue };
        layers += 1;
        let weight = graph[fixed.x].constant();
        if let (Some(step), Some(weight)) = (fixed.step(), weight)
            && fixed.quantizer.range.bits > PAPER_BITS
            && let Some((lost, alive)) = lost_channels(weight, &fixed, step, op.axis)
        {
            #[allow(clippy::cast_precision_loss)]
            if lost > 0 && lost as f64 >= MANY * alive as f64 {
                named.push(format!("'{}': {lost} of {alive}", graph[id].label(graph)));
            }
        }
    }
    let count = named.len();
    let first = named.get(..SHOWN).unwrap_or(&named).join(", ");
    let more = if count > SHOWN { ", …" } else { "" };
    (count > 0).then(|| {
        format!(
            "in {count} of {layers} layers one weight step is too coarse for many output channels ({first}{more}): --per-channel gives each a \
             step of its own"
        )
    })
}

/// Output channels that quantization leaves with more than [`LOST`] of noise, and channels in all, without dead ones.
fn lost_channels(weight: &Tensor, fixed: &Fixed, step: f32, axis: usize) -> Option<(usize, usize)> {
    let (values, levels) = (weight.to_f32()?, fixed.levels(weight)?);
    let channels = weight.shape().get(axis).copied().filter(|&channels| channels > 1)?;
    let inner: usize = weight.shape().iter().skip(axis + 1).product();
    let (mut signal, mut noise) = (vec![0.0; channels], vec![0.0; channels]);
    for (index, (&value, &level)) in values.iter().zip(&levels).enumerate() {
        let channel = (index / inner.max(1)) % channels;
        let error = f64::from(level) * f64::from(step) - f64::from(value);
        if let (Some(signal), Some(noise)) = (signal.get_mut(channel), noise.get_mut(channel)) {
            *signal += f64::from(value).powi(2);
            *noise += error.powi(2);
        }
    }
    let most = signal.iter().copied().fold(0.0, f64::max);
    let alive = || signal.iter().zip(&noise).filter(|&(&signal, _)| signal > DEAD * most);
    Some((
        alive().filter(|&(signal, noise)| *noise > LOST * signal).count(),
        alive().count(),
    ))
}
