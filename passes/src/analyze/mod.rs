//! What is known of the values and ops of a graph.

mod fix_shapes;
mod fixed_transform;
mod halves;
mod infer_types;
mod patterns;
mod product;
mod sign;
mod stored_levels;
mod weighted;

pub use fix_shapes::{FIX_SHAPES, InputShapes};
pub use fixed_transform::fixed_transform;
pub use halves::{Halves, half_of, is_half};
pub use infer_types::{INFER_TYPES, Inferred, infer};
pub use patterns::{Pattern, patterns};
pub use product::product;
pub use sign::surely_non_negative;
pub use stored_levels::{is_cast_of_levels, is_quantizing_op, quantized_weight};
pub use weighted::{Fold, QUANTIZED_ALREADY, Weighted, fold_of, scale_slices, stored, weighted};
