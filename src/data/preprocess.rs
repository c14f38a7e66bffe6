//! What happens to raw values before the model sees them: x ↦ (x · scale − mean) / std, each factor one number or one per channel.
//! Before that, image files are brought to the model's size and colours, as `image_file` says; arrays have both already.
//!
//! Refused: factors that are not finite, a standard deviation of 0, as many factors as there are no channels, sizes of 0 or beyond reason,
//! sizes and colours for an input that is no image.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::ModelInput;
use crate::failure::Failure;

/// A factor: one for all, or one for each channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or a list of numbers, one per channel, was expected")]
pub enum Channels {
    /// The same for all channels.
    All(f64),
    /// One for each.
    Each(Vec<f64>),
}

impl Channels {
    fn values(&self) -> &[f64] {
        match self {
            Channels::All(value) => std::slice::from_ref(value),
            Channels::Each(values) => values,
        }
    }
}

/// Where the channels are in the model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// `[N, C, H, W]`: the axis after the batch.
    #[default]
    #[serde(rename = "NCHW")]
    Nchw,
    /// `[N, H, W, C]`: the last axis.
    #[serde(rename = "NHWC")]
    Nhwc,
}

impl Layout {
    /// As lsqc.toml spells it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Layout::Nchw => "NCHW",
            Layout::Nhwc => "NHWC",
        }
    }
}

/// The colours of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Color {
    /// Red, green, blue.
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red.
    #[serde(rename = "BGR")]
    Bgr,
    /// One channel.
    #[serde(rename = "GRAY")]
    Gray,
}

impl Color {
    /// How many channels it has.
    #[must_use]
    pub fn channels(self) -> usize {
        match self {
            Color::Rgb | Color::Bgr => 3,
            Color::Gray => 1,
        }
    }

    /// As lsqc.toml spells it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Color::Rgb => "RGB",
            Color::Bgr => "BGR",
            Color::Gray => "GRAY",
        }
    }
}

/// A size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number of pixels, or [height, width], was expected")]
pub enum Size {
    /// Of the shorter side in a resize; of both in a crop.
    Side(u32),
    /// Height and width.
    Each([u32; 2]),
}

impl Size {
    /// Height and width, the same where one side is given.
    #[must_use]
    pub fn both(self) -> [u32; 2] {
        match self {
            Size::Side(side) => [side, side],
            Size::Each(both) => both,
        }
    }
}

/// No image of a network is larger; a slip of the keyboard is.
const MAX_SIDE: u32 = 1 << 14;

/// The preprocessing of one model input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Multiplies raw values.
    pub scale: Channels,
    /// Is subtracted from scaled values.
    pub mean: Channels,
    /// Divides what remains.
    pub std: Channels,
    /// The layout of the model's input.
    pub layout: Layout,
    /// The size that image files are brought to before the crop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Size>,
    /// What is cut out of the middle of image files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<Size>,
    /// The colours that image files are brought to; `None`: by the model's channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
}

impl Default for Preprocess {
    fn default() -> Preprocess {
        Preprocess {
            scale: Channels::All(1.0),
            mean: Channels::All(0.0),
            std: Channels::All(1.0),
            layout: Layout::Nchw,
            resize: None,
            crop: None,
            color: None,
        }
    }
}

impl Preprocess {
    /// Do the factors make sense by themselves?
    ///
    /// # Errors
    /// What is wrong with which factor.
    pub fn check(&self) -> Result<(), String> {
        for (key, factor) in [("scale", &self.scale), ("mean", &self.mean), ("std", &self.std)] {
            if factor.values().is_empty() {
                return Err(format!("{key} is an empty list"));
            }
            if !factor.values().iter().all(|&value| (value as f32).is_finite()) {
                return Err(format!("{key} is not finite"));
            }
        }
        if self.std.values().iter().any(|&value| value as f32 == 0.0) {
            return Err("std is 0, and is divided by".to_owned());
        }
        for (key, size) in [("resize", self.resize), ("crop", self.crop)] {
            if let Some(size) = size
                && !size.both().iter().all(|side| (1..=MAX_SIDE).contains(side))
            {
                return Err(format!("{key} is not 1 to {MAX_SIDE} pixels"));
            }
        }
        Ok(())
    }

    /// Does it say something about image files?
    fn is_for_images(&self) -> bool {
        self.resize.is_some() || self.crop.is_some() || self.color.is_some()
    }

    /// Does it leave values as they are, once they are there?
    #[must_use]
    pub fn is_identity(&self) -> bool {
        let all = |factor: &Channels, neutral: f64| factor.values().iter().all(|&value| value == neutral);
        all(&self.scale, 1.0) && all(&self.mean, 0.0) && all(&self.std, 1.0)
    }

    /// The channels of a sample of this shape, by this layout.
    pub(super) fn channels(&self, sample_shape: &[usize]) -> usize {
        let axis = match self.layout {
            Layout::Nchw => sample_shape.first(),
            Layout::Nhwc => sample_shape.last(),
        };
        axis.copied().unwrap_or(1)
    }

