//! A model in ONNX Runtime, and the state of a step in two sets of buffers that swap, in the memory of the session's device.
//!
//! Step k reads set k mod 2 and writes the other. An output is never bound onto its own input: the runtime may read a state input again
//! after the output that replaces it was written (its Q/DQ pass duplicates nodes). Feeds go from the CPU's memory to the device, results
//! that are not state come back; state does so only where it is set and asked for.

use anyhow::{Context, Result, anyhow};
use lsqc_passes::ir::Tensor;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, SessionInputValue, SessionOutputs};
use ort::value::{DynTensor, DynTensorValueType};

use super::Device;
use super::convert::{from_ort, into_ort, zeros};
use super::cuda;
use crate::engine::guard::quietly;
use crate::engine::signature::{Signature, StateMap, no_state};
use crate::engine::{EngineError, Session, Tensors};

/// A model in ONNX Runtime.
pub struct OrtSession {
    /// Before the session, which its buffers outlive otherwise.
    state: Option<State>,
    session: ort::session::Session,
    signature: Signature,
    map: StateMap,
    memory: Memory,
    /// The engine's name.
    engine: &'static str,
}

/// Where one tensor of the present state lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePlace {
    /// The input that it is the value of.
    pub name: String,
    /// The device whose memory it is, in ONNX Runtime's words: `Cpu`, `Cuda`.
    pub device: String,
    /// The address there.
    pub address: usize,
}

/// Where state lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Cpu,
    Cuda,
}

struct State {
    sets: [Vec<DynTensor>; 2],
    bindings: [IoBinding; 2],
    /// The set that holds the present state.
    turn: usize,
}

impl OrtSession {
    pub(super) fn new(session: ort::session::Session, signature: Signature, map: StateMap, device: &Device) -> OrtSession {
        OrtSession {
            state: None,
            session,
            signature,
            map,
            memory: match device {
                Device::Cpu => Memory::Cpu,
                Device::Cuda(_) => Memory::Cuda,
            },
            engine: device.engine(),
        }
    }

    /// Where the present state lies; nothing before it is set.
    #[must_use]
    pub fn state_places(&self) -> Vec<StatePlace> {
        let set = self.state.as_ref().and_then(|state| state.sets.get(state.turn));
        let pairs = self.map.pairs.iter().zip(set.into_iter().flatten());
        pairs
            .filter_map(|(&(input, _), value)| {
                Some(StatePlace {
                    name: self.signature.inputs.get(input)?.name.clone(),
                    device: value.memory_info().allocation_device().as_str().to_owned(),
                    address: value.data_ptr() as usize,
                })
            })
            .collect()
    }

