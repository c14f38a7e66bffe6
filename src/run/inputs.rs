//! Settles the model's inputs as the user asked: see [`crate::config::InputWishes`].
//!
//! A shape takes the place of the declared one; a named axis gets its size wherever its name stands; an input of one value becomes that
//! constant, of the extents that the input has, those of named axes taken from another input that has them. Shapes that the file declares
//! for inner values are kept as far as they still hold.
//!
//! Refused, as wrong use: names that the model does not have, shapes of another rank, values that the input's type does not have, constants
//! of unknown shape, and a model of which no input is left.

use std::collections::BTreeMap;

use anyhow::Result;
use lsqc_passes::ir::{Attribute, DType, Dim, Graph, Model, Op, Tensor, TensorType, ValueId};

use crate::config::{Extent, InputWishes};
use crate::failure::Failure;

/// Settles the inputs of `model`.
///
/// # Errors
/// Usage; see the module.
pub fn settle(model: &mut Model, wishes: &InputWishes) -> Result<()> {
    let graph = &mut model.graph;
    let mut change = Change::default();
    for (name, extents) in &wishes.shapes {
        let input = find(graph, name, "--shape")?;
        let new: Vec<Dim> = extents.0.iter().map(dim).collect();
        let dtype = graph[input].ty.as_ref().map_or(DType::F32, |ty| ty.dtype);
        if let Some(old) = graph[input].ty.as_ref().and_then(|ty| ty.shape.as_ref()) {
            if old.len() != new.len() {
                let ty = TensorType::new(dtype, old.clone());
                let message = format!("--shape {name}: {} extents are given, and the input is {ty}", new.len());
                return Err(Failure::usage(message).help("give one extent for each axis").into());
            }
            change.learn(old, &new);
        }
        graph[input].ty = Some(TensorType::new(dtype, new));
    }
    for (axis, &size) in &wishes.axes {
        let symbols = symbols(graph);
        if !symbols.contains(axis) {
            let failure = Failure::usage(format!("--axis {axis}: no input has an axis of that name"));
            let help = match symbols.is_empty() {
                true => "the inputs have no named axes; --shape NAME=DIMS gives an input a shape".to_owned(),
                false => format!("the named axes are {}", symbols.join(", ")),
            };
            return Err(failure.help(help).into());
        }
        change.symbols.insert(axis.clone(), Dim::Known(size));
    }
    change.apply(graph);
    for (name, &value) in &wishes.fixed {
        let input = find(graph, name, "--fix-input")?;
        fix(graph, input, value).map_err(|why| {
            let failure = Failure::usage(format!("--fix-input {name}: {why}"));
            failure.help("--shape NAME=DIMS gives an input a shape, --axis NAME=SIZE an axis its size")
        })?;
    }
    if !wishes.fixed.is_empty() && fed(graph).is_empty() {
        return Err(Failure::usage("--fix-input: no input is left")
            .help("leave at least one to be fed")
            .into());
    }
    Ok(())
}

/// The inputs that a caller feeds.
pub(super) fn fed(graph: &Graph) -> Vec<ValueId> {
    let inputs = graph.inputs().iter().copied();
    inputs.filter(|&input| graph[input].initial().is_none()).collect()
}

fn dim(extent: &Extent) -> Dim {
    match extent {
        Extent::Number(size) => Dim::Known(*size),
        Extent::Axis(name) => Dim::Symbol(name.clone()),
    }
}

fn find(graph: &Graph, name: &str, flag: &str) -> Result<ValueId> {
    let fed = fed(graph);
    let found = graph.find(name).filter(|input| fed.contains(input));
    found.ok_or_else(|| {
        let names: Vec<&str> = fed.iter().map(|&input| graph[input].name()).collect();
        Failure::usage(format!("{flag} {name}: the model has no such input"))
            .help(format!("its inputs are {}", names.join(", ")))
            .into()
    })
}

/// The named axes of the inputs, each once.
fn symbols(graph: &Graph) -> Vec<String> {
    let mut symbols: Vec<String> = Vec::new();
    for input in fed(graph) {
        let shape = graph[input].ty.as_ref().and_then(|ty| ty.shape.as_ref());
        for dim in shape.into_iter().flatten() {
            if let Dim::Symbol(symbol) = dim
                && !symbols.contains(symbol)
            {
                symbols.push(symbol.clone());
            }
        }
    }
    symbols
}

/// What became of the extents of the inputs.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// What named axes are now.
    pub symbols: BTreeMap<String, Dim>,
    /// Is an extent that was a number another now? Then what inner values declare says nothing.
    pub renumbered: bool,
}

impl Change {
    fn learn(&mut self, old: &[Dim], new: &[Dim]) {
        for (old, new) in old.iter().zip(new) {
            match old {
                Dim::Symbol(symbol) if old != new => {
                    self.symbols.insert(symbol.clone(), new.clone());
                }
                Dim::Known(_) if old != new => self.renumbered = true,
                _ => {}
            }
        }
    }

