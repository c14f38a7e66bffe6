//! Tensors between lsqc and ONNX Runtime: copied both ways, since its buffers are its own.

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use half::{bf16, f16};
use lsqc_passes::ir::{DType, Element, Tensor};
use ort::memory::Allocator;
use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, Shape, Tensor as OrtTensor, TensorElementType};

/// Pairs of element types that both sides compute with.
const TYPES: [(DType, TensorElementType); 13] = [
    (DType::F32, TensorElementType::Float32),
    (DType::F64, TensorElementType::Float64),
    (DType::F16, TensorElementType::Float16),
    (DType::BF16, TensorElementType::Bfloat16),
    (DType::I8, TensorElementType::Int8),
    (DType::I16, TensorElementType::Int16),
    (DType::I32, TensorElementType::Int32),
    (DType::I64, TensorElementType::Int64),
    (DType::U8, TensorElementType::Uint8),
    (DType::U16, TensorElementType::Uint16),
    (DType::U32, TensorElementType::Uint32),
    (DType::U64, TensorElementType::Uint64),
    (DType::Bool, TensorElementType::Bool),
];

pub(super) fn dtype(of: TensorElementType) -> Option<DType> {
    TYPES.iter().find(|(_, theirs)| *theirs == of).map(|(ours, _)| *ours)
}

/// A tensor of the type and shape of `like`, zeroed if the CPU can write it.
pub(super) fn zeros(allocator: &Allocator, like: &Tensor) -> Result<DynTensor> {
    let of = TYPES
        .iter()
        .find(|(ours, _)| *ours == like.dtype())
        .map(|(_, theirs)| *theirs);
    let of = of.with_context(|| format!("tensors of type {} cannot be handed to ONNX Runtime", like.dtype()))?;
    let extents = like
        .shape()
        .iter()
        .map(|&extent| i64::try_from(extent))
        .collect::<Result<Vec<i64>, _>>()?;
    Ok(DynTensor::new(allocator, of, Shape::new(extents))?)
}

/// A copy of `tensor` in memory of `allocator`, which must be the CPU's.
pub(super) fn into_ort(allocator: &Allocator, tensor: &Tensor) -> Result<DynTensor> {
    let mut value = zeros(allocator, tensor)?;
    let bytes = tensor.bytes();
    ensure!(
        value.memory_info().is_cpu_accessible(),
        "feeds must be made in the CPU's memory"
    );
    ensure!(
        value.size() == Some(bytes.len()),
        "ONNX Runtime made a tensor of another size"
    );
    let to = value.data_ptr_mut().cast::<u8>();
    if bytes.is_empty() || to.is_null() {
        return Ok(value);
    }
    // SAFETY: the value was made just now, so nothing else refers to it; it holds as many bytes as `bytes`, in memory that the CPU can
    // write (both ensured above). Every bit pattern is a value of the numeric types, and booleans are made 0 or 1.
    let to = unsafe { std::slice::from_raw_parts_mut(to, bytes.len()) };
    if tensor.dtype() == DType::Bool {
        to.iter_mut()
            .zip(bytes.iter())
            .for_each(|(to, &byte)| *to = u8::from(byte != 0));
    } else {
        to.copy_from_slice(bytes);
    }
    Ok(value)
}

/// A copy of `value`, which must be in the CPU's memory.
pub(super) fn from_ort(value: &DynTensor) -> Result<Tensor> {
    let Some(dtype) = dtype(*value.data_type()) else {
        bail!("lsqc cannot read ONNX Runtime's type {}", value.data_type())
    };
    let shape = value
        .shape()
        .iter()
        .map(|&extent| usize::try_from(extent))
        .collect::<Result<Vec<usize>, _>>()?;
    ensure!(
        value.memory_info().is_cpu_accessible(),
        "the tensor is not in the CPU's memory"
    );
    let size = value.size().context("the tensor has no size")?;
    let from = value.data_ptr().cast::<u8>();
    let bytes = if size == 0 || from.is_null() {
        Bytes::new()
    } else {
        // SAFETY: the value holds `size` bytes in memory that the CPU can read (ensured above), and lives, unwritten, while it is borrowed.
        Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(from, size) })
    };
    Ok(Tensor::from_bytes(dtype, &shape, bytes)?)
}

/// A copy of `tensor` in memory of our own, which is where the runtime takes initializers from.
pub(super) fn initializer(tensor: &Tensor) -> Result<DynValue> {
    fn of<T: Element + PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
        tensor: &Tensor,
    ) -> Option<Result<DynValue>> {
        let values = tensor.values::<T>()?.into_owned();
        let value = OrtTensor::from_array((tensor.shape().to_vec(), values));
        Some(value.map(|value| value.into_dyn()).map_err(Into::into))
    }
    let made = of::<f32>(tensor).or_else(|| of::<i8>(tensor)).or_else(|| of::<u8>(tensor));
    let made = made.or_else(|| of::<f16>(tensor)).or_else(|| of::<bf16>(tensor));
    let made = made
        .or_else(|| of::<i32>(tensor))
        .or_else(|| of::<i64>(tensor))
        .or_else(|| of::<f64>(tensor));
    made.ok_or_else(|| anyhow!("constants of type {} have no place in a model over 2 GB", tensor.dtype()))?
}