    fn run_once(&mut self, inputs: Vec<(String, DynTensor)>) -> Result<Tensors> {
        let inputs: Vec<(String, SessionInputValue<'_>)> = inputs.into_iter().map(|(name, value)| (name, value.into())).collect();
        read(self.session.run(inputs)?, |_| true)
    }

    fn step_once(&mut self, fed: Vec<(String, DynTensor)>) -> Result<Tensors> {
        let state = self.state.as_mut().ok_or_else(no_state)?;
        let binding = state.bindings.get_mut(state.turn).context("there are two bindings")?;
        for (name, value) in fed {
            binding.bind_input(name, &value)?;
        }
        let given: Vec<&str> = self
            .map
            .given
            .iter()
            .filter_map(|&at| self.signature.outputs.get(at))
            .map(|port| port.name.as_str())
            .collect();
        // Bound anew each time: the runtime would otherwise insist on the shapes of the step before.
        let host = host()?;
        for name in &given {
            binding.bind_output_to_device(*name, &host)?;
        }
        let outputs = read(self.session.run_binding(binding)?, |name| given.contains(&name))?;
        state.turn = 1 - state.turn;
        Ok(outputs)
    }

    fn make_state(&self, tensors: &[&Tensor]) -> Result<State> {
        let host = Allocator::default();
        let mut now = tensors
            .iter()
            .map(|tensor| into_ort(&host, tensor))
            .collect::<Result<Vec<DynTensor>>>()?;
        let mut next = self.buffers(tensors)?;
        if self.memory == Memory::Cuda {
            let there = self.buffers(tensors)?;
            let here = std::mem::replace(&mut now, there);
            for (here, there) in here.iter().zip(&mut now) {
                here.copy_into(there)?;
            }
        }
        let mut bindings = [self.session.create_binding()?, self.session.create_binding()?];
        let [even, odd] = &mut bindings;
        for ((&(input, output), now), next) in self.map.pairs.iter().zip(&mut now).zip(&mut next) {
            let input = &self.signature.inputs.get(input).context("a bound input")?.name;
            let output = &self.signature.outputs.get(output).context("a bound output")?.name;
            even.bind_input(input, now)?;
            even.bind_output(output, &mut *next)?;
            odd.bind_input(input, next)?;
            odd.bind_output(output, &mut *now)?;
        }
        Ok(State {
            sets: [now, next],
            bindings,
            turn: 0,
        })
    }

    /// Buffers for state, in the device's memory.
    fn buffers(&self, like: &[&Tensor]) -> Result<Vec<DynTensor>> {
        let allocator = match self.memory {
            Memory::Cpu => Allocator::default(),
            Memory::Cuda => cuda::allocator(&self.session)?,
        };
        like.iter().map(|tensor| zeros(&allocator, tensor)).collect()
    }

    fn named(&self, positions: &[usize], tensors: &[&Tensor]) -> Result<Vec<(String, DynTensor)>> {
        let allocator = Allocator::default();
        let ports = positions.iter().filter_map(|&at| self.signature.inputs.get(at));
        ports
            .zip(tensors)
            .map(|(port, tensor)| Ok((port.name.clone(), into_ort(&allocator, tensor)?)))
            .collect()
    }
}

impl Session for OrtSession {
    fn run(&mut self, feeds: &Tensors) -> Result<Tensors> {
        let all: Vec<usize> = (0..self.signature.inputs.len()).collect();
        let tensors = self.signature.take(&all, feeds)?;
        guarded(self.engine, || {
            let inputs = self.named(&all, &tensors)?;
            self.run_once(inputs)
        })
    }

    fn step(&mut self, feeds: &Tensors) -> Result<Tensors> {
        self.state.as_ref().ok_or_else(no_state)?;
        let tensors = self.signature.take(&self.map.fed, feeds)?;
        guarded(self.engine, || {
            let fed = self.named(&self.map.fed, &tensors)?;
            self.step_once(fed)
        })
    }

    fn state(&self) -> Result<Tensors> {
        let state = self.state.as_ref().ok_or_else(no_state)?;
        let set = state.sets.get(state.turn).context("there are two sets")?;
        let named = self.map.pairs.iter().zip(set).filter_map(|(&(input, _), value)| {
            let port = self.signature.inputs.get(input)?;
            let tensor = match self.memory {
                Memory::Cpu => from_ort(value),
                Memory::Cuda => {
                    (value.to(AllocationDevice::CPU, 0).map_err(anyhow::Error::from)).and_then(|value| from_ort(&value))
                }
            };
            Some(tensor.map(|tensor| (port.name.clone(), tensor)))
        });
        guarded(self.engine, || named.collect())
    }

    fn set_state(&mut self, state: &Tensors) -> Result<()> {
        let tensors = self.signature.take_state(&self.map, state)?;
        self.state = Some(guarded(self.engine, || self.make_state(&tensors))?);
        Ok(())
    }
}

/// Runs `f`; its errors and panics are those of `engine`.
fn guarded<R>(engine: &'static str, f: impl FnOnce() -> Result<R>) -> Result<R> {
    let fail = |cause: &anyhow::Error| EngineError::Failed {
        engine,
        cause: format!("{cause:#}"),
    };
    match quietly(f) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.is::<EngineError>() => Err(error),
        Ok(Err(error)) => Err(fail(&error).into()),
        Err(panic) => Err(fail(&anyhow!(panic)).into()),
    }
}

fn read(outputs: SessionOutputs<'_>, wanted: impl Fn(&str) -> bool) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, value) in outputs {
        if wanted(name) {
            let value = value.downcast::<DynTensorValueType>()?;
            let tensor = from_ort(&value).with_context(|| format!("reading the output `{name}`"))?;
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

fn host() -> Result<MemoryInfo<'static>> {
    Ok(MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Device,
        MemoryType::CPUOutput,
    )?)
}
