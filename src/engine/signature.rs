//! What a model's inputs and outputs are called and look like, and whether tensors fit them. Shared by the engines, so that a wrong
//! feed meets the same error on each.

use std::collections::BTreeMap;

use lsqc_passes::ir::{DType, Tensor};

use super::{EngineError, StateBinding, Tensors};

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, where the model says it.
    pub dtype: Option<DType>,
    /// Its extents, `None` where they are symbolic; `None` as a whole if even the rank is open.
    pub dims: Option<Vec<Option<usize>>>,
}

/// A model's inputs (without initialisers) and outputs in the model's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The inputs.
    pub inputs: Vec<Port>,
    /// The outputs.
    pub outputs: Vec<Port>,
}

/// State bindings as positions in a [`Signature`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateMap {
    /// For each binding the positions of the input and of the output.
    pub pairs: Vec<(usize, usize)>,
    /// Inputs that are feeds of a step.
    pub fed: Vec<usize>,
    /// Outputs that are results of a step.
    pub given: Vec<usize>,
}

impl Port {
    /// Does `tensor` fit?
    ///
    /// # Errors
    /// If the type, the rank or a fixed extent differs.
    pub fn check(&self, tensor: &Tensor) -> Result<(), EngineError> {
        let wrong_type = self.dtype.is_some_and(|dtype| dtype != tensor.dtype());
        let wrong_shape = self.dims.as_ref().is_some_and(|dims| {
            dims.len() != tensor.shape().len()
                || dims
                    .iter()
                    .zip(tensor.shape())
                    .any(|(wanted, &found)| wanted.is_some_and(|wanted| wanted != found))
        });
        if wrong_type || wrong_shape {
            let found = format!("{}{:?}", tensor.dtype(), tensor.shape());
            return Err(EngineError::Feed(format!(
                "the input `{}` is {}, but was fed {found}",
                self.name,
                self.describe()
            )));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let dtype = self.dtype.map_or("tensor", DType::name);
        let Some(dims) = &self.dims else { return dtype.to_string() };
        let dims: Vec<String> = dims
            .iter()
            .map(|dim| dim.map_or("?".to_string(), |dim| dim.to_string()))
            .collect();
        format!("{dtype}[{}]", dims.join(", "))
    }
}

impl Signature {
    /// The feeds for the inputs at `positions`, in that order.
    ///
    /// # Errors
    /// If one is missing, does not fit, or is not an input of the model.
    pub fn take<'t>(&self, positions: &[usize], feeds: &'t Tensors) -> Result<Vec<&'t Tensor>, EngineError> {
        let ports: Vec<&Port> = positions.iter().filter_map(|&at| self.inputs.get(at)).collect();
        if let Some(extra) = feeds.keys().find(|name| !ports.iter().any(|port| port.name == **name)) {
            let state = self.inputs.iter().any(|port| port.name == *extra);
            let what = if state {
                "is state, which a step does not take as a feed"
            } else {
                "is not an input of the model"
            };
            return Err(EngineError::Feed(format!("`{extra}` was fed, but it {what}")));
        }
        self.pick(&ports, feeds)
    }

    /// The tensors of `state` for the bindings of `map`, in that order; other tensors are ignored.
    ///
    /// # Errors
    /// If one is missing or does not fit.
    pub fn take_state<'t>(&self, map: &StateMap, state: &'t Tensors) -> Result<Vec<&'t Tensor>, EngineError> {
        let ports: Vec<&Port> = map.pairs.iter().filter_map(|&(input, _)| self.inputs.get(input)).collect();
        self.pick(&ports, state)
    }

    fn pick<'t>(&self, ports: &[&Port], tensors: &'t Tensors) -> Result<Vec<&'t Tensor>, EngineError> {
        ports
            .iter()
            .map(|port| {
                let tensor = tensors
                    .get(&port.name)
                    .ok_or_else(|| EngineError::Feed(format!("the input `{}` ({}) was not fed", port.name, port.describe())))?;
                port.check(tensor)?;
                Ok(tensor)
            })
            .collect()
    }

    /// Finds the bindings' inputs and outputs.
    ///
    /// # Errors
    /// If a name is not in the model, is bound twice, or the two types differ.
    pub fn bind(&self, state: &[StateBinding]) -> Result<StateMap, EngineError> {
        let inputs = positions(&self.inputs);
        let outputs = positions(&self.outputs);
        let mut map = StateMap::default();
        for StateBinding { current, next } in state {
            let fail = |what: String| {
                Err(EngineError::Feed(format!(
                    "state cannot go from `{next}` to `{current}`: {what}"
                )))
            };
            let Some(&(input, from)) = inputs.get(current.as_str()) else {
                return fail("the model has no such input".into());
            };
            let Some(&(output, to)) = outputs.get(next.as_str()) else {
                return fail("the model has no such output".into());
            };
            if map.pairs.iter().any(|&(i, o)| i == input || o == output) {
                return fail("one of them is bound already".into());
            }
            if let (Some(a), Some(b)) = (from.dtype, to.dtype)
                && a != b
            {
                return fail(format!("the input is {a}, the output {b}"));
            }
            map.pairs.push((input, output));
        }
        map.fed = (0..self.inputs.len())
            .filter(|at| !map.pairs.iter().any(|(input, _)| input == at))
            .collect();
        map.given = (0..self.outputs.len())
            .filter(|at| !map.pairs.iter().any(|(_, output)| output == at))
            .collect();
        Ok(map)
    }
}

/// State was never set.
#[must_use]
pub fn no_state() -> EngineError {
    EngineError::Feed("the session has no state yet: set it before the first step".to_string())
}

fn positions(ports: &[Port]) -> BTreeMap<&str, (usize, &Port)> {
    ports
        .iter()
        .enumerate()
        .map(|(at, port)| (port.name.as_str(), (at, port)))
        .collect()
}
