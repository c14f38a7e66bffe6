//! A model: a graph, the opsets that give its ops their meaning, and what else the file says.

use super::attributes::Remainder;
use super::function::Function;
use super::graph::Graph;

/// One imported operator set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpsetImport {
    /// The domain; empty or `ai.onnx` is the default one.
    pub domain: String,
    /// The version.
    pub version: i64,
    /// What else the message says.
    pub remainder: Remainder,
}

/// A whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The version of the file format.
    pub ir_version: i64,
    /// The operator sets, in the source's order.
    pub opset_imports: Vec<OpsetImport>,
    /// Key and value of each metadata entry, in order.
    pub metadata: Vec<(String, String)>,
    /// The main graph.
    pub graph: Graph,
    /// The model's own functions, in the source's order.
    pub functions: Vec<Function>,
    /// Producer, training information, … encoded.
    pub remainder: Remainder,
}

impl Model {
    /// The version of the default operator set; 1 where none is imported, as ONNX says.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.opset_imports
            .iter()
            .find(|import| is_default(&import.domain))
            .map_or(1, |import| import.version)
    }

    /// Imports `version` of `domain`, in place of whatever version was imported.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        let same = |import: &OpsetImport| import.domain == domain || (is_default(domain) && is_default(&import.domain));
        match self.opset_imports.iter_mut().find(|import| same(import)) {
            Some(import) => import.version = version,
            None => self.opset_imports.push(OpsetImport {
                domain: domain.to_owned(),
                version,
                remainder: Remainder::new(),
            }),
        }
    }

    /// Sets a metadata entry, in place of the one of the same key.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        match self.metadata.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.metadata.push((key.to_owned(), value.to_owned())),
        }
    }
}

fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}
