//! OpenVINO lists the ops that it runs, each with the type of its first operand.
//!
//! It calls an op after the last node of the model that went into it, or after that node's result: a product after the Mul behind it that it folded
//! into the weights, or after the network's output. So in the model that it gets every node and every result has the name of the layer whose
//! product it comes from, where that is one product alone.
//!
//! Where it moves a Mul over the bias, the product has a name of its own. Then what is fused into it tells the layer; and where nothing does, and
//! there are as many such products in integers as layers without one, these are theirs.

use std::collections::BTreeMap;

use anyhow::Result;
use lsqc_passes::analyze::{FIX_SHAPES, InputShapes};
use lsqc_passes::ir::{Dim, Graph, Model, Node, ValueId};
use lsqc_passes::onnx::OwnOps;

use super::{Runtime, Shown, crash};
use crate::compiler::{Compiler, serialize};
use crate::engine::OpenVino;
use crate::engine::openvino::Op;
use crate::failure::{Failure, Kind};

/// What is said where OpenVINO crashes.
const CRASHED: &str = "error: OpenVINO crashed when it compiled the lowered model
help: it may do so with the file that `lsqc quantize --target openvino` writes, too: leave layers in floats (`layers` in lsqc.toml) until it does \
                       not, another --placement may help, and so may another version of OpenVINO
";

/// What the model's products are called in the model.
const PRODUCTS: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
/// What OpenVINO's have in the names of their kinds.
const PRODUCT_KINDS: [&str; 3] = ["Convolution", "FullyConnected", "MatMul"];

impl Runtime for OpenVino {
    fn version(&self) -> String {
        OpenVino::version(self)
    }

    fn shown(&self, lowered: &Model, layers: &[String]) -> Result<Shown> {
        let mut asked = lowered.clone();
        let shapes = InputShapes(one_sample(&asked.graph));
        Compiler::default().run(&[&FIX_SHAPES], &mut asked, |cx| cx.set(shapes), |_| ())?;
        name_by_layer(&mut asked.graph, layers);
        let bytes = serialize(&asked, OwnOps::Refuse)?;
        let ops = crash::with_a_word(CRASHED, || self.ops(&bytes))?;
        let shown = shown(&ops, layers);
        if !layers.is_empty() && shown.hidden.len() == layers.len() {
            let message = format!("{} does not say which of its ops comes from which layer", self.version());
            let help = "this version is not known to lsqc: confirm with another, or leave --confirm out";
            return Err(Failure::new(Kind::Engine, message).help(help).into());
        }
        Ok(shown)
    }
}

/// The shapes of the inputs, what is symbolic being 1.
fn one_sample(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    let shape = |&input: &ValueId| {
        let shape = graph[input].ty.as_ref()?.shape.as_ref()?;
        let extents = shape.iter().map(|dim| Dim::known(dim).unwrap_or(1));
        Some((graph[input].name().to_owned(), extents.collect()))
    };
    let fed = graph.inputs().iter().filter(|&&input| graph[input].initial().is_none());
    fed.filter_map(shape).collect()
}

/// What names begin with that come from the layer at `index`.
fn mark(index: usize) -> String {
    format!("layer-{index}-")
}

/// Where a value comes from, as far as the last product before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// No product: inputs and constants alone.
    Nothing,
    /// The product of the layer at this index alone.
    Layer(usize),
    /// Several products, or one that is no layer's.
    Other,
}

impl Source {
    fn and(self, other: Source) -> Source {
        match (self, other) {
            (Source::Nothing, source) | (source, Source::Nothing) => source,
            (a, b) if a == b => a,
            _ => Source::Other,
        }
    }
}

