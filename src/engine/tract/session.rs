//! A model in tract, with a plan per set of input shapes, and the state of a step.

use anyhow::{Context, Result};
use lsqc_passes::ir::Tensor;
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::{DatumType, InferenceFact, InferenceModel, InferenceModelExt, TValue, TVec};
use tract_onnx::tract_hir::internal::{RunOptions, TDim, ToDim, TypedSimplePlan, TypedSimpleState};

use super::NAME;
use super::convert::{datum, from_tract, into_tract};
use crate::engine::guard::quietly;
use crate::engine::signature::{Signature, StateMap, no_state};
use crate::engine::{EngineError, Session, Tensors};

/// Plans kept at a time: training, the last short batch, and evaluation seldom need more.
const PLANS_KEPT: usize = 4;

pub(super) struct TractSession {
    graph: InferenceModel,
    signature: Signature,
    map: StateMap,
    executor: Executor,
    /// Most recently used last.
    plans: Vec<Plan>,
    /// In the order of the bindings.
    state: Option<Vec<TValue>>,
}

struct Plan {
    shapes: Vec<Vec<usize>>,
    run: TypedSimpleState,
}

impl TractSession {
    pub(super) fn new(graph: InferenceModel, signature: Signature, map: StateMap, executor: Executor) -> TractSession {
        TractSession {
            graph,
            signature,
            map,
            executor,
            plans: Vec::new(),
            state: None,
        }
    }

    /// Makes the plan at once if all shapes are known, so that tract refuses the model when it is loaded.
    pub(super) fn prepare_if_static(&mut self) -> Result<()> {
        let known = |port: &crate::engine::signature::Port| port.dims.clone()?.into_iter().collect::<Option<Vec<usize>>>();
        if let Some(shapes) = self.signature.inputs.iter().map(known).collect::<Option<Vec<Vec<usize>>>>() {
            let plan = self.plan(shapes)?;
            self.plans.push(plan);
        }
        Ok(())
    }

    fn plan(&self, shapes: Vec<Vec<usize>>) -> Result<Plan> {
        let mut graph = self.graph.clone();
        for (at, (port, shape)) in self.signature.inputs.iter().zip(&shapes).enumerate() {
            let datum: DatumType = port
                .dtype
                .and_then(datum)
                .with_context(|| format!("the input `{}` has a type that tract lacks", port.name))?;
            let dims: TVec<TDim> = shape.iter().map(|extent| extent.to_dim()).collect();
            graph.set_input_fact(at, InferenceFact::dt_shape(datum, dims))?;
        }
        let options = RunOptions {
            executor: Some(self.executor.clone()),
            ..RunOptions::default()
        };
        let run = TypedSimplePlan::new_with_options(graph.into_optimized()?, &options)?.spawn()?;
        Ok(Plan { shapes, run })
    }

    /// All outputs for all inputs, both in the model's order.
    fn evaluate(&mut self, inputs: TVec<TValue>) -> Result<Vec<TValue>> {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|value| value.shape().to_vec()).collect();
        let kept = self
            .plans
            .iter()
            .position(|plan| plan.shapes == shapes)
            .map(|at| self.plans.remove(at));
        let executor = self.executor.clone();
        // The plan is out of the list while it runs: one that failed half-way is not used again.
        let outcome = multithread_tract_scope(executor, || {
            quietly(|| {
                let mut plan = match kept {
                    Some(plan) => plan,
                    None => self.plan(shapes)?,
                };
                let outputs = plan.run.run(inputs)?;
                Ok((plan, outputs))
            })
        });
        let failed = |cause: String| EngineError::Failed { engine: NAME, cause };
        let (plan, outputs) = outcome
            .map_err(failed)?
            .map_err(|error: anyhow::Error| failed(format!("{error:#}")))?;
        if self.plans.len() >= PLANS_KEPT {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        Ok(outputs.into_vec())
    }

    fn read(&self, position: usize, value: TValue) -> Result<Option<(String, Tensor)>> {
        let Some(port) = self.signature.outputs.get(position) else {
            return Ok(None);
        };
        let read = || from_tract(value, port.dtype).with_context(|| format!("reading the output `{}`", port.name));
        let tensor = quietly(read).and_then(|read| read.map_err(|error| format!("{error:#}")));
        match tensor {
            Ok(tensor) => Ok(Some((port.name.clone(), tensor))),
            Err(cause) => Err(EngineError::Failed { engine: NAME, cause }.into()),
        }
    }
}

impl Session for TractSession {
    fn run(&mut self, feeds: &Tensors) -> Result<Tensors> {
        let all: Vec<usize> = (0..self.signature.inputs.len()).collect();
        let inputs = self
            .signature
            .take(&all, feeds)?
            .into_iter()
            .map(feed)
            .collect::<Result<TVec<TValue>>>()?;
        let outputs = self.evaluate(inputs)?;
        outputs
            .into_iter()
            .enumerate()
            .filter_map(|(at, value)| self.read(at, value).transpose())
            .collect()
    }

    fn step(&mut self, feeds: &Tensors) -> Result<Tensors> {
        let state = self.state.clone().ok_or_else(no_state)?;
        let fed = self
            .signature
            .take(&self.map.fed, feeds)?
            .into_iter()
            .map(feed)
            .collect::<Result<Vec<TValue>>>()?;
        let mut slots: Vec<Option<TValue>> = vec![None; self.signature.inputs.len()];
        let bound = self.map.pairs.iter().map(|&(input, _)| input).zip(state);
        for (at, value) in bound.chain(self.map.fed.iter().copied().zip(fed)) {
            if let Some(slot) = slots.get_mut(at) {
                *slot = Some(value);
            }
        }
        let inputs = slots
            .into_iter()
            .collect::<Option<TVec<TValue>>>()
            .context("an input is neither state nor fed")?;
        let outputs = self.evaluate(inputs)?;
        let next = self.map.pairs.iter().map(|&(_, output)| outputs.get(output).cloned());
        let next = next
            .collect::<Option<Vec<TValue>>>()
            .context("tract returned too few outputs")?;
        let given: Vec<(usize, TValue)> = self
            .map
            .given
            .iter()
            .filter_map(|&at| outputs.get(at).map(|value| (at, value.clone())))
            .collect();
        self.state = Some(next);
        given
            .into_iter()
            .filter_map(|(at, value)| self.read(at, value).transpose())
            .collect()
    }

    fn state(&self) -> Result<Tensors> {
        let state = self.state.as_ref().ok_or_else(no_state)?;
        let named = self.map.pairs.iter().zip(state).filter_map(|(&(input, _), value)| {
            let port = self.signature.inputs.get(input)?;
            Some(from_tract(value.clone(), port.dtype).map(|tensor| (port.name.clone(), tensor)))
        });
        named.collect()
    }

    fn set_state(&mut self, state: &Tensors) -> Result<()> {
        let tensors = self.signature.take_state(&self.map, state)?;
        self.state = Some(tensors.into_iter().map(feed).collect::<Result<_>>()?);
        Ok(())
    }
}

fn feed(tensor: &Tensor) -> Result<TValue> {
    into_tract(tensor).map_err(|error| EngineError::Feed(format!("{error:#}")).into())
}
