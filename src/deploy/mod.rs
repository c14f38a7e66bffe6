//! The hand-over folder: everything that the one who deploys a model needs, and nothing of where it was made.
//!
//! `model.onnx`, `manifest.json` (preprocessing, bits, steps, metrics, hashes, versions), `sample.npz` (the first test sample as the model gets
//! it, and what the model gave), and `example.py` with `runtime.py` and `requirements.txt`: it loads the model in its runtime, prepares an
//! image or an array as the manifest says, and compares the sample.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lsqc_passes::ir::Tensor;
use lsqc_passes::lower::Fixed;

use crate::config::{DEPLOY_FILES, Plan};
use crate::data::FileDigest;
use crate::engine::{Selected, Tensors};
use crate::npz;
use crate::output::Staged;
use crate::report::{Manifest, ManifestLayer, ManifestPort, Report, SCHEMA_VERSION, Tool};
use crate::run::{Outcome, Sample};
use crate::summary::{self, quantizer};

/// What the example runs on, and what it needs installed.
struct Runtime {
    /// `runtime.py`.
    code: &'static str,
    /// `requirements.txt`.
    requirements: &'static str,
}

fn runtime(target: &str) -> Runtime {
    match target {
        "openvino" => Runtime {
            code: include_str!("runtime_openvino.py"),
            requirements: "numpy\nopenvino\npillow  # for image files\n",
        },
        "tensorrt" => Runtime {
            code: include_str!("runtime_tensorrt.py"),
            requirements: "numpy\nonnxruntime-gpu[cuda,cudnn]\ntensorrt\npillow  # for image files\n",
        },
        _ => Runtime {
            code: include_str!("runtime_onnxruntime.py"),
            requirements: "numpy\nonnxruntime\npillow  # for image files\n",
        },
    }
}

/// Stages the folder; gives each file with its content. `model` is the lowered model as it is written elsewhere too.
///
/// # Errors
/// Usage, if the folder cannot be written to.
pub fn stage(
    folder: &Path,
    (plan, engine): (&Plan, &Selected),
    (outcome, sample): (&Outcome, &Sample),
    report: &Report,
    model: &[u8],
    staged: &mut Staged,
) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let [
        model_file,
        manifest_file,
        sample_file,
        example_file,
        runtime_file,
        requirements_file,
    ] = DEPLOY_FILES;
    let (inputs, outputs) = (ports(&sample.inputs, "input"), ports(&sample.outputs, "output"));
    let tensors = |ports: &[ManifestPort], of: &Tensors| -> Vec<(String, Tensor)> {
        let found = ports
            .iter()
            .filter_map(|port| Some((port.array.clone(), of.get(&port.name)?.clone())));
        found.collect()
    };
    let arrays = [tensors(&inputs, &sample.inputs), tensors(&outputs, &sample.outputs)].concat();
    let archive = npz::archive(arrays.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    let preprocessing = plan.data.inputs.iter();
    let preprocessing = preprocessing.map(|(input, how)| Ok((input.clone(), serde_json::to_value(how)?)));
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        target: plan.deployment.target.name.to_owned(),
        requires: report.requires.clone(),
        model: summary::file(&FileDigest::of(Path::new(model_file), model)),
        float_model: report.input.clone(),
        inputs,
        outputs,
        preprocessing: preprocessing.collect::<Result<_>>()?,
        bits: plan.bits.to_string(),
        placement: plan.deployment.placement_word(),
        layers: layers(outcome),
        metrics: report.metrics.clone(),
        engine: engine.judge.version(),
        sample: summary::file(&FileDigest::of(Path::new(sample_file), &archive)),
    };
    let Runtime { code, requirements } = runtime(plan.deployment.target.name);
    let files = vec![
        (folder.join(model_file), model.to_vec()),
        (folder.join(manifest_file), crate::report::to_json(&manifest)?.into_bytes()),
        (folder.join(sample_file), archive),
        (folder.join(example_file), include_bytes!("example.py").to_vec()),
        (folder.join(runtime_file), code.as_bytes().to_vec()),
        (folder.join(requirements_file), requirements.as_bytes().to_vec()),
    ];
    staged.directory(folder);
    for (path, bytes) in &files {
        staged.file(path, bytes)?;
    }
    Ok(files)
}

/// Names of tensors are no file names: arrays are numbered.
fn ports(tensors: &Tensors, kind: &str) -> Vec<ManifestPort> {
    let numbered = tensors.iter().enumerate();
    let port = |(number, (name, tensor)): (usize, (&String, &Tensor))| ManifestPort {
        name: name.clone(),
        array: format!("{kind}_{number}"),
        shape: tensor.shape().iter().map(|&extent| extent as u64).collect(),
    };
    numbered.map(port).collect()
}

fn layers(outcome: &Outcome) -> Vec<ManifestLayer> {
    let bits = |bits: u32| u8::try_from(bits).unwrap_or(u8::MAX);
    let layers = outcome.sites.layers.iter().map(|layer| {
        let input = quantizer(&outcome.trained, &layer.input);
        let weight = quantizer(&outcome.trained, &layer.weight);
        ManifestLayer {
            name: layer.name.clone(),
            op: layer.op.clone(),
            weight_bits: bits(layer.bits.weight),
            activation_bits: Some(
                input
                    .as_ref()
                    .map_or(bits(layer.bits.activation), |input| bits(input.quantizer.range.bits)),
            ),
            block: None,
            weight_steps: weight.map_or_else(Vec::new, |weight| weight.steps.iter().map(|&step| step.into()).collect()),
            activation_step: input.as_ref().and_then(Fixed::step).map(f64::from),
            activation_signed: input.is_some_and(|input| input.quantizer.range.signed),
        }
    });
    let blocks = outcome.sites.blocks.iter().map(|layer| ManifestLayer {
        name: layer.name.clone(),
        op: layer.op.clone(),
        weight_bits: bits(layer.bits),
        activation_bits: None,
        block: Some(layer.block as u64),
        weight_steps: Vec::new(),
        activation_step: None,
        activation_signed: false,
    });
    layers.chain(blocks).collect()
}
