//! The tool `lsqc`: files, data, engines and the terminal around the compiler in `lsqc-passes`.

pub mod bench;
pub mod calibrate;
pub mod cli;
pub mod compiler;
pub mod config;
pub mod confirm;
pub mod data;
pub mod deploy;
pub mod engine;
pub mod failure;
pub mod fidelity;
pub mod inspect;
pub mod interrupt;
pub mod machine;
pub mod metric;
pub mod model_file;
pub mod npz;
pub mod output;
pub mod report;
pub mod run;
pub mod shapes;
pub mod summary;
pub mod terminal;
pub mod tune;
pub mod verify;
pub mod verify_blocks;
