#[test]
fn speed() {
    use super::*;
    for (c, h) in [(16, 28), (32, 14), (64, 7)] {
        let of = ConvWeight {
            batch: 128,
            channels: c,
            filters: c,
            group: 1,
            input: [h, h],
            output: [h, h],
            kernel: [3, 3],
            strides: [1, 1],
            dilations: [1, 1],
            pads: [1, 1],
        };
        let x = vec![1.0f32; 128 * c * h * h];
        let mut dw = vec![0.0; c * c * 9];
        for _ in 0..3 {
            let t = std::time::Instant::now();
            of.compute(&Serial, &x, &x, &mut dw);
            let e = t.elapsed().as_secs_f64();
            println!(
                "dense {c} {:.2} ms {:.1} GFLOP/s",
                e * 1e3,
                (128 * c * c * 9 * h * h * 2) as f64 / e / 1e9
            );
        }
        let of = ConvWeight { group: c, ..of };
        for _ in 0..2 {
            let t = std::time::Instant::now();
            of.compute(&Serial, &x, &x, &mut dw[..c * 9]);
            let e = t.elapsed().as_secs_f64();
            println!(
                "depthwise {c} {:.2} ms {:.1} GFLOP/s",
                e * 1e3,
                (128 * c * 9 * h * h * 2) as f64 / e / 1e9
            );
        }
        let of = FakeQuantize {
            lo: 0.0,
            hi: 7.0,
            gain: 1.0,
        };
        let mut out = x.clone();
        for _ in 0..2 {
            let t = std::time::Instant::now();
            of.forward(&Serial, &x, &[0.3], x.len(), &mut out);
            let e = t.elapsed().as_secs_f64();
            let t = std::time::Instant::now();
            of.backward(&Serial, (&x, &[0.3], &x), x.len(), (&mut out, &mut [0.0]));
            println!(
                "fq {:.3} ns {:.3} ns",
                e * 1e9 / x.len() as f64,
                t.elapsed().as_secs_f64() * 1e9 / x.len() as f64
            );
        }
    }
}
