//! Constant tensors: an element type, a shape and shared bytes.
//!
//! Bytes are little-endian and row-major, as ONNX's `raw_data`; they may be a slice of a file's memory map and are then unaligned, so
//! readers go through [`Tensor::values`], which copies only where it must. Cloning a tensor shares its bytes.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};

use super::dtype::{DType, Element};

/// Why bytes and shape do not make a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape's element count overflows.
    #[error("shape {0:?} has more elements than fit in memory")]
    TooLarge(Vec<usize>),
    /// The bytes do not match the shape.
    #[error("shape {shape:?} of {dtype} needs {needed} bytes, but there are {found}")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// The element type.
        dtype: DType,
        /// Bytes that the shape needs.
        needed: usize,
        /// Bytes that are there.
        found: usize,
    },
}

/// A constant tensor; cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Clone, PartialEq)]
enum Storage {
    Packed(Bytes),
    Strings(Arc<[Bytes]>),
}

impl Tensor {
    /// A tensor of `values` in row-major order.
    ///
    /// # Panics
    /// If `values` has not as many elements as `shape` says: the caller made both.
    #[must_use]
    pub fn new<T: Element>(shape: &[usize], values: Vec<T>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        let bytes = Bytes::from_owner(Owned(values));
        Tensor {
            dtype: T::DTYPE,
            shape: shape.to_vec(),
            storage: Storage::Packed(bytes),
        }
    }

