//! The program, as its users call it. In one binary: each has to be linked with all that lsqc is.

#[path = "../common/mod.rs"]
mod common;

mod check;
mod commands;
mod images;
mod inputs;
mod inspect;
mod outputs;
mod refusals;
mod refused_files;
mod training;
mod weight_only;