    /// Carries the change over all values, also of subgraphs.
    pub fn apply(&self, graph: &mut Graph) {
        let values: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
        let inputs = graph.inputs().to_vec();
        for value in values {
            let stays = inputs.contains(&value) || graph[value].constant().is_some();
            let Some(ty) = &mut graph[value].ty else { continue };
            if self.renumbered && !stays {
                ty.shape = None;
            }
            for dim in ty.shape.iter_mut().flatten() {
                if let Dim::Symbol(symbol) = dim
                    && let Some(now) = self.symbols.get(symbol)
                {
                    *dim = now.clone();
                }
            }
        }
        for id in graph.node_list() {
            for inner in graph[id].subgraphs_mut() {
                self.apply(inner);
            }
        }
    }
}

/// Puts a constant in the place of an input.
fn fix(graph: &mut Graph, input: ValueId, value: f64) -> Result<(), String> {
    let ty = graph[input].ty.clone().ok_or("the input has no type")?;
    let shape = ty.shape.as_ref().ok_or("the rank of the input is unknown")?;
    let name = graph[input].name().to_owned();
    let constant = match ty.known_shape() {
        Some(shape) => graph.add_constant(&format!("{name}/fixed"), filled(ty.dtype, &shape, value)?),
        None => {
            let element = graph.add_constant(&format!("{name}/value"), filled(ty.dtype, &[], value)?);
            let mut extents = Vec::new();
            for dim in shape {
                extents.push(extent(graph, input, dim, &name)?);
            }
            let attributes = vec![Attribute::new("axis", 0)];
            let whole = graph.insert(Op::onnx("Concat"), &extents, attributes, &format!("{name}/shape"));
            graph.insert(Op::onnx("Expand"), &[element, whole], vec![], &format!("{name}/fixed"))
        }
    };
    graph[constant].ty = Some(ty);
    graph.replace_uses(input, constant);
    graph.remove_source(input);
    Ok(())
}

/// `int64 [1]`: one extent, read from another input where it has a name.
fn extent(graph: &mut Graph, of: ValueId, dim: &Dim, base: &str) -> Result<ValueId, String> {
    let symbol = match dim {
        Dim::Known(size) => {
            let size = i64::try_from(*size).map_err(|_| "an extent is too large")?;
            return Ok(graph.add_constant(&format!("{base}/extent"), Tensor::vector(vec![size])));
        }
        Dim::Symbol(symbol) => symbol,
        Dim::Unknown => return Err("an extent of the input is unknown".to_owned()),
    };
    let place = |input: ValueId| {
        let shape = graph[input].ty.as_ref()?.shape.as_ref()?;
        Some((input, shape.iter().position(|other| other == dim)?))
    };
    let others = fed(graph).into_iter().filter(|&input| input != of);
    let Some((source, axis)) = others.filter_map(place).next() else {
        return Err(format!("no other input has the axis {symbol}"));
    };
    let axis = i64::try_from(axis).map_err(|_| "an axis is too large")?;
    let index = graph.add_constant(&format!("{base}/axis"), Tensor::vector(vec![axis]));
    let shape = graph.insert(Op::onnx("Shape"), &[source], vec![], &format!("{base}/source"));
    let attributes = vec![Attribute::new("axis", 0)];
    Ok(graph.insert(Op::onnx("Gather"), &[shape, index], attributes, &format!("{base}/extent")))
}

/// A tensor of which every element is `value`.
fn filled(dtype: DType, shape: &[usize], value: f64) -> Result<Tensor, String> {
    let not_one = || format!("{value} is no {dtype}");
    #[allow(clippy::cast_possible_truncation)]
    let whole = || {
        (value.fract() == 0.0 && value.abs() < 2f64.powi(53))
            .then_some(value as i64)
            .ok_or_else(not_one)
    };
    fn each<T: lsqc_passes::ir::Element + TryFrom<i64>>(shape: &[usize], value: i64) -> Option<Tensor> {
        Some(Tensor::full(shape, T::try_from(value).ok()?))
    }
    #[allow(clippy::cast_possible_truncation)]
    let filled = match dtype {
        DType::F32 => Some(Tensor::full(shape, value as f32)),
        DType::F64 => Some(Tensor::full(shape, value)),
        DType::F16 => Some(Tensor::full(shape, half::f16::from_f64(value))),
        DType::BF16 => Some(Tensor::full(shape, half::bf16::from_f64(value))),
        DType::I64 => each::<i64>(shape, whole()?),
        DType::I32 => each::<i32>(shape, whole()?),
        DType::I16 => each::<i16>(shape, whole()?),
        DType::I8 => each::<i8>(shape, whole()?),
        DType::U64 => each::<u64>(shape, whole()?),
        DType::U32 => each::<u32>(shape, whole()?),
        DType::U16 => each::<u16>(shape, whole()?),
        DType::U8 => each::<u8>(shape, whole()?),
        DType::Bool => {
            let bit = u8::try_from(whole()?).ok().filter(|&bit| bit <= 1).ok_or_else(not_one)?;
            let bytes = vec![bit; shape.iter().product()];
            Tensor::from_bytes(DType::Bool, shape, bytes.into()).ok()
        }
        _ => None,
    };
    filled.ok_or_else(not_one)
}
