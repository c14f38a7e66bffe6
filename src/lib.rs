//! The tool `lsqc`: files, data, engines and the terminal around the compiler in `lsqc-passes`.

pub mod engine;
