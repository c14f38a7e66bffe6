//! Models as text: a subset of ONNX's textual syntax, with a few words more.
//!
//! ```text
//! <ir_version: 8, opset_import: ["" : 17]>
//! net (float[N,1,28,28] image) => (float[N,10] logits)
//! <float[8,1,3,3] w = normal(seed = 1, scale = 0.1), float[8] b = {0.5, -1.0, 0, 0, 0, 0, 0, 1e-3}, float[N,8,26,26] t1>
//! {
//!   [conv1] t1 = Conv <strides = [1, 1]> (image, w, b)
//!   logits = some.domain.Head (t1)
//! }
//! ```
//!
//! The list after the outputs has constants and types of inner values (`value_info`); an input may have a default (`float x = {1}`). A
//! name that is no identifier, or is a word of the syntax, is quoted; the empty name `""` stands for an operand or result that is left
//! out. `#` begins a comment. Attributes may stand before or after the operands, with (`axis: int = 1`) or without their type; an empty
//! list needs it. Without a header, a text is of IR version 8 and opset 17. Functions of the model
//! stand behind its graph:
//!
//! ```text
//! <domain: "local", opset_import: ["" : 17]>
//! leaky <slope, shift: float = 0.5> (x) => (y)
//! {
//!   t = LeakyRelu <alpha: float = @slope> (x)
//!   y = other.domain.Shift:overload <by: float = @shift> (t)
//! }
//! ```
//!
//! Beyond ONNX's syntax: `= normal(seed = 1, scale = 0.1)` and `= fill(0.5)` for the elements of a constant; `\xHH` for a byte in a
//! quoted string that is no printable UTF-8; `nan(0x7fc00001)` for a NaN of these bits; floats of 8 bits and less as their codes in
//! hexadecimal; `"domain"."op"` where a domain or op is no identifier; values without a type.
//!
//! Every element is printed so that parsing gives the same bits. Not in the text: remainders (what else a file says), roles, origins,
//! how a tensor is spelled in a file, and the place of an input's default among the constants. Parsing refuses, with line and column:
//! names that nothing defines (so nodes stand in order), types other than tensors, opaque attributes and elided elements.

mod elements;
mod generate;
mod lex;
mod parse;
mod print;

pub use lex::ParseError;
pub use parse::{parse, parse_graph};
pub use print::{InnerTypes, PrintOptions, print, print_graph, print_node};
