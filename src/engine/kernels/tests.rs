//! Kernels against the formulas, written as loops in double precision; and threads, which must not change a bit.

use super::batch_norm::{Backward, BatchNorm, Channels, Forward};
use super::{ConvWeight, FakeQuantize, Parallel, Serial};

/// Of the largest value: sums of up to a few thousand products, each rounded to 6e-8 of itself, in lanes of single precision.
const TOLERANCE: f64 = 1e-5;

/// From the last part to the first, each on a thread of its own.
struct Backwards;

impl Parallel for Backwards {
    fn each(&self, total: usize, work: &(dyn Fn(usize) + Send + Sync)) {
        std::thread::scope(|scope| {
            for at in (0..total).rev() {
                scope.spawn(move || work(at));
            }
        });
    }
}

/// Numbers between −1 and 1, no two alike: multiples of the golden ratio, modulo 1.
fn noise(count: usize, seed: f64) -> Vec<f32> {
    let one = |at: usize| ((at as f64 + 1.0) * 0.618_033_988_749 + seed).fract() * 2.0 - 1.0;
    (0..count).map(|at| one(at) as f32).collect()
}

fn close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= TOLERANCE * scale, "{what}: value {at} is {found}, not {expected}");
    }
}

fn conv(channels: usize, filters: usize, group: usize, input: [usize; 2], kernel: [usize; 2]) -> ConvWeight {
    let pads = [kernel[0] / 2, kernel[1] / 2];
    ConvWeight {
        batch: 11,
        channels,
        filters,
        group,
        input,
        output: [0, 1].map(|axis| input[axis] + 2 * pads[axis] + 1 - kernel[axis]),
        kernel,
        strides: [1, 1],
        dilations: [1, 1],
        pads,
    }
}

fn conv_by_definition(of: &ConvWeight, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let (per_group, filters) = (of.channels / of.group, of.filters / of.group);
    let mut dw = Vec::new();
    for o in 0..of.filters {
        for c in 0..per_group {
            for t in 0..of.kernel[0] * of.kernel[1] {
                let (ky, kx) = (t / of.kernel[1], t % of.kernel[1]);
                let mut sum = 0.0;
                for n in 0..of.batch {
                    for p in 0..of.output[0] * of.output[1] {
                        let (row, column) = (p / of.output[1], p % of.output[1]);
                        let y = row * of.strides[0] + ky * of.dilations[0];
                        let x_at = column * of.strides[1] + kx * of.dilations[1];
                        let inside = |at: usize, axis: usize| at.checked_sub(of.pads[axis]).filter(|&at| at < of.input[axis]);
                        let (Some(y), Some(x_at)) = (inside(y, 0), inside(x_at, 1)) else {
                            continue;
                        };
                        let channel = o / filters * per_group + c;
                        let plane = (n * of.channels + channel) * of.input[0] * of.input[1];
                        let value = x[plane + y * of.input[1] + x_at];
                        let gradient = dy[(n * of.filters + o) * of.output[0] * of.output[1] + p];
                        sum += f64::from(value) * f64::from(gradient);
                    }
                }
                dw.push(sum);
            }
        }
    }
    dw
}

