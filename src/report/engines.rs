//! What `lsqc engines` says: which engines there are, where they were found, and what is missing.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::Tool;

part! {
    /// What `lsqc engines --json` prints.
    Engines {
        /// The version of this shape; 1.
        schema_version: u32,
        /// The program that looked.
        tool: Tool,
        /// What `--engine auto` takes; null where it would fail, because a library that was named cannot be used.
        auto: Option<String>,
        /// The engines, in the order of this page.
        engines: Vec<EngineEntry>,
        /// Where an ONNX Runtime library was looked for, in that order.
        looked_in: Vec<String>,
    }
}

part! {
    /// One engine.
    EngineEntry {
        /// The name that --engine takes.
        name: String,
        /// Whether it can be used.
        found: bool,
        /// The runtime and its version.
        version: Option<String>,
        /// The library; null for an engine that is embedded, or not found.
        path: Option<String>,
        /// Why this one, or why none.
        reason: String,
        /// The library's execution providers, in its own words and order.
        providers: Vec<String>,
        /// What is missing for it to be used.
        missing: Option<String>,
        /// What helps.
        cure: Option<String>,
        /// Other libraries that were found and are not used; a process opens only one, so nothing else is known of them.
        others: Vec<OtherLibrary>,
    }
}

part! {
    /// A library that was found and is not used.
    OtherLibrary {
        /// The file.
        path: String,
        /// How it was found.
        reason: String,
    }
}

impl Engines {
    /// As text for a terminal, with a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        super::written(|text| self.write(text))
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        for engine in &self.engines {
            let state = if engine.found {
                engine.version.as_deref().unwrap_or("found")
            } else {
                "not found"
            };
            writeln!(text, "{:<9} {state}", engine.name)?;
            let mut line = |label: &str, value: &str| writeln!(text, "          {label}: {value}");
            if let Some(path) = &engine.path {
                line("library", path)?;
            }
            line("why", &engine.reason)?;
            if !engine.providers.is_empty() {
                line("providers", &engine.providers.join(", "))?;
            }
            if let Some(missing) = &engine.missing {
                line("missing", missing)?;
            }
            if let Some(cure) = &engine.cure {
                line("cure", cure)?;
            }
            for other in &engine.others {
                line("also found, not used", &format!("{} ({})", other.path, other.reason))?;
            }
        }
        match &self.auto {
            Some(name) => writeln!(text, "--engine auto takes {name}"),
            None => writeln!(text, "--engine auto would fail: the library that was named cannot be used"),
        }
    }
}
