//! The functions of a model by the names that calls have for them, and which of them cannot be inlined wherever they are called.

use std::collections::{HashMap, HashSet};

use crate::ir::{Function, Graph, Model, Node, Op};
use crate::simplify::every_node;

/// Domain, name and overload.
type Key<'a> = (&'a str, &'a str, &'a str);

fn plain(op: &Op) -> &str {
    if op.in_default_domain() { "" } else { &op.domain }
}

fn call_key(node: &Node) -> Key<'_> {
    (plain(&node.op), &node.op.name, &node.overload)
}

fn key(function: &Function) -> Key<'_> {
    let domain = if function.domain == "ai.onnx" {
        ""
    } else {
        function.domain.as_str()
    };
    (domain, &function.name, &function.overload)
}

pub(super) struct Library<'a> {
    functions: &'a [Function],
    by_key: HashMap<Key<'a>, usize>,
    /// Of each function: why no call of it is inlined.
    refused: Vec<Option<String>>,
    /// The operator sets of the model.
    versions: HashMap<String, i64>,
}

impl<'a> Library<'a> {
    pub(super) fn new(functions: &'a [Function], model: &Model) -> Library<'a> {
        let mut by_key = HashMap::new();
        let mut refused: Vec<Option<String>> = Vec::with_capacity(functions.len());
        let mut twice = Vec::new();
        for (index, function) in functions.iter().enumerate() {
            refused.push(
                function
                    .body
                    .as_ref()
                    .err()
                    .map(|why| format!("its body cannot be read: {why}")),
            );
            if let Some(first) = by_key.insert(key(function), index) {
                twice.extend([first, index]);
            }
        }
        for index in twice {
            refused[index] = Some("the model has two functions of this name".to_owned());
        }
        let mut library = Library {
            functions,
            by_key,
            refused,
            versions: HashMap::new(),
        };
        for import in &model.opset_imports {
            let domain = if import.domain == "ai.onnx" {
                ""
            } else {
                import.domain.as_str()
            };
            library.versions.insert(domain.to_owned(), import.version);
        }
        library.refuse_recursion();
        library
    }

    /// The function that `node` calls, if it calls one, or why the call stays.
    pub(super) fn find(&self, node: &Node) -> Option<Result<&'a Function, String>> {
        let index = *self.by_key.get(&call_key(node))?;
        let refused = self.refused.get(index).cloned().flatten();
        Some(match (refused, self.functions.get(index)) {
            (None, Some(function)) => Ok(function),
            (why, _) => Err(why.unwrap_or_default()),
        })
    }

    /// The model's version of a domain.
    pub(super) fn version(&self, domain: &str) -> Option<i64> {
        self.versions.get(domain).copied()
    }

    /// Takes up a domain that the model does not import yet.
    pub(super) fn import(&mut self, domain: &str, version: i64) {
        self.versions.insert(domain.to_owned(), version);
    }

    /// Functions that reach themselves are refused, and those that call them. The others are found from the ones that call none upwards.
    fn refuse_recursion(&mut self) {
        let mut callers: Vec<Vec<usize>> = vec![Vec::new(); self.functions.len()];
        let mut open = vec![0usize; self.functions.len()];
        for (index, function) in self.functions.iter().enumerate() {
            for callee in self.callees(function) {
                callers[callee].push(index);
                open[index] += 1;
            }
        }
        let mut ready: Vec<usize> = (0..open.len()).filter(|&index| open[index] == 0).collect();
        while let Some(index) = ready.pop() {
            for &caller in &callers[index] {
                open[caller] -= 1;
                if open[caller] == 0 {
                    ready.push(caller);
                }
            }
        }
        for (refused, open) in self.refused.iter_mut().zip(open) {
            if open > 0 {
                *refused = Some("it calls itself, or a function that does".to_owned());
            }
        }
    }

    fn callees(&self, function: &Function) -> HashSet<usize> {
        let mut callees = HashSet::new();
        if let Ok(body) = &function.body {
            every_node(body, &mut |node| callees.extend(self.by_key.get(&call_key(node))));
        }
        callees
    }

    /// Of each function: do nodes of `graph` call it, directly or through others? Where a body cannot be read, all may be called.
    pub(super) fn called(&self, graph: &Graph) -> Vec<bool> {
        let mut called = vec![false; self.functions.len()];
        let mut reached = HashSet::new();
        every_node(graph, &mut |node| reached.extend(self.by_key.get(&call_key(node))));
        let mut pending: Vec<usize> = reached.into_iter().collect();
        while let Some(index) = pending.pop() {
            let Some(function) = self.functions.get(index) else { continue };
            if std::mem::replace(&mut called[index], true) {
                continue;
            }
            if function.body.is_err() {
                return vec![true; self.functions.len()];
            }
            pending.extend(self.callees(function));
        }
        // Of two of one name both are kept.
        for (index, function) in self.functions.iter().enumerate() {
            called[index] |= self.by_key.get(&key(function)).is_some_and(|&last| called[last]);
        }
        called
    }
}
