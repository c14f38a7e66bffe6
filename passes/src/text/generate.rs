//! Elements made by a rule, for fixtures that stay readable: `normal(seed = 1, scale = 0.1)`.
//!
//! SplitMix64 gives uniform numbers in [0, 1) by their 53 high bits; a normal number is the sum of twelve of them, less six. That is
//! normal enough (variance 1, no value beyond 6) and only adds, so that it gives the same bits on every machine, which the logarithm and
//! cosine of other methods do not.

/// A stream of random numbers.
pub(super) struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[allow(clippy::cast_precision_loss)]
    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of mean 0 and variance 1.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
