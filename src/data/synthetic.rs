//! Standard normal noise in the shape of the model's inputs: what calibration and training run on when there is no data at all.
//!
//! Noise stands for values after preprocessing. Refused: inputs that are not floats, whose values noise cannot guess, and symbolic
//! extents other than the batch.

use anyhow::Result;
use lsqc_passes::ir::Tensor;

use super::draw::{Draw, Purpose};
use super::store::{batch_shape, float_tensor, largest_batch};
use super::{Augmented, Batch, Dataset, ModelInput};
use crate::engine::Tensors;
use crate::failure::Failure;

/// Noise, made when it is asked for.
#[derive(Debug)]
pub struct Synthetic {
    inputs: Vec<(ModelInput, Vec<usize>)>,
    len: usize,
    first: usize,
    seed: u64,
}

impl Synthetic {
    /// `len` samples of noise, the samples `first..first + len` of the seed's stream.
    ///
    /// # Errors
    /// Bad input if an input's shape is not known or its type is no float.
    pub fn new(inputs: &[ModelInput], len: usize, first: usize, seed: u64) -> Result<Synthetic> {
        let refuse = |input: &ModelInput, why: &str| -> anyhow::Error {
            let message = format!(
                "there is no data, and noise cannot stand in for input \"{}\": {why}",
                input.name
            );
            Failure::bad_input(message)
                .help(
                    "give data with --data, or in lsqc.toml beside the model; or settle the input: --shape, --axis, --fix-input",
                )
                .into()
        };
        let mut known = Vec::new();
        for input in inputs {
            if !input.dtype.is_float() {
                return Err(refuse(input, &format!("its type is {}", input.dtype)));
            }
            let Some(shape) = input.sample_shape.iter().copied().collect::<Option<Vec<usize>>>() else {
                return Err(refuse(input, "its shape is symbolic in more than the batch"));
            };
            known.push((input.clone(), shape));
        }
        Ok(Synthetic {
            inputs: known,
            len,
            first,
            seed,
        })
    }
}

impl Dataset for Synthetic {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> Option<Vec<i64>> {
        None
    }

    fn largest_batch(&self) -> Option<usize> {
        largest_batch(self.inputs.iter().map(|(input, _)| input.batch))
    }

    /// Noise is not augmented: it has no left and right.
    fn batch(&self, samples: &[usize], _: Option<Augmented<'_>>) -> Result<Batch> {
        anyhow::ensure!(
            samples.iter().all(|&sample| sample < self.len),
            "a sample index is out of range of {} samples",
            self.len
        );
        let mut tensors = Tensors::new();
        for (position, (input, sample_shape)) in self.inputs.iter().enumerate() {
            let width: usize = sample_shape.iter().product();
            let mut values: Vec<f32> = Vec::with_capacity(width.saturating_mul(samples.len()));
            for &sample in samples {
                let mut draw = Draw::new(Purpose::Noise, self.seed, (self.first + sample) as u64, position as u64);
                let noise = std::iter::repeat_with(move || draw.normal_pair()).flatten();
                #[allow(clippy::cast_possible_truncation)]
                values.extend(noise.take(width).map(|value| value as f32));
            }
            let shape = batch_shape(input.batch, samples.len(), sample_shape)?;
            let tensor: Tensor = float_tensor(input.dtype, &shape, values)?;
            tensors.insert(input.name.clone(), tensor);
        }
        Ok(Batch {
            samples: samples.to_vec(),
            inputs: tensors,
            labels: None,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use lsqc_passes::ir::DType;

    use super::*;

    pub fn input(sample_shape: &[Option<usize>]) -> ModelInput {
        ModelInput {
            name: "x".to_owned(),
            dtype: DType::F32,
            sample_shape: sample_shape.to_vec(),
            batch: crate::data::BatchAxis::Any,
        }
    }

    #[test]
    fn shape_and_repeatability() {
        let set = Synthetic::new(&[input(&[Some(1), Some(3)])], 10, 0, 5).unwrap();
        let batch = set.batch(&[2, 4], None).unwrap();
        assert_eq!(batch.inputs["x"].shape(), [2, 1, 3]);
        let one = set.batch(&[4], None).unwrap();
        assert_eq!(batch.inputs["x"].to_f32().unwrap()[3..], one.inputs["x"].to_f32().unwrap());
        let later = Synthetic::new(&[input(&[Some(1), Some(3)])], 10, 4, 5).unwrap();
        assert_eq!(later.batch(&[0], None).unwrap().inputs, one.inputs);
    }

    #[test]
    fn refusals() {
        assert!(
            Synthetic::new(&[input(&[None])], 1, 0, 0)
                .unwrap_err()
                .to_string()
                .contains("symbolic")
        );
        let tokens = ModelInput {
            dtype: DType::I64,
            ..input(&[Some(1)])
        };
        assert!(Synthetic::new(&[tokens], 1, 0, 0).unwrap_err().to_string().contains("int64"));
    }
}
