//! The intermediate representation: graphs of nodes and values.
//!
//! It is lossless: an op is a domain and a name, so ops that lsqc never heard of pass through, and whatever else a file says travels along
//! as an encoded [`Remainder`]. The IR knows nothing of files, of text, or of what any op means.

mod attributes;
mod dtype;
mod function;
mod graph;
mod model;
mod names;
mod node;
mod scopes;
mod tensor;
mod types;
mod value;
mod verify;

pub use attributes::{Attr, Attribute, Form, Literal, Remainder};
pub use dtype::{DType, Element};
pub use function::Function;
pub use graph::{DuplicateName, Graph};
pub use model::{Model, OpsetImport};
pub use names::Names;
pub use node::{LSQC_DOMAIN, Node, NodeId, Op, Origin};
pub use scopes::Scopes;
pub use tensor::{Tensor, TensorError};
pub use types::{Dim, TensorType};
pub use value::{Def, Oscillation, Role, Use, Value, ValueId};
pub use verify::{VerifyError, verify};
