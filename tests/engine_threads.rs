//! Sessions may start on several threads at once. Alone in its process: the runtime takes lsqc's own operators once.

mod engine_support;

use std::sync::Barrier;

use engine_support::{engines, model, options};

const THREADS: usize = 16;

#[test]
fn sessions_start_side_by_side() {
    for engine in engines() {
        let bytes = model("cnn");
        let together = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    engine.load(&bytes, &options(&[])).expect("it loads beside others");
                });
            }
        });
    }
}
