//! The library from outside, and the pages that are rendered from it. In one binary: each has to be linked with all that lsqc is.

#[path = "../common/mod.rs"]
mod common;
#[path = "../engine_support/mod.rs"]
mod engine_support;
#[path = "../sample_support/mod.rs"]
mod sample_support;
#[path = "../step_support/mod.rs"]
mod step_support;

mod batch_statistics;
mod block_gradients;
mod block_proof;
mod check_rules;
mod conformance;
mod data_files;
mod engine_blocks;
mod engine_parity;
mod engine_steps;
mod gradients;
mod large_models;
mod layering;
mod losses;
mod networks;
mod op_table;
mod oscillations;
mod random_graphs;
