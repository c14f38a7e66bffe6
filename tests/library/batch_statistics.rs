//! BatchNormalization's statistics, taken anew after training, do not depend on how the graph is spelled for an engine, and are those of the
//! data: for a normalization that reads the input they are worked out here from the batches themselves.

use crate::engine_support::{engines, numbers};
use crate::step_support::Bench;
use lsqc::engine::Tensors;
use lsqc::tune::dialect;
use lsqc_passes::legalize::Dialect;

/// Few values to a channel, so that a wrong M in M/(M − 1) shows.
const BATCH: usize = 4;
const CHANNELS: usize = 3;
const PIXELS: usize = 4;
/// Means of a few float32 numbers.
const TOLERANCE: f64 = 1e-6;

const NETWORK: &str = "g (float[N,3,2,2] x) => (float[N,4] y)
    <float[3] gamma = {1, 0.5, 2}, float[3] beta = {0, 0.5, -1}, float[3] mean = {0, 0, 0}, float[3] variance = {1, 1, 1},
     float[4] gamma2 = {1, 1, 1, 1}, float[4] beta2 = {0, 0, 0, 0}, float[4] mean2 = {0, 0, 0, 0}, float[4] variance2 = {1, 1, 1, 1},
     float[4,3,1,1] w = normal(seed = 2, scale = 0.5)>
    {
      n = BatchNormalization (x, gamma, beta, mean, variance)
      r = Relu (n)
      c = Conv (r, w)
      m = BatchNormalization (c, gamma2, beta2, mean2, variance2)
      p = GlobalAveragePool (m)
      y = Flatten <axis = 1> (p)
    }";

#[test]
fn statistics_are_those_of_the_data_in_every_spelling() {
    let settings = "[data]\ntrain = \"data.npz\"\ntest = \"data.npz\"\n";
    let folder = crate::common::folder(&[
        ("model.onnxtxt", NETWORK.as_bytes()),
        ("data.npz", &crate::common::data("x", &[CHANNELS, 2, 2], 10 * BATCH)),
        ("lsqc.toml", settings.as_bytes()),
    ]);
    let mut bench = Bench::open(&folder.path().join("model.onnxtxt"), BATCH, 0.01);
    let float = bench.float.clone();
    let mut first: Option<Tensors> = None;
    for engine in engines() {
        for spelling in [Dialect::default(), dialect(engine.as_ref())] {
            let (found, batches) = bench.statistics(&float, engine.as_ref(), spelling);
            let names: Vec<&str> = found.keys().map(String::as_str).collect();
            assert_eq!(names, ["mean", "mean2", "variance", "variance2"], "{}", engine.name());
            let (means, variances) = of_input(&batches);
            close(&numbers(&found, "mean"), &means, "the mean");
            close(&numbers(&found, "variance"), &variances, "the variance");
            for (name, expected) in first.get_or_insert_with(|| found.clone()) {
                close(&numbers(&found, name), &expected.to_f64().unwrap(), name);
            }
        }
    }
}

/// Mean and unbiased variance of each channel in each batch, averaged over batches.
fn of_input(batches: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let (mut means, mut variances) = (vec![0.0; CHANNELS], vec![0.0; CHANNELS]);
    for batch in batches {
        for channel in 0..CHANNELS {
            let of_channel = batch.chunks(PIXELS).skip(channel).step_by(CHANNELS).flatten();
            let values: Vec<f64> = of_channel.copied().collect();
            assert_eq!(values.len(), BATCH * PIXELS);
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            means[channel] += mean / batches.len() as f64;
            variances[channel] += squares / (count - 1.0) / batches.len() as f64;
        }
    }
    (means, variances)
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let apart = (found - expected).abs() / expected.abs().max(1.0);
        assert!(apart <= TOLERANCE, "{what} is {found}, not {expected}");
    }
}