#[test]
fn weight_gradients_are_their_definition() {
    let strided = |of: ConvWeight, strides: [usize; 2]| ConvWeight {
        output: [0, 1].map(|axis| (of.output[axis] - 1) / strides[axis] + 1),
        strides,
        ..of
    };
    let dilated = |of: ConvWeight| ConvWeight {
        output: [0, 1].map(|axis| of.output[axis] - (of.kernel[axis] - 1)),
        dilations: [2, 2],
        ..of
    };
    let cases = [
        ("3x3", conv(3, 5, 1, [6, 7], [3, 3])),
        ("3x3, more filters than a register", conv(4, 19, 1, [5, 5], [3, 3])),
        ("1x1", conv(13, 17, 1, [4, 3], [1, 1])),
        ("3x3, stride 2", strided(conv(3, 4, 1, [7, 8], [3, 3]), [2, 2])),
        ("3x3, uneven strides", strided(conv(2, 4, 1, [9, 8], [3, 3]), [1, 3])),
        ("3x3, dilated", dilated(conv(2, 3, 1, [8, 9], [3, 3]))),
        ("1x5", conv(2, 3, 1, [4, 9], [1, 5])),
        ("groups", conv(4, 6, 2, [5, 5], [3, 3])),
        ("depthwise", conv(18, 18, 18, [6, 5], [3, 3])),
        (
            "depthwise, multiplier 2, stride 2",
            strided(conv(9, 18, 9, [7, 6], [3, 3]), [2, 2]),
        ),
        ("one channel", conv(1, 16, 1, [7, 7], [3, 3])),
        (
            "no pads",
            ConvWeight {
                pads: [0, 0],
                output: [3, 4],
                ..conv(2, 3, 1, [5, 6], [3, 3])
            },
        ),
        (
            "pads at the end alone",
            ConvWeight {
                pads: [0, 0],
                output: [5, 6],
                ..conv(2, 3, 1, [5, 6], [3, 3])
            },
        ),
    ];
    for (what, of) in cases {
        let x = noise(of.batch * of.channels * of.input[0] * of.input[1], 0.1);
        let dy = noise(of.batch * of.filters * of.output[0] * of.output[1], 0.7);
        let expected = conv_by_definition(&of, &x, &dy);
        let (mut dw, mut threaded) = (vec![f32::NAN; expected.len()], vec![f32::NAN; expected.len()]);
        of.compute(&Serial, &x, &dy, &mut dw);
        close(what, &dw, &expected);
        of.compute(&Backwards, &x, &dy, &mut threaded);
        assert_eq!(dw, threaded, "{what}: threads");
    }
}

#[test]
fn quantizers_are_their_definition() {
    // Two samples, three steps, more values in turn than a part has.
    let (steps, inner) = ([0.31f32, 0.17, 0.05], 20_011);
    let of = FakeQuantize {
        lo: -4.0,
        hi: 3.0,
        gain: 0.25,
    };
    let (v, dy) = (noise(2 * 3 * inner, 0.2), noise(2 * 3 * inner, 0.9));
    let mut expected = (Vec::new(), Vec::new(), vec![0.0f64; 3]);
    for (at, (&v, &dy)) in v.iter().zip(&dy).enumerate() {
        let step = steps[at / inner % 3];
        let u = v / step;
        let code = u.clamp(of.lo, of.hi).round_ties_even();
        expected.0.push(code * step);
        let inside = u > of.lo && u < of.hi;
        expected.1.push(if inside { dy } else { 0.0 });
        let slope = if inside { code - u } else { code };
        expected.2[at / inner % 3] += f64::from(dy) * f64::from(slope) * f64::from(of.gain);
    }
    let mut y = vec![f32::NAN; v.len()];
    of.forward(&Serial, &v, &steps, inner, &mut y);
    assert_eq!(y, expected.0);
    let (mut dv, mut ds) = (vec![f32::NAN; v.len()], vec![f32::NAN; 3]);
    of.backward(&Serial, (&v, &steps, &dy), inner, (&mut dv, &mut ds));
    assert_eq!(dv, expected.1);
    close("∂s", &ds, &expected.2);
    let mut threaded = (vec![f32::NAN; v.len()], vec![f32::NAN; 3]);
    of.backward(&Backwards, (&v, &steps, &dy), inner, (&mut threaded.0, &mut threaded.1));
    assert_eq!((dv, ds), threaded);
}

