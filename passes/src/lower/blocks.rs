//! Writes weights that are quantized alone, in blocks, as the target's [`BlockForm`] says; activations stay floats.
//!
//! - `com.microsoft.MatMulNBits(x, B, scales; K, N, bits, block_size, accuracy_level)` (ONNX Runtime's contributed operators, version 1) takes the
//!   place of the product. B is uint8 `[N, ⌈K/B⌉, B·bits/8]`: for each output channel its blocks, and in them the levels + 2^(bits−1), the first in
//!   the lowest bits of a byte; scales are `[N, ⌈K/B⌉]`. Zero points are left out, which means 2^(bits−1). What the last block lacks is level 0.
//!   `accuracy_level` 1 keeps activations in float32: at others, and where none is said, a kernel may round them to int8. The bias of a Gemm is an
//!   Add behind it: the operand for it came with a later version of the runtime than the op.
//! - int4 `→ DequantizeLinear(axis, block_size)` (ONNX, operator set 21), the scales in the shape of the steps, before the product. The file's
//!   operator set is raised by `upgrade-opset`.
//!
//! It does nothing where no quantizer has blocks. It refuses a target without a form for them, and a quantizer that a runtime has no weights for:
//! whatever `place-quantizers` did not put there.

use super::stored::{pack, packed};
use super::{Fixed, Form, label};
use crate::analyze::{Weighted, weighted};
use crate::ir::{Attribute, DType, Graph, Model, NodeId, Op, Tensor, TensorType, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};
use crate::target::BlockForm;

/// The pass.
pub static LOWER_BLOCKS: Pass = Pass {
    name: "lower-blocks",
    about: "write weights that are quantized alone, in blocks, as the target has them",
    needs: "steps and weights are constants",
    gives: "no quantizer with blocks",
    run,
};

/// The domain of `MatMulNBits`.
pub(super) const DOMAIN: &str = "com.microsoft";
/// Activations stay in float32.
const FLOAT32: i64 = 1;

/// One layer whose weight alone is quantized, and what it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSite {
    /// The layer, as messages call it.
    pub layer: String,
    /// The quantized weight of the fake-quantized graph.
    pub weight: String,
    /// The axis of the weight that the layer sums over.
    pub axis: usize,
    /// What the layer takes, in both graphs.
    pub input: String,
    /// What the layer gives, bias included, in both graphs.
    pub result: String,
    /// What the product gives in the lowered graph.
    pub product: String,
    /// How the weight lies in the lowered graph, once `unpack-blocks` has spread it.
    pub order: Order,
}

/// How a weight lies in the lowered graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As in the fake-quantized graph.
    Same,
    /// `[K, N]`.
    InputsFirst,
}

/// Where the lowered graph's blocks are; `lower-blocks` leaves this in its context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSites(pub Vec<BlockSite>);

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let form: Form = cx.get();
    let graph = &mut model.graph;
    let mut sites = Vec::new();
    let mut contributed = false;
    for id in graph.node_list() {
        // A product that was replaced is gone.
        if !graph.contains(id) {
            continue;
        }
        let Some(fixed) = Fixed::of(graph, &graph[id]).filter(|fixed| fixed.quantizer.block.is_some()) else {
            continue;
        };
        let form = form
            .blocks
            .ok_or_else(|| PassError::at(graph, id, "its steps are of blocks, and the target has no such weights"))?;
        let lowered = match form {
            BlockForm::MatMulNBits => as_products(graph, &fixed),
            BlockForm::Int4 => as_int4(graph, &fixed),
        };
        sites.extend(lowered.map_err(|why| PassError::at(graph, id, why))?);
        contributed |= form == BlockForm::MatMulNBits;
        graph.remove_node(id);
        graph.remove_sources(&[fixed.x, fixed.step_value]);
    }
    if sites.is_empty() {
        return Ok(Changed::No);
    }
    if contributed {
        model.set_opset(DOMAIN, 1);
    }
    cx.set(BlockSites(sites));
    Ok(Changed::Yes)
}

/// A weight matrix in blocks along `axis`.
struct Matrix {
    shape: [usize; 2],
    axis: usize,
    block: usize,
    bits: u32,
    levels: Vec<i8>,
}

