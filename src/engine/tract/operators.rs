//! lsqc's own kernels as operators of tract, under their names in the domain `lsqc`.

use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tract_linalg::multithread::{Executor, current_tract_executor};
use tract_onnx::model::{Onnx, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::{as_op, op_as_typed_op, op_out_of_plan};
use tract_onnx::tract_hir::internal::*;

use super::convert::row_major;
use crate::engine::kernels::{Attributes, Kernel, NATIVE, NativeOp, Operand, Parallel, ShapeOf};

/// Teaches `framework` all native ops.
pub(super) fn register(framework: &mut Onnx) {
    for op in &NATIVE {
        framework.op_register.insert(op.name, build);
    }
}

fn build(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let op = NATIVE.iter().find(|op| op.name == node.op_type).context("it has no kernel")?;
    let shapes = op.results.iter().map(|shape| match shape {
        ShapeOf::Operand(at) => Ok(Shape::Operand(*at)),
        ShapeOf::Attribute(name) => Ok(Shape::Fixed(node.get_attr_tvec(name)?)),
    });
    let native = Native {
        op,
        shapes: shapes.collect::<TractResult<_>>()?,
        kernel: (op.kernel)(&Node(node)).map_err(TractError::msg)?.into(),
    };
    Ok((expand(native), vec![]))
}

struct Node<'a>(&'a NodeProto);

impl Attributes for Node<'_> {
    fn int(&self, name: &str) -> Option<i64> {
        self.0.get_attr_opt(name).ok().flatten()
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.0.get_attr_opt(name).ok().flatten()
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.0.get_attr_opt_vec(name).ok().flatten()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Operand(usize),
    Fixed(TVec<usize>),
}

/// A node with its kernel.
#[derive(Clone)]
struct Native {
    op: &'static NativeOp,
    shapes: TVec<Shape>,
    kernel: Arc<dyn Kernel>,
}

impl Native {
    fn shape<T: Clone>(
        &self,
        result: usize,
        operand: impl Fn(usize) -> Option<T>,
        fixed: impl Fn(&[usize]) -> T,
    ) -> TractResult<T> {
        match self.shapes.get(result) {
            Some(Shape::Operand(at)) => operand(*at).context("an operand is missing"),
            Some(Shape::Fixed(shape)) => Ok(fixed(shape)),
            None => bail!("{} has no result {result}", self.op.name),
        }
    }
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lsqc.{} {:?}", self.op.name, self.shapes)
    }
}

// Two kernels are known to be the same only where they are one: their attributes are inside.
impl PartialEq for Native {
    fn eq(&self, other: &Native) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for Native {}

impl Expansion for Native {
    fn name(&self) -> StaticName {
        self.op.name.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.shapes.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.op.operands)?;
        check_output_arity(outputs, self.shapes.len())?;
        for proxy in inputs.iter().chain(outputs) {
            s.equals(&proxy.datum_type, f32::datum_type())?;
        }
        for (output, shape) in outputs.iter().zip(&self.shapes) {
            match shape {
                Shape::Operand(at) => s.equals(&output.shape, &inputs.get(*at).context("an operand is missing")?.shape)?,
                Shape::Fixed(shape) => s.equals(&output.shape, ShapeFactoid::from(&shape[..]))?,
            }
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Native {
    fn name(&self) -> StaticName {
        self.op.name.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Native {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = |result: usize| {
            self.shape(
                result,
                |at| inputs.get(at).map(|fact| fact.shape.clone()),
                |fixed| ShapeFact::from(fixed),
            )
        };
        (0..self.shapes.len()).map(|result| Ok(f32::fact(shape(result)?))).collect()
    }

    as_op!();
}

impl EvalOp for Native {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(
            inputs.iter().all(|input| row_major(input)),
            "{} takes row-major tensors",
            self.op.name
        );
        let views = inputs
            .iter()
            .map(|input| input.try_as_plain_ram())
            .collect::<TractResult<Vec<_>>>()?;
        let operands = inputs.iter().zip(&views).map(|(input, view)| {
            Ok(Operand {
                shape: input.shape(),
                values: view.as_slice::<f32>()?,
            })
        });
        let operands = operands.collect::<TractResult<Vec<_>>>()?;
        let empty = (0..self.shapes.len()).map(|result| {
            let shape = self.shape(
                result,
                |at| inputs.get(at).map(|input| TVec::from_slice(input.shape())),
                TVec::from_slice,
            )?;
            Tensor::zero::<f32>(&shape)
        });
        let mut results = empty.collect::<TractResult<TVec<Tensor>>>()?;
        let mut views = results
            .iter_mut()
            .map(Tensor::try_as_plain_ram_mut)
            .collect::<TractResult<Vec<_>>>()?;
        let slices = views.iter_mut().map(|view| view.as_slice_mut::<f32>());
        let mut slices = slices.collect::<TractResult<Vec<&mut [f32]>>>()?;
        self.kernel.run(&Threads, &operands, &mut slices).map_err(TractError::msg)?;
        drop(views);
        Ok(results.into_iter().map(Tensor::into_tvalue).collect())
    }
}

/// The threads of the running plan.
struct Threads;

impl Parallel for Threads {
    fn each(&self, total: usize, work: &(dyn Fn(usize) + Send + Sync)) {
        match current_tract_executor() {
            Executor::MultiThread(pool) => pool.install(|| (0..total).into_par_iter().for_each(work)),
            _ => (0..total).for_each(work),
        }
    }
}