    /// The map for samples of `sample_shape`.
    pub(super) fn transform(&self, input: &str, sample_shape: &[usize]) -> Result<Transform> {
        let channels = self.channels(sample_shape);
        let factor = |key: &str, factor: &Channels| -> Result<Vec<f32>> {
            match factor.values() {
                [one] => Ok(vec![*one as f32; channels]),
                each if each.len() == channels => Ok(each.iter().map(|&value| value as f32).collect()),
                each => {
                    let message = format!(
                        "[input.{input}]: {key} has {} values, but the input has {channels} channels (sample shape {sample_shape:?}, layout {})",
                        each.len(),
                        self.layout.word()
                    );
                    Err(Failure::usage(message)
                        .help("give one number, or one per channel; or set the layout of the model's input")
                        .into())
                }
            }
        };
        Ok(Transform {
            scale: factor("scale", &self.scale)?,
            mean: factor("mean", &self.mean)?,
            std: factor("std", &self.std)?,
            layout: self.layout,
        })
    }
}

/// [`Preprocess`] for one sample shape: a factor per channel.
#[derive(Clone, Debug)]
pub(super) struct Transform {
    scale: Vec<f32>,
    mean: Vec<f32>,
    std: Vec<f32>,
    layout: Layout,
}

impl Transform {
    /// Maps one sample in place, in single precision.
    pub(super) fn apply(&self, values: &mut [f32]) {
        let channels = self.scale.len();
        let plane = values.len().checked_div(channels).unwrap_or(0).max(1);
        match self.layout {
            Layout::Nchw => {
                let factors = self.scale.iter().zip(&self.mean).zip(&self.std);
                for (values, ((scale, mean), std)) in values.chunks_mut(plane).zip(factors) {
                    values.iter_mut().for_each(|value| *value = (*value * scale - mean) / std);
                }
            }
            Layout::Nhwc => {
                let factors = self.scale.iter().zip(&self.mean).zip(&self.std).cycle();
                for (value, ((scale, mean), std)) in values.iter_mut().zip(factors) {
                    *value = (*value * scale - mean) / std;
                }
            }
        }
    }
}

/// Refuses preprocessing for inputs that the model does not have, and that of images for other inputs.
pub(super) fn check_names(preprocess: &BTreeMap<String, Preprocess>, inputs: &[ModelInput]) -> Result<()> {
    for (name, chosen) in preprocess {
        let Some(input) = inputs.iter().find(|input| &input.name == name) else {
            let known: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            let message = format!("[input.{name}]: the model has no input named \"{name}\"");
            return Err(Failure::usage(message)
                .help(format!("its inputs are: {}", known.join(", ")))
                .into());
        };
        if chosen.is_for_images() && !matches!(input.sample_shape.len(), 2 | 3) {
            let rank = input.sample_shape.len() + 1;
            let message = format!("[input.{name}]: resize, crop and color are for images, but the input has rank {rank}");
            return Err(Failure::usage(message).help("remove them").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess(layout: Layout) -> Preprocess {
        Preprocess {
            scale: Channels::All(0.5),
            mean: Channels::Each(vec![1.0, 2.0]),
            std: Channels::Each(vec![1.0, 4.0]),
            layout,
            ..Preprocess::default()
        }
    }

    #[test]
    fn channels_first() {
        let mut values = [2.0, 4.0, 4.0, 12.0];
        preprocess(Layout::Nchw)
            .transform("x", &[2, 1, 2])
            .unwrap()
            .apply(&mut values);
        assert_eq!(values, [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn channels_last() {
        let mut values = [2.0, 4.0, 4.0, 12.0];
        preprocess(Layout::Nhwc)
            .transform("x", &[1, 2, 2])
            .unwrap()
            .apply(&mut values);
        assert_eq!(values, [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn scalars() {
        let mut values = [3.0];
        Preprocess::default().transform("x", &[]).unwrap().apply(&mut values);
        assert_eq!(values, [3.0]);
        assert!(Preprocess::default().is_identity());
    }

    #[test]
    fn refusals() {
        let error = preprocess(Layout::Nchw).transform("x", &[3, 2, 2]).unwrap_err();
        assert!(
            error.to_string().contains("mean has 2 values, but the input has 3 channels"),
            "{error}"
        );
        let with = |std| Preprocess {
            std,
            ..Preprocess::default()
        };
        assert!(with(Channels::All(0.0)).check().unwrap_err().contains("divided by"));
        assert!(with(Channels::Each(vec![])).check().unwrap_err().contains("empty"));
        assert!(with(Channels::All(f64::NAN)).check().unwrap_err().contains("finite"));
        for size in [Size::Side(0), Size::Each([3, 0]), Size::Side(MAX_SIDE + 1)] {
            let preprocess = Preprocess {
                crop: Some(size),
                ..Preprocess::default()
            };
            assert!(preprocess.check().unwrap_err().contains("crop is not 1 to 16384 pixels"));
        }
    }
}
