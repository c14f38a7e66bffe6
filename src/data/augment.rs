//! Augmentation of images in training: mirroring and pad-and-crop, on raw values, before the normalisation.
//!
//! The border that pad-and-crop adds has the raw value 0, as for images of bytes everywhere: black, not the mean. What is drawn depends
//! on the seed, the epoch and the sample alone, so it is the same whatever the batch size or the number of threads.

use super::draw::{Draw, Purpose};
use super::preprocess::Layout;

/// Are images mirrored?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mirror {
    /// Never.
    #[default]
    Off,
    /// Left and right change places in half of the draws.
    Half,
}

/// What is done to training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Mirroring.
    pub mirror: Mirror,
    /// Pixels of border that are added on each side before a crop of the old size is taken anywhere; 0: none.
    pub crop_pad: usize,
}

impl Augment {
    /// Does it leave every image as it is?
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Augment::default()
    }
}

/// The extents of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extents {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
}

impl Extents {
    /// Of a sample of rank 3.
    pub(super) fn of(sample_shape: &[usize], layout: Layout) -> Option<Extents> {
        let (channels, height, width) = match (sample_shape, layout) {
            (&[c, h, w], Layout::Nchw) => (c, h, w),
            (&[h, w, c], Layout::Nhwc) => (c, h, w),
            _ => return None,
        };
        Some(Extents {
            channels,
            height,
            width,
            layout,
        })
    }

    pub(super) fn offset(&self, channel: usize, row: usize, column: usize) -> usize {
        match self.layout {
            Layout::Nchw => (channel * self.height + row) * self.width + column,
            Layout::Nhwc => (row * self.width + column) * self.channels + channel,
        }
    }
}

/// What was drawn for one sample; every image of the sample gets the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    mirrored: Mirror,
    /// Where the crop starts in the padded image, in 0..=2·pad.
    top: usize,
    left: usize,
    pad: usize,
}

impl Drawn {
    pub(super) fn new(how: &Augment, seed: u64, epoch: u64, sample: usize) -> Drawn {
        let mut draw = Draw::new(Purpose::Augment, seed, epoch, sample as u64);
        // All draws are made always, so that turning one augmentation off leaves the others as they were.
        let coin = draw.coin();
        let places = how.crop_pad.saturating_mul(2).saturating_add(1);
        Drawn {
            mirrored: if coin { how.mirror } else { Mirror::Off },
            top: draw.below(places),
            left: draw.below(places),
            pad: how.crop_pad,
        }
    }

    /// The augmented image.
    pub(super) fn apply(&self, image: &[f32], extents: Extents) -> Vec<f32> {
        let mut result = vec![0.0; image.len()];
        for row in 0..extents.height {
            let Some(from_row) = (row + self.top).checked_sub(self.pad).filter(|&row| row < extents.height) else {
                continue;
            };
            for column in 0..extents.width {
                let Some(cropped) = (column + self.left)
                    .checked_sub(self.pad)
                    .filter(|&column| column < extents.width)
                else {
                    continue;
                };
                let from_column = match self.mirrored {
                    Mirror::Off => cropped,
                    Mirror::Half => extents.width - 1 - cropped,
                };
                for channel in 0..extents.channels {
                    let from = image.get(extents.offset(channel, from_row, from_column));
                    if let (Some(to), Some(&from)) = (result.get_mut(extents.offset(channel, row, column)), from) {
                        *to = from;
                    }
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    fn drawn(mirrored: Mirror, top: usize, left: usize, pad: usize) -> Drawn {
        Drawn {
            mirrored,
            top,
            left,
            pad,
        }
    }

    #[test]
    fn mirrors() {
        let first = Extents::of(&[1, 2, 3], Layout::Nchw).unwrap();
        assert_eq!(
            drawn(Mirror::Half, 0, 0, 0).apply(&IMAGE, first),
            [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]
        );
        let last = Extents::of(&[1, 3, 2], Layout::Nhwc).unwrap();
        assert_eq!(
            drawn(Mirror::Half, 0, 0, 0).apply(&IMAGE, last),
            [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]
        );
    }

    #[test]
    fn pads_and_crops() {
        let extents = Extents::of(&[1, 2, 3], Layout::Nchw).unwrap();
        assert_eq!(drawn(Mirror::Off, 1, 1, 1).apply(&IMAGE, extents), IMAGE);
        assert_eq!(
            drawn(Mirror::Off, 0, 0, 1).apply(&IMAGE, extents),
            [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]
        );
        assert_eq!(
            drawn(Mirror::Off, 2, 2, 1).apply(&IMAGE, extents),
            [5.0, 6.0, 0.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(drawn(Mirror::Off, 9, 9, 9).apply(&IMAGE, extents), IMAGE);
        assert_eq!(drawn(Mirror::Off, 18, 0, 9).apply(&IMAGE, extents), [0.0; 6]);
    }

    #[test]
    fn draws_depend_on_sample_and_epoch() {
        let how = Augment {
            mirror: Mirror::Half,
            crop_pad: 4,
        };
        let places = |epoch| -> Vec<(usize, usize, Mirror)> {
            (0..50)
                .map(|sample| Drawn::new(&how, 0, epoch, sample))
                .map(|d| (d.top, d.left, d.mirrored))
                .collect()
        };
        assert_eq!(places(0), places(0));
        assert_ne!(places(0), places(1));
        assert!(places(0).iter().any(|p| p.0 == 8) && places(0).iter().any(|p| p.0 == 0));
        let mirrored = places(0).iter().filter(|p| p.2 == Mirror::Half).count();
        assert!((10..40).contains(&mirrored));
    }
}
