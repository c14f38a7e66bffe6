//! The block of blocked convolutions is found by asking the engine, in whatever order the blocks are tried: a wrong one computes garbage.

mod engine_support;

use lsqc::engine::{Engine, LoadOptions, Session};
use lsqc::tune::dialect;

/// An engine that names its blocks in another order.
struct Reordered<'a> {
    engine: &'a dyn Engine,
    blocks: &'static [usize],
}

impl Engine for Reordered<'_> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn version(&self) -> String {
        self.engine.version()
    }

    fn channel_blocks(&self) -> &'static [usize] {
        self.blocks
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> anyhow::Result<Box<dyn Session>> {
        self.engine.load(model, options)
    }
}

#[test]
fn one_block_is_right_in_any_order() {
    for engine in engine_support::engines() {
        let found = |blocks| {
            dialect(&Reordered {
                engine: engine.as_ref(),
                blocks,
            })
            .channel_block
        };
        let own = dialect(engine.as_ref()).channel_block;
        assert_eq!(found(&[8, 16]), found(&[16, 8]), "{}", engine.name());
        assert_eq!(found(&[16, 8]), own, "{}", engine.name());
        // Blocks that no CPU has are never taken.
        assert_eq!(found(&[4]), None, "{}", engine.name());
        if cfg!(target_arch = "x86_64") {
            assert_eq!(own.is_some(), engine.name() == "ort", "{}", engine.name());
        }
    }
}
