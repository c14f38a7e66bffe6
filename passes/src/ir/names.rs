//! The names under which values are written.
//!
//! A graph's own values are written under their names. A captured value is written under the name that its graph gives it, which may
//! have changed since the subgraph was read; a value of the subgraph that would then hide it gets a fresh name.

use std::collections::{HashMap, HashSet};

use super::graph::Graph;
use super::value::{Def, ValueId};

/// What values of one graph are called when it is written.
#[derive(Clone, Debug, Default)]
pub struct Names {
    changed: HashMap<ValueId, String>,
}

impl Names {
    /// The names of a graph that is in no other.
    #[must_use]
    pub fn outermost() -> Names {
        Names::default()
    }

    /// The names of `inner`, a subgraph of a node of `outer`, whose values are called `self`.
    #[must_use]
    pub fn inside(&self, outer: &Graph, inner: &Graph) -> Names {
        let mut changed = HashMap::new();
        let mut captured = HashSet::new();
        for (id, value) in inner.values() {
            if let Def::Captured(source) = *value.def()
                && outer.contains_value(source)
            {
                let name = self.get(outer, source);
                captured.insert(name);
                if name != value.name() {
                    changed.insert(id, name.to_owned());
                }
            }
        }
        if !changed.is_empty() {
            let mut taken = HashSet::new();
            for (id, value) in inner.values() {
                if !matches!(value.def(), Def::Captured(_)) && captured.contains(value.name()) {
                    let fresh = (1u32..)
                        .map(|n| format!("{}_{n}", value.name()))
                        .find(|name| !captured.contains(name.as_str()) && !taken.contains(name) && inner.find(name).is_none());
                    let Some(fresh) = fresh else { continue };
                    taken.insert(fresh.clone());
                    changed.insert(id, fresh);
                }
            }
        }
        Names { changed }
    }

    /// What `value` of `graph` is called.
    #[must_use]
    pub fn get<'a>(&'a self, graph: &'a Graph, value: ValueId) -> &'a str {
        self.changed.get(&value).map_or_else(|| graph[value].name(), String::as_str)
    }
}
