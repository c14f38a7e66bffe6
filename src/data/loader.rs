//! Batches for loops: shuffled and prefetched for training, in order for measuring.
//!
//! Training order depends on the seed and the epoch alone. Every training batch is full: an epoch's last partial batch is dropped, and
//! a set smaller than a batch is gone round until the batch is full. Batches are made on another thread, a few ahead of their use; that
//! thread ends when the loader is dropped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use super::augment::Augment;
use super::draw::{Draw, Purpose};
use super::{Augmented, Batch, Dataset};

/// Batches that wait for their use: enough to hide a slow one, few enough to cost no memory.
const AHEAD: usize = 4;

/// How training batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainOptions {
    /// Samples in each batch.
    pub batch: usize,
    /// Decides order and augmentation.
    pub seed: u64,
    /// What is done to images.
    pub augment: Augment,
}

/// Full batches of a dataset, shuffled anew in every epoch, without end.
pub struct TrainBatches {
    receiver: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl TrainBatches {
    /// Starts making batches.
    ///
    /// # Errors
    /// If the dataset or the batch is empty, or no thread can be had.
    pub fn start(dataset: Arc<dyn Dataset>, options: TrainOptions) -> Result<TrainBatches> {
        anyhow::ensure!(
            !dataset.is_empty() && options.batch > 0,
            "there is nothing to make batches of"
        );
        let (sender, receiver) = sync_channel(AHEAD);
        let make = move || {
            for epoch in 0.. {
                for samples in epoch_order(dataset.len(), options.batch, options.seed, epoch) {
                    let augmented = Augmented {
                        how: &options.augment,
                        seed: options.seed,
                        epoch,
                    };
                    let batch = dataset.batch(&samples, Some(augmented));
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("batches".to_owned())
            .spawn(make)
            .context("cannot start a thread for data")?;
        Ok(TrainBatches {
            receiver: Some(receiver),
            thread: Some(thread),
        })
    }

    /// Batches in one epoch, at least 1.
    #[must_use]
    pub fn per_epoch(samples: usize, batch: usize) -> usize {
        samples.checked_div(batch).unwrap_or(0).max(1)
    }

    /// The next batch; there is always one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let receiver = self.receiver.as_ref().ok_or_else(|| anyhow!("the batches have ended"))?;
        receiver.recv().context("the thread that makes batches has ended")?
    }
}

impl Drop for TrainBatches {
    fn drop(&mut self) {
        // The thread sees the closed channel at its next send.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, its message is on standard error already.
            drop(thread.join());
        }
    }
}

/// The batches of one epoch.
fn epoch_order(samples: usize, batch: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..samples).collect();
    Draw::new(Purpose::Shuffle, seed, epoch, 0).shuffle(&mut order);
    if samples < batch {
        return vec![order.into_iter().cycle().take(batch).collect()];
    }
    order.chunks_exact(batch).map(<[usize]>::to_vec).collect()
}

/// The samples of a dataset in their order, the last batch as small as it comes ([`Batch::padded`] fills it).
pub struct EvalBatches {
    dataset: Arc<dyn Dataset>,
    batch: usize,
    next: usize,
    end: usize,
}

impl EvalBatches {
    /// All samples, or the first `limit`.
    #[must_use]
    pub fn new(dataset: Arc<dyn Dataset>, batch: usize, limit: Option<usize>) -> EvalBatches {
        let end = limit.unwrap_or(usize::MAX).min(dataset.len());
        EvalBatches {
            batch: dataset.largest_batch().unwrap_or(usize::MAX).min(batch).max(1),
            dataset,
            next: 0,
            end,
        }
    }

    /// The samples of every batch but perhaps the last.
    #[must_use]
    pub fn size(&self) -> usize {
        self.batch.min(self.end)
    }

    /// The number of samples that it gives in all.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.end
    }
}

impl Iterator for EvalBatches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.next >= self.end {
            return None;
        }
        let start = self.next;
        self.next = start.saturating_add(self.batch).min(self.end);
        let samples: Vec<usize> = (start..self.next).collect();
        Some(self.dataset.batch(&samples, None))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Synthetic;
    use super::super::synthetic::tests::input;
    use super::*;

    fn dataset(len: usize) -> Arc<dyn Dataset> {
        Arc::new(Synthetic::new(&[input(&[Some(2)])], len, 0, 0).unwrap())
    }

    fn options(batch: usize, seed: u64) -> TrainOptions {
        TrainOptions {
            batch,
            seed,
            augment: Augment::default(),
        }
    }

    fn samples(len: usize, batch: usize, seed: u64, count: usize) -> Vec<Vec<usize>> {
        let mut batches = TrainBatches::start(dataset(len), options(batch, seed)).unwrap();
        (0..count).map(|_| batches.next_batch().unwrap().samples).collect()
    }

    #[test]
    fn epochs_are_shuffled_and_drop_the_rest() {
        let epochs = samples(10, 3, 0, 6);
        for epoch in epochs.chunks(3) {
            let distinct: BTreeSet<usize> = epoch.iter().flatten().copied().collect();
            assert_eq!(distinct.len(), 9);
        }
        assert_ne!(epochs[..3], epochs[3..]);
        assert_eq!(epochs, samples(10, 3, 0, 6));
        assert_ne!(epochs, samples(10, 3, 1, 6));
        assert_eq!((TrainBatches::per_epoch(10, 3), TrainBatches::per_epoch(2, 3)), (3, 1));
    }

    #[test]
    fn small_sets_go_round() {
        let batch = samples(2, 5, 0, 1).remove(0);
        assert_eq!(batch.len(), 5);
        assert_eq!(batch[..2], batch[2..4]);
    }

    #[test]
    fn dropping_stops_the_thread() {
        let set = dataset(4);
        let batches = TrainBatches::start(Arc::clone(&set), options(2, 0)).unwrap();
        drop(batches);
        assert_eq!(Arc::strong_count(&set), 1);
    }

    #[test]
    fn evaluation_keeps_order_and_rest() {
        let sizes = |limit| -> Vec<usize> {
            EvalBatches::new(dataset(5), 2, limit)
                .map(|b| b.unwrap().samples.len())
                .collect()
        };
        assert_eq!(sizes(None), [2, 2, 1]);
        assert_eq!(sizes(Some(3)), [2, 1]);
        let last = EvalBatches::new(dataset(5), 2, None)
            .last()
            .unwrap()
            .unwrap()
            .padded(2)
            .unwrap();
        assert_eq!((last.samples.len(), last.inputs["x"].shape()), (1, &[2, 2][..]));
    }
}
