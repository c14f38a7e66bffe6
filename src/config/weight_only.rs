//! Weights alone in integers (`--bits w4`): the block, and what cannot be had together with it.
//!
//! Refused, before anything is read: `--block` without such bits; layers of which some have quantized activations and some not; a target that has
//! no weights in blocks, or none of these bits, or no such block; options that are about quantized activations or other storage; and a runtime
//! or an operator set too old.

use anyhow::Result;
use lsqc_passes::target::{self, TARGETS, Version};

use super::bits::Bits;
use super::choices::StorageChoice;
use super::file::QuantizeTable;
use super::flags::QuantizeFlags;
use super::layers::LayerRule;
use crate::failure::Failure;

/// How weights alone are quantized.
#[derive(Clone, Debug)]
pub struct WeightOnly {
    /// What the target has of it.
    pub has: &'static target::WeightOnly,
    /// The weights along the input axis that share a step.
    pub block: usize,
}

/// Reads what is asked for; `None` where activations are quantized too.
///
/// # Errors
/// Usage; see the module.
pub(super) fn choose(
    flags: &QuantizeFlags,
    table: &QuantizeTable,
    bits: Bits,
    target: &'static target::Target,
) -> Result<Option<WeightOnly>> {
    let asked = flags.block.or(table.block);
    refuse_mixture(table, bits)?;
    if !bits.is_weight_only() {
        let Some(block) = asked else { return Ok(None) };
        let message = format!(
            "--block {block} says how many weights share a step where weights alone are quantized, and the bits are {bits}"
        );
        let cure = format!("write --bits w{} for weights alone, or leave the block out", bits.weights());
        return Err(Failure::usage(message).help(cure).into());
    }
    let Some(has) = target.weight_only else {
        let have: Vec<&str> = TARGETS
            .iter()
            .filter(|target| target.weight_only.is_some())
            .map(|target| target.name)
            .collect();
        let message = format!(
            "--bits {bits} quantizes weights alone, and for {} lsqc writes no such file",
            target.title
        );
        let cure = format!(
            "choose --target {}, or bits for activations too, such as {}",
            have.join(" or "),
            bits.weights()
        );
        return Err(Failure::usage(message).help(cure).into());
    };
    refuse_what_does_not_apply(flags, table, bits)?;
    if let Some(bits) = all(table, bits).find(|bits| has.stored_bits(bits.weights().into()).is_none()) {
        let title = target.title;
        let widths: Vec<String> = has.bits.iter().map(|(bits, ..)| format!("w{bits}")).collect();
        let message = format!(
            "{title} has no weights of {} bits beside activations in floats",
            bits.weights()
        );
        let both = format!("or {} for weights and activations", bits.weights());
        let cure = format!("choose one of {}, {both}", widths.join(", "));
        return Err(Failure::usage(message).help(cure).into());
    }
    Ok(Some(WeightOnly {
        has,
        block: block(asked, has, target)?,
    }))
}

fn all(table: &QuantizeTable, bits: Bits) -> impl Iterator<Item = Bits> {
    let ruled = table.layers.iter().filter_map(|(_, rule)| match rule {
        LayerRule::Bits(bits) => Some(bits),
        LayerRule::Float => None,
    });
    ruled.chain([bits])
}

fn refuse_mixture(table: &QuantizeTable, bits: Bits) -> Result<()> {
    let rules = table.layers.iter();
    let mut other = rules.filter_map(|(pattern, rule)| match rule {
        LayerRule::Bits(ruled) if ruled.is_weight_only() != bits.is_weight_only() => Some((pattern, ruled)),
        _ => None,
    });
    let Some((pattern, ruled)) = other.next() else { return Ok(()) };
    let message = format!(
        "the layers \"{pattern}\" are to take {ruled} and the others {bits}: activations are quantized throughout or nowhere"
    );
    let alike = if bits.is_weight_only() {
        format!("w{}", ruled.weights())
    } else {
        format!("w{}a8", ruled.weights())
    };
    let cure = format!("write \"{alike}\" or \"float\" for these layers, or other bits for all (--bits, [quantize] bits)");
    Err(Failure::usage(message).help(cure).into())
}

fn refuse_what_does_not_apply(flags: &QuantizeFlags, table: &QuantizeTable, bits: Bits) -> Result<()> {
    let storage = flags
        .storage
        .or(table.storage)
        .filter(|&storage| storage != StorageChoice::Auto);
    let options = [
        (
            flags.per_channel || table.per_channel,
            "--per-channel".to_owned(),
            "each block has a step of its own already",
        ),
        (
            flags.no_vnni || table.no_vnni,
            "--no-vnni".to_owned(),
            "it is about sums of integers, and products are computed in floats",
        ),
        (
            flags.placement.or(table.placement).is_some(),
            "--placement".to_owned(),
            "it says where activations are quantized, and none are",
        ),
        (
            storage.is_some(),
            format!("--storage {}", storage.unwrap_or_default()),
            "weights alone are stored as the target's form for blocks has them",
        ),
    ];
    let Some((_, option, why)) = options.into_iter().find(|(given, ..)| *given) else {
        return Ok(());
    };
    let message = format!("{option} does not go with --bits {bits}, which quantizes weights alone: {why}");
    Err(Failure::usage(message)
        .help("leave it out, on the command line and in lsqc.toml")
        .into())
}

fn block(asked: Option<i64>, has: &target::WeightOnly, target: &target::Target) -> Result<usize> {
    let Some(asked) = asked else { return Ok(has.block) };
    let fitting = has.blocks.iter().copied().find(|&block| i64::try_from(block) == Ok(asked));
    fitting.ok_or_else(|| {
        let blocks: Vec<String> = has.blocks.iter().map(ToString::to_string).collect();
        let message = format!(
            "the block is {asked}, and {} has blocks of {}",
            target.title,
            blocks.join(", ")
        );
        Failure::usage(message).help("choose one of these with --block").into()
    })
}

impl WeightOnly {
    /// The least operator set of the file, now that it is known which is asked for.
    ///
    /// # Errors
    /// Usage, where that one or the runtime is too old.
    pub(super) fn least(
        &self,
        opset: Option<i64>,
        runtime: Option<Version>,
        layers: impl Iterator<Item = Bits>,
        target: &target::Target,
    ) -> Result<i64> {
        let needs = self.has.opset;
        if let Some(opset) = opset.filter(|&opset| opset < needs) {
            let message = format!(
                "{} takes weights alone in blocks from operator set {needs} on, not {opset}",
                target.title
            );
            return Err(Failure::usage(message)
                .help(format!("give --opset {needs}, or leave it out"))
                .into());
        }
        let oldest = layers.filter_map(|bits| Some((self.has.oldest(bits.weights().into())?, bits)));
        let newest_need = oldest.max_by_key(|(version, _)| *version);
        if let (Some((oldest, bits)), Some(runtime)) = (newest_need, runtime)
            && runtime < oldest
        {
            let title = target.title;
            let message = format!("{title} {runtime} does not compute weights of {bits} beside activations in floats");
            let older: Vec<String> = self
                .has
                .bits
                .iter()
                .filter(|(.., version)| version.is_some_and(|version| version <= runtime))
                .map(|(bits, ..)| format!("w{bits}"))
                .collect();
            let instead = if older.is_empty() {
                String::new()
            } else {
                format!(", or other bits: {}", older.join(", "))
            };
            return Err(Failure::usage(message)
                .help(format!("give --runtime-min {oldest} or later{instead}"))
                .into());
        }
        Ok(opset.unwrap_or(13).max(needs))
    }
}
