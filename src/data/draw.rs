//! Random draws that are a function of what they are for, never of who asked first.
//!
//! A ChaCha8 stream is keyed by (purpose, seed, two indices); what is taken from it are raw words, turned into numbers here, so that
//! results do not change with the version of a crate of distributions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// The order of samples in an epoch.
    Shuffle = 1,
    /// The augmentation of one sample in one epoch.
    Augment = 2,
    /// Which samples are set aside for testing.
    Split = 3,
    /// Synthetic noise.
    Noise = 4,
}

/// A stream of random words.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of `purpose` and `seed` for the indices `a` and `b`.
    pub fn new(purpose: Purpose, seed: u64, a: u64, b: u64) -> Draw {
        let mut key = [0u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([purpose as u64, seed, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Draw(ChaCha8Rng::from_seed(key))
    }

    /// A whole number in `0..bound`; 0 where `bound` is 0. The bias of the multiplication is below bound / 2⁶⁴.
    pub fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.0.next_u64()) * (bound as u128);
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A fair coin.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// A number in (0, 1], with 53 random bits.
    fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let numerator = ((self.0.next_u64() >> 11) + 1) as f64;
        numerator / 9_007_199_254_740_992.0
    }

    /// Two independent standard normal numbers, by Box and Muller's transform.
    pub fn normal_pair(&mut self) -> [f64; 2] {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let angle = std::f64::consts::TAU * self.unit();
        [radius * angle.cos(), radius * angle.sin()]
    }

    /// Puts `items` in random order, by Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_keyed() {
        let draw = |purpose, seed, a, b| Draw::new(purpose, seed, a, b).below(1 << 60);
        let first = draw(Purpose::Shuffle, 1, 2, 3);
        assert_eq!(first, draw(Purpose::Shuffle, 1, 2, 3));
        for other in [
            draw(Purpose::Augment, 1, 2, 3),
            draw(Purpose::Shuffle, 0, 2, 3),
            draw(Purpose::Shuffle, 1, 3, 2),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn numbers_stay_below_and_reach_all() {
        let mut draw = Draw::new(Purpose::Split, 7, 0, 0);
        let mut seen = [0u32; 5];
        for _ in 0..1000 {
            seen[draw.below(5)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
        assert_eq!(draw.below(0), 0);
    }

    #[test]
    fn shuffle_permutes() {
        let mut items: Vec<usize> = (0..100).collect();
        Draw::new(Purpose::Shuffle, 0, 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn normal_moments() {
        let mut draw = Draw::new(Purpose::Noise, 0, 0, 0);
        let values: Vec<f64> = (0..20_000).flat_map(|_| draw.normal_pair()).collect();
        let count = 40_000.0;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / count;
        // Five standard errors: 5/√n of the mean, 5·√(2/n) of the variance.
        assert!(mean.abs() < 0.025 && (variance - 1.0).abs() < 0.036, "{mean} {variance}");
    }
}