    /// A tensor of rank 0.
    #[must_use]
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::new(&[], vec![value])
    }

    /// A tensor of rank 1.
    #[must_use]
    pub fn vector<T: Element>(values: Vec<T>) -> Tensor {
        Tensor::new(&[values.len()], values)
    }

    /// A tensor with every element equal.
    #[must_use]
    pub fn full<T: Element>(shape: &[usize], value: T) -> Tensor {
        Tensor::new(shape, vec![value; shape.iter().product()])
    }

    /// A tensor over bytes that came from outside: little-endian, row-major, sub-byte types packed low bits first.
    ///
    /// # Errors
    /// If the shape overflows or does not match the bytes.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Tensor, TensorError> {
        let needed = element_count(shape)
            .and_then(|count| dtype.byte_len(count))
            .ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        if needed != bytes.len() {
            return Err(TensorError::Length {
                shape: shape.to_vec(),
                dtype,
                needed,
                found: bytes.len(),
            });
        }
        Ok(Tensor {
            dtype,
            shape: shape.to_vec(),
            storage: Storage::Packed(bytes),
        })
    }

    /// A tensor of strings.
    ///
    /// # Errors
    /// If the shape does not match their number.
    pub fn from_strings(shape: &[usize], strings: Vec<Bytes>) -> Result<Tensor, TensorError> {
        let needed = element_count(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        if needed != strings.len() {
            return Err(TensorError::Length {
                shape: shape.to_vec(),
                dtype: DType::String,
                needed,
                found: strings.len(),
            });
        }
        Ok(Tensor {
            dtype: DType::String,
            shape: shape.to_vec(),
            storage: Storage::Strings(strings.into()),
        })
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Is there no element?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; empty for strings.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        match &self.storage {
            Storage::Packed(bytes) => bytes,
            Storage::Strings(_) => &NONE,
        }
    }

    /// The strings; empty for every other type.
    #[must_use]
    pub fn strings(&self) -> &[Bytes] {
        match &self.storage {
            Storage::Packed(_) => &[],
            Storage::Strings(strings) => strings,
        }
    }

    /// The elements, if they are of type `T`; borrowed where the bytes are aligned.
    #[must_use]
    pub fn values<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        (self.dtype == T::DTYPE).then(|| cast(self.bytes()))
    }

    /// The elements as doubles, whatever numeric or boolean type they have; `None` for strings, complex and the rarer floats.
    #[must_use]
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        fn each<T: Element>(bytes: &[u8], f: impl Fn(T) -> f64) -> Vec<f64> {
            cast::<T>(bytes).iter().map(|&value| f(value)).collect()
        }
        let bytes = self.bytes();
        Some(match self.dtype {
            DType::F32 => each::<f32>(bytes, f64::from),
            DType::F64 => each::<f64>(bytes, |v| v),
            DType::F16 => each::<f16>(bytes, f64::from),
            DType::BF16 => each::<bf16>(bytes, f64::from),
            #[allow(clippy::cast_precision_loss)]
            DType::I64 => each::<i64>(bytes, |v| v as f64),
            #[allow(clippy::cast_precision_loss)]
            DType::U64 => each::<u64>(bytes, |v| v as f64),
            DType::I32 => each::<i32>(bytes, f64::from),
            DType::U32 => each::<u32>(bytes, f64::from),
            DType::I16 => each::<i16>(bytes, f64::from),
            DType::U16 => each::<u16>(bytes, f64::from),
            DType::I8 => each::<i8>(bytes, f64::from),
            DType::U8 | DType::Bool => each::<u8>(bytes, f64::from),
            _ => return None,
        })
    }

    /// The elements as singles, by [`Tensor::to_f64`].
    #[must_use]
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        if let Some(values) = self.values::<f32>() {
            return Some(values.into_owned());
        }
        #[allow(clippy::cast_possible_truncation)]
        self.to_f64().map(|values| values.into_iter().map(|v| v as f32).collect())
    }

    /// A tensor of these numbers in float, double, float16 or bfloat16, rounded to nearest; `None` for other types.
    #[must_use]
    pub fn of_floats(dtype: DType, shape: &[usize], values: Vec<f32>) -> Option<Tensor> {
        fn each<T: Element>(shape: &[usize], values: &[f32], f: impl Fn(f32) -> T) -> Tensor {
            Tensor::new(shape, values.iter().map(|&value| f(value)).collect())
        }
        Some(match dtype {
            DType::F32 => Tensor::new(shape, values),
            DType::F64 => each(shape, &values, f64::from),
            DType::F16 => each(shape, &values, f16::from_f32),
            DType::BF16 => each(shape, &values, bf16::from_f32),
            _ => return None,
        })
    }

    /// The elements as 64-bit integers; `None` unless the type is an integer or boolean.
    #[must_use]
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let bytes = self.bytes();
        Some(match self.dtype {
            DType::I64 => cast::<i64>(bytes).into_owned(),
            DType::I32 => cast::<i32>(bytes).iter().map(|&v| v.into()).collect(),
            DType::I16 => cast::<i16>(bytes).iter().map(|&v| v.into()).collect(),
            DType::I8 => cast::<i8>(bytes).iter().map(|&v| v.into()).collect(),
            DType::U32 => cast::<u32>(bytes).iter().map(|&v| v.into()).collect(),
            DType::U16 => cast::<u16>(bytes).iter().map(|&v| v.into()).collect(),
            DType::U8 | DType::Bool => bytes.iter().map(|&v| v.into()).collect(),
            DType::U64 => cast::<u64>(bytes)
                .iter()
                .map(|&v| i64::try_from(v).ok())
                .collect::<Option<_>>()?,
            _ => return None,
        })
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// If the element counts differ.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor, TensorError> {
        match &self.storage {
            Storage::Packed(bytes) => Tensor::from_bytes(self.dtype, shape, bytes.clone()),
            Storage::Strings(strings) => Tensor::from_strings(shape, strings.to_vec()),
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if let Some(values) = self.to_f64() {
            let more = if values.len() > SHOWN { ", …" } else { "" };
            let shown: Vec<String> = values.iter().take(SHOWN).map(f64::to_string).collect();
            write!(f, " {{{}{more}}}", shown.join(", "))?;
        }
        Ok(())
    }
}

fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
}

fn cast<T: Element>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(slice) => Cow::Borrowed(slice),
        Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()),
    }
}

/// A vector seen as bytes, so that `Bytes` can own it without a copy.
struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
