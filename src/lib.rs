//! The tool `lsqc`: files, data, engines and the terminal around the compiler in `lsqc-passes`.

//pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
pub mod failure;
pub mod interrupt;
pub mod output;
//pub mod report;
pub mod terminal;
