//! lsqc's own kernels as custom operators of ONNX Runtime, in the domain `lsqc`.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput, ShapeInferenceContext,
};
use ort::value::{TensorElementType, ValueType};

use crate::engine::kernels::{self, Attributes, NATIVE, NativeOp, Operand, Parallel, ShapeOf};

/// All native ops, to be registered with a session.
///
/// # Errors
/// If the runtime refuses one.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    NATIVE
        .iter()
        .try_fold(OperatorDomain::new("lsqc")?, |domain, op| domain.add(Native(op)))
}

struct Native(&'static NativeOp);

impl Operator for Native {
    type Kernel<'attr> = NativeKernel;

    fn name(&self) -> &str {
        self.0.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        (0..self.0.operands).map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        self.0
            .results
            .iter()
            .map(|_| OperatorOutput::required(TensorElementType::Float32))
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<NativeKernel> {
        let shapes = self.0.results.iter().map(|shape| match shape {
            ShapeOf::Operand(at) => Ok(Shape::Operand(*at)),
            ShapeOf::Attribute(name) => Ok(Shape::Fixed(node.get(name).ok_or_else(|| missing(name))?)),
        });
        Ok(NativeKernel {
            shapes: shapes.collect::<ort::Result<_>>()?,
            kernel: (self.0.kernel)(&Node(node)).map_err(ort::Error::new)?,
        })
    }

    fn infer_shape(&self, node: &mut ShapeInferenceContext) -> ort::Result<()> {
        let operands = node.inputs();
        for (at, shape) in self.0.results.iter().enumerate() {
            let ty = match shape {
                // An operand of unknown shape looks like a scalar here, and what is said to be a scalar nothing else may take.
                ShapeOf::Operand(operand) => operands.get(*operand).filter(|ty| has_axes(ty)).cloned(),
                ShapeOf::Attribute(name) => {
                    let shape: Vec<i64> = node.attr(name)?;
                    Some(ValueType::Tensor {
                        ty: TensorElementType::Float32,
                        dimension_symbols: ort::value::SymbolicDimensions::empty(shape.len()),
                        shape: shape.into(),
                    })
                }
            };
            if let Some(ty) = ty {
                node.set_output(at, &ty)?;
            }
        }
        Ok(())
    }
}

fn has_axes(ty: &ValueType) -> bool {
    matches!(ty, ValueType::Tensor { shape, .. } if !shape.is_empty())
}

fn missing(what: &str) -> ort::Error {
    ort::Error::new(format!("{what} is missing"))
}

struct Node<'a, 'attr>(&'a KernelContext<'attr>);

impl Attributes for Node<'_, '_> {
    fn int(&self, name: &str) -> Option<i64> {
        self.0.get(name)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.0.get(name)
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.0.get(name)
    }
}

enum Shape {
    Operand(usize),
    Fixed(Vec<i64>),
}

struct NativeKernel {
    shapes: Vec<Shape>,
    kernel: Box<dyn kernels::Kernel>,
}

impl Kernel for NativeKernel {
    fn compute(&mut self, cx: &ComputeContext) -> ort::Result<()> {
        let operands = (0..cx.num_inputs()?).map(|at| cx.input(at)?.ok_or_else(|| missing("an operand")));
        let operands = operands.collect::<ort::Result<Vec<_>>>()?;
        let operands = operands.iter().map(|value| value.try_extract_tensor::<f32>());
        let operands = operands.collect::<ort::Result<Vec<_>>>()?;
        let results = self.shapes.iter().enumerate().map(|(at, shape)| {
            let shape = match shape {
                Shape::Operand(operand) => operands.get(*operand).ok_or_else(|| missing("an operand"))?.0.to_vec(),
                Shape::Fixed(shape) => shape.clone(),
            };
            cx.output(at, shape)?.ok_or_else(|| missing("a result"))
        });
        let mut results = results.collect::<ort::Result<Vec<_>>>()?;
        let results = results.iter_mut().map(|value| Ok(value.try_extract_tensor_mut::<f32>()?.1));
        let mut results = results.collect::<ort::Result<Vec<&mut [f32]>>>()?;
        let extents = |shape: &[i64]| shape.iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect();
        let shapes: Vec<Vec<usize>> = operands.iter().map(|(shape, _)| extents(shape)).collect();
        let operands = operands.iter().zip(&shapes);
        let operands: Vec<Operand> = operands.map(|(&(_, values), shape)| Operand { shape, values }).collect();
        self.kernel
            .run(&Threads(cx), &operands, &mut results)
            .map_err(ort::Error::new)
    }
}

/// The session's threads.
struct Threads<'a>(&'a ComputeContext);

impl Parallel for Threads<'_> {
    fn each(&self, total: usize, work: &(dyn Fn(usize) + Send + Sync)) {
        // 0: the runtime chooses how many pieces a thread takes at a time.
        if self.0.par_for(total, 0, work).is_err() {
            (0..total).for_each(work);
        }
    }
}
