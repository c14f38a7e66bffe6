//! The runtime that a network is made for: where quantizers stand for it, how weights are stored, which versions load the file.
//!
//! Refused, before anything is read: a placement that the target does not have, levels without a sign where it has none of so many bits,
//! storage that it cannot load, and a runtime or an operator set too old for the storage. What is refused of weights alone: [`weight_only`].

use anyhow::Result;
use lsqc_passes::target::{self, Storage, Sums, Version};

use super::bits::{Bits, Signedness};
use super::choices::{Granularity, Placement, StorageChoice, Target};
use super::file::QuantizeTable;
use super::flags::QuantizeFlags;
use super::layers::LayerRule;
use super::weight_only::{self, WeightOnly};
use crate::failure::Failure;

/// What the runtime makes of a network.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The runtime.
    pub target: &'static target::Target,
    /// Where quantizers stand.
    pub placement: Placement,
    /// How many steps a weight has.
    pub granularity: Granularity,
    /// The fewest bits that a weight is stored in.
    pub storage: Storage,
    /// What the runtime adds products up in.
    pub sums: Sums,
    /// The least operator set of the file.
    pub opset: i64,
    /// The oldest version that must load the file, where one is named.
    pub runtime_min: Option<Version>,
    /// How weights alone are quantized, where they are.
    pub weight_only: Option<WeightOnly>,
}

impl Deployment {
    /// Takes it from the flags, else from `[quantize]`.
    ///
    /// # Errors
    /// Usage; see the module.
    pub(super) fn new(flags: &QuantizeFlags, table: &QuantizeTable, bits: Bits) -> Result<Deployment> {
        let target = description(flags.target.or(table.target).unwrap_or_default());
        let placement = placement(target, flags.placement.or(table.placement))?;
        let layers = || {
            let ruled = table.layers.iter().filter_map(|(name, rule)| match rule {
                LayerRule::Bits(bits) => Some((format!("the layers \"{name}\""), bits)),
                LayerRule::Float => None,
            });
            ruled.chain([("the layers".to_owned(), bits)])
        };
        for (which, bits) in layers() {
            let Some(activations) = bits.activations() else { continue };
            let wide = u32::from(activations) > target.widest_unsigned;
            if bits.sign() == Some(Signedness::Unsigned) && wide {
                let (title, most) = (target.title, target.widest_unsigned);
                let message = format!("{which} are to take {bits}, and {title} has no unsigned levels of more than {most} bits");
                let (weights, bits) = (bits.weights(), activations);
                return Err(Failure::usage(message)
                    .help(format!(
                        "write w{weights}a{bits}s for signed levels, or w{weights}a{most}u; without a letter lsqc chooses what the target has"
                    ))
                    .into());
            }
        }
        let asked = Asked {
            storage: flags.storage.or(table.storage).unwrap_or_default(),
            runtime_min: match flags.runtime_min.as_ref().or(table.runtime_min.as_ref()) {
                None => None,
                Some(text) => Some(text.parse().map_err(|why| Failure::usage(format!("--runtime-min: {why}")))?),
            },
            opset: match flags.opset.or(table.opset) {
                Some(opset) if !(13..=25).contains(&opset) => {
                    return Err(Failure::usage(format!("the operator set is {opset}, but must be 13 to 25")).into());
                }
                opset => opset,
            },
            fewest: layers().map(|(_, bits)| bits.weights()).min().unwrap_or(8).into(),
        };
        let weight_only = weight_only::choose(flags, table, bits, target)?;
        if let Some(weight_only) = &weight_only {
            let fewest = weight_only.least(asked.opset, asked.runtime_min, layers().map(|(_, bits)| bits), target)?;
            return Ok(Deployment {
                target,
                placement,
                granularity: Granularity::PerTensor,
                storage: Storage::default(),
                sums: Sums::Wide,
                opset: fewest,
                runtime_min: asked.runtime_min,
                weight_only: Some(weight_only.clone()),
            });
        }
        let storage = asked.storage(target)?;
        Ok(Deployment {
            target,
            placement,
            granularity: if flags.per_channel || table.per_channel {
                Granularity::PerChannel
            } else {
                Granularity::PerTensor
            },
            storage,
            sums: if flags.no_vnni || table.no_vnni {
                Sums::SixteenBit
            } else {
                Sums::Wide
            },
            opset: asked.opset.unwrap_or(13).max(storage.opset()),
            runtime_min: asked.runtime_min,
            weight_only: None,
        })
    }

