//! What is known of a value: element type and shape, dimension by dimension.

use super::dtype::DType;

/// One extent of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A name that stands for the same number everywhere in the model.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The number, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(extent) => Some(*extent),
            Dim::Symbol(_) | Dim::Unknown => None,
        }
    }

    /// Are the two surely equal?
    #[must_use]
    pub fn same_as(&self, other: &Dim) -> bool {
        *self != Dim::Unknown && self == other
    }
}

impl From<usize> for Dim {
    fn from(extent: usize) -> Dim {
        Dim::Known(extent)
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Known(extent) => write!(f, "{extent}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// The type of a tensor value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The extents, outermost first; `None` where even the rank is unknown.
    pub shape: Option<Vec<Dim>>,
}

impl TensorType {
    /// A type with this shape.
    #[must_use]
    pub fn new(dtype: DType, shape: Vec<Dim>) -> TensorType {
        TensorType {
            dtype,
            shape: Some(shape),
        }
    }

    /// A type with all extents known.
    #[must_use]
    pub fn fixed(dtype: DType, shape: &[usize]) -> TensorType {
        TensorType::new(dtype, shape.iter().map(|&extent| Dim::Known(extent)).collect())
    }

    /// A type of unknown rank.
    #[must_use]
    pub fn unranked(dtype: DType) -> TensorType {
        TensorType { dtype, shape: None }
    }

    /// The number of axes, if known.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The extents, if every one is a number.
    #[must_use]
    pub fn known_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.dtype)?;
        match &self.shape {
            None => f.write_str("[]"),
            Some(shape) if shape.is_empty() => Ok(()),
            Some(shape) => {
                let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(","))
            }
        }
    }
}