/// Names every node and every result after the layer that it comes from; what comes from no layer alone loses its name, which may look like a layer's.
fn name_by_layer(graph: &mut Graph, layers: &[String]) {
    let mut sources: BTreeMap<ValueId, Source> = BTreeMap::new();
    graph.sort();
    for (number, id) in graph.node_list().into_iter().enumerate() {
        let node = &graph[id];
        let inputs = node.inputs().iter().flatten();
        let source = if is_product(node) {
            let layer = layers.iter().position(|layer| *layer == node.name);
            layer.map_or(Source::Other, Source::Layer)
        } else {
            inputs.fold(Source::Nothing, |source, input| {
                source.and(sources.get(input).copied().unwrap_or(Source::Nothing))
            })
        };
        let mark = match source {
            Source::Layer(index) => mark(index),
            Source::Nothing | Source::Other => "none-".to_owned(),
        };
        let outputs: Vec<ValueId> = node.outputs().iter().copied().flatten().collect();
        graph[id].name = format!("{mark}{}-{number}", graph[id].op.name);
        for output in outputs {
            sources.insert(output, source);
            graph.rename(output, &format!("{mark}value"));
        }
    }
}

fn is_product(node: &Node) -> bool {
    PRODUCTS.iter().any(|op| node.op.is(op))
}

/// What OpenVINO's ops say of the layers.
fn shown(ops: &[Op], layers: &[String]) -> Shown {
    let marks: Vec<String> = (0..layers.len()).map(mark).collect();
    let layer_in = |name: &String| marks.iter().position(|mark| name.contains(mark));
    let mut seen: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    // Products in integers with names of OpenVINO's own. They are layers: no other product has levels to take.
    let mut unnamed = 0;
    for op in ops {
        if !PRODUCT_KINDS.iter().any(|kind| op.kind.contains(kind)) {
            continue;
        }
        let integers = matches!(op.precision.as_str(), "i8" | "u8");
        match layer_in(&op.name).or_else(|| op.fused.iter().find_map(layer_in)) {
            Some(layer) => seen.entry(layer).or_default().push(integers),
            None => unnamed += usize::from(integers),
        }
    }
    let mut shown = Shown::default();
    for (index, layer) in layers.iter().enumerate() {
        match seen.get(&index) {
            None => shown.hidden.insert(layer.clone()),
            Some(integers) => integers.contains(&false) && shown.floats.insert(layer.clone()),
        };
    }
    if unnamed == shown.hidden.len() {
        shown.hidden.clear();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: &str, name: &str, precision: &str, fused: &[&str]) -> Op {
        Op {
            name: name.to_owned(),
            kind: kind.to_owned(),
            precision: precision.to_owned(),
            fused: fused.iter().map(ToString::to_string).collect(),
        }
    }

    fn names(indices: impl IntoIterator<Item = usize>) -> Vec<String> {
        indices.into_iter().map(|index| format!("layer{index}")).collect()
    }

    fn of(ops: &[Op], layers: usize) -> (Vec<String>, Vec<String>) {
        let Shown { floats, hidden } = shown(ops, &names(0..layers));
        (floats.into_iter().collect(), hidden.into_iter().collect())
    }

    #[test]
    fn products_are_known_by_their_names_and_by_what_is_fused() {
        let ops = [
            op(
                "Convolution",
                "layer-0-Conv-3/WithoutBiases",
                "i8",
                &["none-Add-4", "layer-0-Relu-5"],
            ),
            op("Reorder", "layer-0-Conv-3_abcd_layer-1-Conv-7", "f32", &[]),
            op("GroupConvolution", "Multiply_17", "f32", &["none-Add-8", "layer-1-Relu-9"]),
            op("FullyConnectedQuantizedLegacy", "layer-11-value", "u8", &[]),
            op("MatMul", "none-MatMul-12", "f32", &[]),
        ];
        let hidden: Vec<usize> = (2..11).collect();
        let mut expected = names(hidden);
        expected.sort();
        assert_eq!(of(&ops, 12), (names([1]), expected));
    }

    #[test]
    fn as_many_unnamed_products_in_integers_as_layers_without_one() {
        let [unnamed, in_floats] = ["i8", "f32"].map(|precision| op("Convolution", "Multiply_9", precision, &[]));
        let named = op("Convolution", "layer-1-Conv-0", "i8", &[]);
        let list = |ops: &[&Op]| ops.iter().map(|&op| op.clone()).collect::<Vec<_>>();
        assert_eq!(of(&list(&[&unnamed, &named, &unnamed]), 3), (vec![], vec![]));
        assert_eq!(of(&list(&[&unnamed, &named, &in_floats]), 3), (vec![], names([0, 2])));
        assert_eq!(of(&list(&[&in_floats, &named]), 2), (vec![], names([0])));
    }
}