    /// Where quantizers stand, in a word; none where weights alone are quantized.
    #[must_use]
    pub fn placement_word(&self) -> String {
        match self.weight_only {
            Some(_) => "none".to_owned(),
            None => self.placement.to_string(),
        }
    }
}

fn description(target: Target) -> &'static target::Target {
    match target {
        Target::Ort => &target::ORT,
        Target::Openvino => &target::OPENVINO,
        Target::Tensorrt => &target::TENSORRT,
        Target::Portable => &target::PORTABLE,
    }
}

fn placement(target: &target::Target, asked: Option<Placement>) -> Result<Placement> {
    let word = |placement: target::Placement| match placement {
        target::Placement::EightBitAdds => Placement::Q8,
        target::Placement::Shared => Placement::Shared,
        target::Placement::Shortcut => Placement::Shortcut,
        target::Placement::Paper => Placement::Paper,
    };
    let has: Vec<Placement> = target.placements.iter().copied().map(word).collect();
    match asked {
        None => Ok(has.first().copied().unwrap_or_default()),
        Some(asked) if has.contains(&asked) => Ok(asked),
        Some(asked) => {
            let words: Vec<String> = has.iter().map(ToString::to_string).collect();
            let message = format!(
                "the placement \"{asked}\" is not for {}, which would not run it in integers",
                target.title
            );
            Err(Failure::usage(message)
                .help(format!("leave it out, or choose one of {}", words.join(", ")))
                .into())
        }
    }
}

/// What is asked for that decides the storage.
struct Asked {
    storage: StorageChoice,
    runtime_min: Option<Version>,
    opset: Option<i64>,
    /// The fewest bits of any weight.
    fewest: u32,
}

impl Asked {
    fn storage(&self, target: &target::Target) -> Result<Storage> {
        let fitting = match self.fewest {
            ..=2 => Storage::Int2,
            3..=4 => Storage::Int4,
            _ => Storage::Int8,
        };
        let wanted = match self.storage {
            StorageChoice::Int8 => return Ok(Storage::Int8),
            StorageChoice::Auto => return Ok(self.automatic(target, fitting)),
            StorageChoice::Int4 => Storage::Int4,
            StorageChoice::Int2 => Storage::Int2,
            StorageChoice::Packed => fitting,
        };
        if fitting == Storage::Int8 {
            let message = format!(
                "--storage {} holds weights of 4 bits and less, and no layer has so few",
                self.storage
            );
            return Err(Failure::usage(message).help("leave it out").into());
        }
        let Some(&(_, oldest)) = target.packed.iter().find(|(storage, _)| *storage == wanted) else {
            let message = format!("{} is not known to run weights of {wanted} in integers", target.title);
            return Err(Failure::usage(message)
                .help("leave --storage out: they are stored as bytes")
                .into());
        };
        if let Some(opset) = self.opset.filter(|&opset| opset < wanted.opset()) {
            let message = format!(
                "weights are to be stored as {wanted}, which needs operator set {}, not {opset}",
                wanted.opset()
            );
            let less = if wanted == Storage::Int2 && opset >= Storage::Int4.opset() {
                "--storage int4"
            } else {
                "--storage int8"
            };
            return Err(Failure::usage(message)
                .help(format!("give --opset {}, or {less}", wanted.opset()))
                .into());
        }
        if let Some(runtime) = self.runtime_min.filter(|&runtime| runtime < oldest) {
            let message = format!(
                "weights are to be stored as {wanted}, which {} {runtime} does not load",
                target.title
            );
            return Err(Failure::usage(message)
                .help(format!(
                    "give --runtime-min {oldest} or later, or --storage auto, which packs as that version allows"
                ))
                .into());
        }
        Ok(wanted)
    }

    /// The tightest that holds the weights of few bits and that the oldest runtime and the operator set allow.
    fn automatic(&self, target: &target::Target, fitting: Storage) -> Storage {
        let Some(runtime) = self.runtime_min else {
            return Storage::Int8;
        };
        let fits = |storage: Storage| {
            let allowed = target.packed.iter().any(|&(has, oldest)| has == storage && oldest <= runtime);
            let said = self.opset.is_none_or(|opset| opset >= storage.opset());
            storage >= fitting && allowed && said
        };
        let packed = [Storage::Int2, Storage::Int4].into_iter().find(|&storage| fits(storage));
        packed.unwrap_or_default()
    }
}