impl Matrix {
    fn of(graph: &Graph, fixed: &Fixed) -> Result<Matrix, String> {
        let weight = graph[fixed.x].constant().ok_or("the weight is not constant")?;
        let &[rows, columns] = weight.shape() else {
            return Err("blocks are of matrices".to_owned());
        };
        let axis = fixed.quantizer.axis.and_then(|axis| usize::try_from(axis).ok());
        let axis = axis.filter(|&axis| axis < 2).ok_or("its blocks have no axis")?;
        let levels = fixed.levels(weight).ok_or("the weight is not a number")?;
        let bytes = levels.into_iter().map(i8::try_from).collect::<Result<_, _>>();
        let expected = fixed.quantizer.steps_shape(weight.shape())?;
        if expected.iter().product::<usize>() != fixed.steps.len() {
            return Err(format!("it has {} steps, and its blocks are {expected:?}", fixed.steps.len()));
        }
        Ok(Matrix {
            shape: [rows, columns],
            axis,
            block: fixed.quantizer.block.unwrap_or(1),
            bits: fixed.quantizer.range.bits,
            levels: bytes.map_err(|_| "a level leaves int8")?,
        })
    }

    /// K and N.
    fn extents(&self) -> (usize, usize) {
        let [rows, columns] = self.shape;
        if self.axis == 0 { (rows, columns) } else { (columns, rows) }
    }

    fn blocks(&self) -> usize {
        self.extents().0.div_ceil(self.block)
    }

    /// The place of input `k` of output `n` in a matrix with `inputs` rows, or columns where they are the second axis.
    fn at(&self, k: usize, n: usize, inputs: usize) -> usize {
        let (_, outputs) = self.extents();
        if self.axis == 0 { k * outputs + n } else { n * inputs + k }
    }
}

/// The layers that take the weight, each with what it sums over.
fn layers(graph: &Graph, fixed: &Fixed) -> Result<Vec<Weighted>, String> {
    let uses = graph[fixed.y].uses();
    let layer = |node: NodeId| match weighted(graph, node) {
        Ok(op) if graph[node].op.is("MatMul") || graph[node].op.is("Gemm") => Ok(op),
        _ => Err(format!("{} takes its weight in blocks", graph[node].label(graph))),
    };
    uses.iter().map(|used| layer(used.node)).collect()
}

fn name_of(graph: &Graph, value: Option<ValueId>) -> Result<String, String> {
    let value = value.ok_or("an operand is missing")?;
    Ok(graph[value].name().to_owned())
}

/// `DequantizeLinear` of int4 before the products.
fn as_int4(graph: &mut Graph, fixed: &Fixed) -> Result<Vec<BlockSite>, String> {
    let matrix = Matrix::of(graph, fixed)?;
    if matrix.bits > 4 {
        return Err(format!("{} bits do not fit int4", matrix.bits));
    }
    let mut sites = Vec::new();
    for op in layers(graph, fixed)? {
        let node = &graph[op.node];
        let result = name_of(graph, node.output(0))?;
        sites.push(BlockSite {
            layer: node.label(graph).into_owned(),
            weight: graph[fixed.y].name().to_owned(),
            axis: matrix.axis,
            input: name_of(graph, node.input(0))?,
            product: result.clone(),
            result,
            order: Order::Same,
        });
    }
    let name = graph[fixed.x].name().to_owned();
    let levels = pack(&matrix.shape, &matrix.levels, DType::I4, 4)?;
    let levels = graph.add_constant(&format!("{name}/int4"), levels);
    let shape = fixed.quantizer.steps_shape(&matrix.shape)?;
    let scale = graph.add_constant(&format!("{name}/scale"), Tensor::new(&shape, fixed.steps.clone()));
    let attributes = vec![attribute("axis", matrix.axis)?, attribute("block_size", matrix.block)?];
    let base = format!("{name}/dequantized");
    let dequantized = graph.insert(Op::onnx("DequantizeLinear"), &[levels, scale], attributes, &base);
    graph[dequantized].ty = Some(TensorType::fixed(DType::F32, &matrix.shape));
    label(graph, &name, &[dequantized]);
    graph.replace(fixed.y, dequantized);
    Ok(sites)
}

