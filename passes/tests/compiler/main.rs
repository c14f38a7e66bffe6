//! The compiler: files, text, and every pass with its refusals.

mod blocked;
mod check;
mod check_cases;
mod check_right;
mod common;
mod expand_fused;
mod fixed_transforms;
mod flip_gammas;
mod halves;
mod inline_functions;
mod inputs;
mod lower;
mod lower_qdq;
mod name_pools;
mod onnx_errors;
mod onnx_roundtrip;
mod onnx_samples;
mod onnx_text_random;
mod op_gradients;
mod op_types;
mod quantize;
mod simplify;
mod targets;
mod text_print_parse;
mod train;
mod weight_only;
