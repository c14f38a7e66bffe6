//! Setting samples aside for testing.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::draw::{Draw, Purpose};
use super::{Augmented, Batch, Dataset};

/// Some samples of a dataset, numbered anew.
struct Subset {
    base: Arc<dyn Dataset>,
    samples: Vec<usize>,
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn has_labels(&self) -> bool {
        self.base.has_labels()
    }

    fn labels(&self) -> Option<Vec<i64>> {
        let all = self.base.labels()?;
        self.samples.iter().map(|&sample| all.get(sample).copied()).collect()
    }

    fn largest_batch(&self) -> Option<usize> {
        self.base.largest_batch()
    }

    fn batch(&self, samples: &[usize], augmented: Option<Augmented<'_>>) -> Result<Batch> {
        let Some(inner) = samples
            .iter()
            .map(|&sample| self.samples.get(sample).copied())
            .collect::<Option<Vec<usize>>>()
        else {
            bail!("a sample index is out of range of {} samples", self.len());
        };
        let mut batch = self.base.batch(&inner, augmented)?;
        batch.samples = samples.to_vec();
        Ok(batch)
    }
}

/// `count` samples that stand for all, or all there are: the first ones where samples come mixed, as labels that fall somewhere show, and else
/// evenly spread ones, since folders are sorted by class and recordings by time.
#[must_use]
pub fn few(base: &Arc<dyn Dataset>, count: usize) -> Arc<dyn Dataset> {
    let all = base.len();
    let mixed = base.labels().is_some_and(|labels| !labels.is_sorted());
    let samples = if mixed || all <= count {
        (0..all.min(count)).collect()
    } else {
        (0..count).map(|at| at * all / count).collect()
    };
    Arc::new(Subset {
        samples,
        base: Arc::clone(base),
    })
}

/// Splits into what is kept and the `fraction` that is set aside, at least one sample each; both stay in their old order.
///
/// # Errors
/// If there are fewer than two samples.
pub fn by_fraction(base: Arc<dyn Dataset>, fraction: f64, seed: u64) -> Result<(Arc<dyn Dataset>, Arc<dyn Dataset>)> {
    let count = base.len();
    if count < 2 {
        bail!("there is {count} sample, too few to set one aside for testing; give a test set with --test");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let aside = ((count as f64 * fraction).round() as usize).clamp(1, count - 1);
    let mut samples: Vec<usize> = (0..count).collect();
    Draw::new(Purpose::Split, seed, 0, 0).shuffle(&mut samples);
    let mut kept = samples.split_off(aside);
    samples.sort_unstable();
    kept.sort_unstable();
    let subset = |samples| {
        Arc::new(Subset {
            base: Arc::clone(&base),
            samples,
        }) as Arc<dyn Dataset>
    };
    Ok((subset(kept), subset(samples)))
}

#[cfg(test)]
mod tests {
    use super::super::Synthetic;
    use super::*;

    fn base(count: usize) -> Arc<dyn Dataset> {
        Arc::new(Synthetic::new(&[super::super::synthetic::tests::input(&[Some(3)])], count, 0, 0).unwrap())
    }

    #[test]
    fn parts_are_disjoint_and_whole() {
        let (kept, aside) = by_fraction(base(100), 0.1, 3).unwrap();
        assert_eq!((kept.len(), aside.len()), (90, 10));
        let rows = |set: &Arc<dyn Dataset>| -> Vec<Vec<u8>> {
            (0..set.len())
                .map(|i| set.batch(&[i], None).unwrap().inputs["x"].bytes().to_vec())
                .collect()
        };
        let mut all = rows(&kept);
        all.extend(rows(&aside));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 100);
        assert!(kept.batch(&[90], None).is_err());
    }

    /// Noise with labels of its own.
    struct Labelled(Arc<dyn Dataset>, Option<Vec<i64>>);

    impl Dataset for Labelled {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn has_labels(&self) -> bool {
            self.1.is_some()
        }

        fn labels(&self) -> Option<Vec<i64>> {
            self.1.clone()
        }

        fn batch(&self, samples: &[usize], augmented: Option<Augmented<'_>>) -> Result<Batch> {
            self.0.batch(samples, augmented)
        }
    }

    #[test]
    fn a_few_samples_stand_for_all() {
        let taken = |labels: Option<Vec<i64>>, count: usize| -> Vec<usize> {
            let base: Arc<dyn Dataset> = Arc::new(Labelled(base(10), labels));
            let few = few(&base, count);
            let row = |set: &Arc<dyn Dataset>, at| set.batch(&[at], None).unwrap().inputs["x"].clone();
            let of = |at| (0..10).find(|&from| row(&base, from) == row(&few, at)).unwrap();
            (0..few.len()).map(of).collect()
        };
        assert_eq!(taken(Some(vec![1, 0, 1, 1, 0, 0, 0, 1, 0, 1]), 3), [0, 1, 2], "mixed");
        assert_eq!(
            taken(Some(vec![0, 0, 0, 0, 0, 1, 1, 1, 1, 1]), 3),
            [0, 3, 6],
            "in order of classes"
        );
        assert_eq!(taken(None, 3), [0, 3, 6], "in any order");
        assert_eq!(taken(None, 20), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn seeds_differ_and_small_sets_keep_one() {
        let first = |seed| {
            by_fraction(base(50), 0.5, seed)
                .unwrap()
                .1
                .batch(&[0, 1, 2], None)
                .unwrap()
                .inputs["x"]
                .clone()
        };
        assert_ne!(first(0), first(1));
        let (kept, aside) = by_fraction(base(2), 0.001, 0).unwrap();
        assert_eq!((kept.len(), aside.len()), (1, 1));
        assert!(by_fraction(base(1), 0.5, 0).is_err());
    }
}