/// `MatMulNBits` in place of the products.
fn as_products(graph: &mut Graph, fixed: &Fixed) -> Result<Vec<BlockSite>, String> {
    let matrix = Matrix::of(graph, fixed)?;
    let stored = match matrix.bits {
        2 => 2,
        3 | 4 => 4,
        8 => 8,
        bits => return Err(format!("MatMulNBits has no weights of {bits} bits")),
    };
    let layers = layers(graph, fixed)?;
    let name = graph[fixed.x].name().to_owned();
    let (inputs, outputs) = matrix.extents();
    let (block, blocks) = (matrix.block, matrix.blocks());
    let bytes = codes(&matrix, stored);
    let bytes_of_block = block * stored as usize / 8;
    let levels = Tensor::new(&[outputs, blocks, bytes_of_block], bytes);
    let levels = graph.add_constant(&format!("{name}/blocks"), levels);
    let step = |n: usize, b: usize| fixed.steps.get(matrix.at(b, n, blocks)).copied().unwrap_or(f32::NAN);
    let steps = (0..outputs).flat_map(|n| (0..blocks).map(move |b| (n, b)));
    let scales = Tensor::new(&[outputs, blocks], steps.map(|(n, b)| step(n, b)).collect());
    let scales = graph.add_constant(&format!("{name}/scale"), scales);
    let mut sites = Vec::new();
    for op in layers {
        let node = &graph[op.node];
        let (x, y) = (
            node.input(0).ok_or("an operand is missing")?,
            node.output(0).ok_or("it gives nothing")?,
        );
        let bias = op.bias_index.and_then(|index| node.input(index));
        let mut site = BlockSite {
            layer: node.label(graph).into_owned(),
            weight: graph[fixed.y].name().to_owned(),
            axis: matrix.axis,
            input: graph[x].name().to_owned(),
            result: graph[y].name().to_owned(),
            product: String::new(),
            order: Order::InputsFirst,
        };
        let attributes = vec![
            attribute("K", inputs)?,
            attribute("N", outputs)?,
            attribute("bits", stored as usize)?,
            attribute("block_size", block)?,
            Attribute::new("accuracy_level", FLOAT32),
        ];
        let op_name = Op {
            domain: DOMAIN.into(),
            name: "MatMulNBits".into(),
        };
        let base = format!("{}/product", site.result);
        let product = graph.insert(op_name, &[x, levels, scales], attributes, &base);
        let own = graph[op.node].name.clone();
        let mut last = product;
        if let Some(bias) = bias {
            last = graph.insert(Op::onnx("Add"), &[product, bias], vec![], &format!("{}/biased", site.result));
        }
        for value in [product, last] {
            graph[value].ty = graph[y].ty.clone();
        }
        if let Some(node) = graph[product].producer() {
            graph[node].name = own;
        }
        if last != product {
            label(graph, &site.layer, &[last]);
        }
        // Its result keeps its name, by which both graphs are compared.
        graph.replace(y, last);
        graph.remove_node(op.node);
        if graph.find(&site.result).is_none() {
            graph.rename(last, &site.result);
        }
        site.product = graph[product].name().to_owned();
        sites.push(site);
    }
    Ok(sites)
}

/// Levels + 2^(bits−1), for each output channel block by block, those of the last one filled up with level 0.
fn codes(matrix: &Matrix, stored: u32) -> Vec<u8> {
    let (inputs, outputs) = matrix.extents();
    let padded = matrix.blocks() * matrix.block;
    let mut bytes = Vec::with_capacity(outputs * padded * stored as usize / 8);
    let mut column = vec![0i8; padded];
    let zero = i8::MIN.cast_unsigned() >> (8 - stored);
    for n in 0..outputs {
        for (k, code) in column.iter_mut().enumerate() {
            let level = if k < inputs {
                matrix.levels.get(matrix.at(k, n, inputs)).copied().unwrap_or(0)
            } else {
                0
            };
            *code = level.cast_unsigned().wrapping_add(zero).cast_signed();
        }
        bytes.extend(packed(&column, stored));
    }
    bytes
}

fn attribute(name: &'static str, value: usize) -> Result<Attribute, String> {
    let value = i64::try_from(value).map_err(|_| format!("{name} {value} is absurd"))?;
    Ok(Attribute::new(name, value))
}