#[test]
fn the_mask_is_strict_and_rounding_goes_to_even() {
    let of = FakeQuantize {
        lo: 0.0,
        hi: 3.0,
        gain: 1.0,
    };
    let v = [0.0f32, 3.0, 0.5, 1.5, 2.5, -1.0, 4.0];
    let mut y = [f32::NAN; 7];
    of.forward(&Serial, &v, &[1.0], 7, &mut y);
    assert_eq!(y, [0.0, 3.0, 0.0, 2.0, 2.0, 0.0, 3.0]);
    let (mut dv, mut ds) = ([f32::NAN; 7], [f32::NAN]);
    of.backward(&Serial, (&v, &[1.0], &[1.0; 7]), 7, (&mut dv, &mut ds));
    assert_eq!(dv, [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    // 0 + 3 − 0.5 + 0.5 − 0.5 + 0 + 3
    assert_eq!(ds, [5.5]);
}

#[test]
fn batch_norm_is_its_definition() {
    let epsilon = 0.01f32;
    for (images, channels, inner) in [(11, 3, 35), (19, 2, 1)] {
        let count = images * channels * inner;
        let (x, dy) = (noise(count, 0.3), noise(count, 0.6));
        let (gamma, beta) = (noise(channels, 0.4), noise(channels, 0.5));
        let of_channel = |values: &[f32], channel: usize| -> Vec<f64> {
            let rows = values.chunks(inner).enumerate().filter(|(row, _)| row % channels == channel);
            rows.flat_map(|(_, row)| row.iter().map(|&value| f64::from(value))).collect()
        };
        let shape = Channels { count: channels, inner };
        let bn = BatchNorm { epsilon };
        let run = |parallel: &dyn Parallel| {
            let (mut y, mut mean, mut variance) = (vec![f32::NAN; count], vec![f32::NAN; channels], vec![f32::NAN; channels]);
            let forward = Forward {
                x: &x,
                gamma: &gamma,
                beta: &beta,
                y: &mut y,
                mean: &mut mean,
                variance: &mut variance,
            };
            bn.forward(parallel, shape, forward);
            let (mut dx, mut d_gamma, mut d_beta) = (vec![f32::NAN; count], vec![f32::NAN; channels], vec![f32::NAN; channels]);
            let backward = Backward {
                dy: &dy,
                x: &x,
                gamma: &gamma,
                mean: &mean,
                variance: &variance,
                dx: &mut dx,
                d_gamma: &mut d_gamma,
                d_beta: &mut d_beta,
            };
            bn.backward(parallel, shape, backward);
            [y, mean, variance, dx, d_gamma, d_beta]
        };
        let found = run(&Serial);
        assert_eq!(found, run(&Backwards), "threads");
        let [y, mean, variance, dx, d_gamma, d_beta] = &found;
        for channel in 0..channels {
            let (xs, dys) = (of_channel(&x, channel), of_channel(&dy, channel));
            let m = xs.len() as f64;
            let mu = xs.iter().sum::<f64>() / m;
            let sigma = xs.iter().map(|x| (x - mu) * (x - mu)).sum::<f64>() / m;
            let r = 1.0 / (sigma + f64::from(epsilon)).sqrt();
            let (g, b) = (f64::from(gamma[channel]), f64::from(beta[channel]));
            close("μ", &mean[channel..=channel], &[mu]);
            close("σ²", &variance[channel..=channel], &[sigma]);
            let normal: Vec<f64> = xs.iter().map(|x| (x - mu) * r).collect();
            let (sum, product) = (
                dys.iter().sum::<f64>(),
                dys.iter().zip(&normal).map(|(dy, x)| dy * x).sum::<f64>(),
            );
            close("∂β", &d_beta[channel..=channel], &[sum]);
            close("∂γ", &d_gamma[channel..=channel], &[product]);
            let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<f32>>();
            let expected = normal.iter().map(|x| x * g + b).collect::<Vec<f64>>();
            close("y", &narrow(of_channel(y, channel)), &expected);
            let slopes = dys
                .iter()
                .zip(&normal)
                .map(|(dy, x)| g * r * (dy - sum / m - x * product / m));
            close("∂x", &narrow(of_channel(dx, channel)), &slopes.collect::<Vec<f64>>());
        }
    }
}
