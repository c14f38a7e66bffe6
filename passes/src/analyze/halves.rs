//! Values of two bytes: which parts of a network's border have them.

use crate::ir::{DType, Graph, ValueId};

/// The inputs and outputs of a network in half precision, and what its constants are stored in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    /// Inputs by name, and the type of each.
    pub inputs: Vec<(String, DType)>,
    /// Outputs by name, and the type of each.
    pub outputs: Vec<(String, DType)>,
    /// The type that constants have.
    pub stored: Option<DType>,
}

impl Halves {
    /// Those of `graph`; `None` where nothing in it is of such a type.
    #[must_use]
    pub fn of(graph: &Graph) -> Option<Halves> {
        let named = |values: &[ValueId]| -> Vec<(String, DType)> {
            let half = |&value: &ValueId| Some((graph[value].name().to_owned(), half_of(graph, value)?));
            values.iter().filter_map(half).collect()
        };
        let any = graph.values().find_map(|(value, _)| half_of(graph, value));
        let constants = graph.initializers().iter().find_map(|&value| {
            graph[value]
                .initial()
                .map(crate::ir::Tensor::dtype)
                .filter(|dtype| is_half(*dtype))
        });
        let fed = |input: &ValueId| graph[*input].initial().is_none();
        let inputs: Vec<ValueId> = graph.inputs().iter().copied().filter(fed).collect();
        any.or(constants).map(|_| Halves {
            inputs: named(&inputs),
            outputs: named(graph.outputs()),
            stored: constants,
        })
    }
}

/// float16 or bfloat16?
#[must_use]
pub fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// The type of a value, if it is one of those.
#[must_use]
pub fn half_of(graph: &Graph, value: ValueId) -> Option<DType> {
    let constant = graph[value].initial().map(crate::ir::Tensor::dtype);
    let known = constant.or_else(|| graph[value].ty.as_ref().map(|ty| ty.dtype));
    known.filter(|dtype| is_half(*dtype))
}
