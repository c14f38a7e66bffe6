//! ∂W of a two-dimensional convolution: ∂W[o, c, t] = Σ_n Σ_p ∂Y[n, o, p] · X[n, c, at(p, t)], without any copy of X for each tap t.
//!
//! ∂Y is turned so that a register holds one position of sixteen filters; a tile of taps (of any channel) then takes one multiply-add for
//! each position and tap, with the sums in registers. Depthwise, where filters share nothing, X is turned likewise.
//!
//! Images are summed in groups of fixed size and the groups in order, so that threads do not change the result.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::{LANES, Parallel, map};

/// A convolution whose ∂W is wanted; pads are explicit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConvWeight {
    /// N.
    pub(super) batch: usize,
    /// Channels of X, in all groups.
    pub(super) channels: usize,
    /// Filters, in all groups.
    pub(super) filters: usize,
    /// Groups.
    pub(super) group: usize,
    /// Height and width of X.
    pub(super) input: [usize; 2],
    /// Height and width of Y.
    pub(super) output: [usize; 2],
    /// Height and width of the window.
    pub(super) kernel: [usize; 2],
    /// Strides.
    pub(super) strides: [usize; 2],
    /// Dilations.
    pub(super) dilations: [usize; 2],
    /// Pads above and to the left.
    pub(super) pads: [usize; 2],
}

/// Images whose sum one thread makes.
const IMAGES: usize = 8;
/// Taps in a tile: with the register of ∂Y they fit the sixteen that every 64-bit instruction set has.
const TILE: usize = 12;
/// Positions that are taken together.
const RUN: usize = 8;

impl ConvWeight {
    /// Filters that share their channels; all of them where every filter has a channel of its own.
    fn sharing(&self) -> usize {
        if self.per_group() == 1 {
            self.filters
        } else {
            self.filters / self.group.max(1)
        }
    }

    /// Registers that all filters fill.
    fn blocks(&self) -> usize {
        self.filters / self.sharing().max(1) * self.sharing().div_ceil(LANES)
    }

    fn per_group(&self) -> usize {
        self.channels / self.group.max(1)
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Height and width of the padded X, as far as the window reaches.
    fn padded(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let steps = self.strides[axis] * self.output[axis].saturating_sub(1);
            let reached = steps + self.dilations[axis] * self.kernel[axis].saturating_sub(1) + 1;
            reached.max(self.pads[axis] + self.input[axis])
        })
    }

    /// ∂W into `dw`, from X and ∂Y.
    pub(super) fn compute(&self, parallel: &dyn Parallel, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let image = (self.channels * self.input[0] * self.input[1]).max(1);
        let map_size = (self.filters * self.output[0] * self.output[1]).max(1);
        let groups = x.chunks(image * IMAGES).zip(dy.chunks(map_size * IMAGES));
        let depthwise = self.per_group() == 1;
        let len = self.blocks() * self.per_group() * self.taps();
        let partial = map(parallel, groups.collect(), |(x, dy)| {
            let mut sums = vec![[0.0f32; LANES]; len];
            let mut scratch = Scratch::default();
            for (x, dy) in x.chunks(image).zip(dy.chunks(map_size)) {
                if depthwise {
                    self.depthwise(&mut scratch, (x, dy), &mut sums);
                } else {
                    self.pad(x, &mut scratch.x);
                    self.dense(&mut scratch, dy, &mut sums);
                }
            }
            sums
        });
        let mut total = vec![[0.0f32; LANES]; len];
        for sums in partial {
            for (total, sum) in total.iter_mut().flatten().zip(sums.iter().flatten()) {
                *total += sum;
            }
        }
        self.unturn(&total, dw);
    }

    /// One image with its pads.
    fn pad(&self, x: &[f32], padded: &mut Vec<f32>) {
        let ([height, width], [tall, wide]) = (self.input, self.padded());
        padded.clear();
        // Runs are whole: the last one reaches beyond the end.
        padded.resize(self.channels * tall * wide + wide + RUN, 0.0);
        let (plane, map) = ((tall * wide).max(1), (height * width).max(1));
        for (from, to) in x.chunks(map).zip(padded.chunks_mut(plane)) {
            let rows = to.chunks_mut(wide.max(1)).skip(self.pads[0]);
            for (from, to) in from.chunks(width.max(1)).zip(rows) {
                if let Some(to) = to.get_mut(self.pads[1]..self.pads[1] + width) {
                    to.copy_from_slice(from);
                }
            }
        }
    }

    /// Where tap `tap` of channel `channel` starts in the padded image.
    fn offset(&self, channel: usize, tap: usize) -> usize {
        let [tall, wide] = self.padded();
        let (row, column) = (tap / self.kernel[1].max(1), tap % self.kernel[1].max(1));
        (channel * tall + row * self.dilations[0]) * wide + column * self.dilations[1]
    }

    /// Adds one image to `sums`, which has a register of filters for each block of them, channel and tap.
    fn dense(&self, scratch: &mut Scratch, dy: &[f32], sums: &mut [[f32; LANES]]) {
        let columns = self.per_group() * self.taps();
        let filters = self.filters / self.group.max(1);
        let positions = (self.output[0] * self.output[1]).max(1);
        let walk = Walk::of(self);
        let maps = dy.chunks((filters * positions).max(1));
        let sums = sums.chunks_mut((filters.div_ceil(LANES) * columns).max(1));
        let long = walk.positions();
        for (group, (maps, sums)) in maps.zip(sums).enumerate() {
            scratch.dy.clear();
            scratch.dy.resize(filters.div_ceil(LANES) * long, [0.0; LANES]);
            for (maps, turned) in maps.chunks(LANES * positions).zip(scratch.dy.chunks_mut(long)) {
                turn(maps, walk, (positions, self.output[1]), turned);
            }
            for start in (0..columns).step_by(TILE) {
                let offset = |at: usize| self.offset(group * self.per_group() + at / self.taps(), at % self.taps());
                let mut taps: [&[f32]; TILE] = [&[]; TILE];
                if walk.is_one_run() {
                    for (tap, at) in taps.iter_mut().zip(start..columns) {
                        *tap = scratch.x.get(offset(at)..offset(at) + long).unwrap_or(&[]);
                    }
                } else {
                    scratch.tile.resize(TILE * long, 0.0);
                    for (met, at) in scratch.tile.chunks_mut(long).zip(start..columns) {
                        walk.pack(scratch.x.get(offset(at)..).unwrap_or(&[]), met);
                    }
                    taps.iter_mut()
                        .zip(scratch.tile.chunks(long))
                        .for_each(|(tap, met)| *tap = met);
                }
                for (dy, sums) in scratch.dy.chunks(long).zip(sums.chunks_mut(columns)) {
                    let products = multiply(dy, taps);
                    for (sum, product) in sums.iter_mut().skip(start).zip(&products) {
                        sum.iter_mut().zip(product).for_each(|(sum, product)| *sum += product);
                    }
                }
            }
        }
    }

    /// Registers of filters, back in the order of ∂W.
    fn unturn(&self, sums: &[[f32; LANES]], dw: &mut [f32]) {
        let (columns, filters) = (self.per_group() * self.taps(), self.sharing());
        let groups = dw.chunks_mut((filters * columns).max(1));
        let blocks = groups.flat_map(|group| group.chunks_mut((LANES * columns).max(1)));
        for (block, sums) in blocks.zip(sums.chunks(columns.max(1))) {
            for (lane, filter) in block.chunks_mut(columns.max(1)).enumerate() {
                for (value, sum) in filter.iter_mut().zip(sums) {
                    *value = sum[lane % LANES];
                }
            }
        }
    }

    /// The same, where every filter sees one channel: a register of filters for each block of them and tap.
    fn depthwise(&self, scratch: &mut Scratch, (x, dy): (&[f32], &[f32]), sums: &mut [[f32; LANES]]) {
        let ([height, width], [tall, wide]) = (self.input, self.padded());
        let multiplier = (self.filters / self.channels.max(1)).max(1);
        let positions = (self.output[0] * self.output[1]).max(1);
        let (walk, taps) = (Walk::of(self), self.taps().max(1));
        let long = walk.positions();
        let blocks = dy.chunks(LANES * positions).zip(sums.chunks_mut(taps)).enumerate();
        for (block, (maps, sums)) in blocks {
            scratch.dy.clear();
            scratch.dy.resize(long, [0.0; LANES]);
            turn(maps, walk, (positions, self.output[1]), &mut scratch.dy);
            scratch.turned.clear();
            scratch.turned.resize(tall * wide + wide + RUN, [0.0; LANES]);
            let inside = scratch
                .turned
                .get_mut(self.pads[0] * wide + self.pads[1]..)
                .unwrap_or(&mut []);
            for lane in 0..LANES {
                let channel = (block * LANES + lane) / multiplier;
                let map = x.get(channel * height * width..(channel + 1) * height * width).unwrap_or(&[]);
                for (values, registers) in map.chunks(width.max(1)).zip(inside.chunks_mut(wide.max(1))) {
                    registers
                        .iter_mut()
                        .zip(values)
                        .for_each(|(register, value)| register[lane] = *value);
                }
            }
            for (tile, sums) in sums.chunks_mut(TILE).enumerate() {
                let offset = |at: usize| self.offset(0, (tile * TILE + at).min(taps - 1));
                let mut met: [&[[f32; LANES]]; TILE] = [&[]; TILE];
                if walk.is_one_run() {
                    for (at, met) in met.iter_mut().enumerate() {
                        *met = scratch.turned.get(offset(at)..offset(at) + long).unwrap_or(&[]);
                    }
                } else {
                    scratch.packed.resize(TILE * long, [0.0; LANES]);
                    for (at, packed) in scratch.packed.chunks_mut(long).enumerate() {
                        walk.pack(scratch.turned.get(offset(at)..).unwrap_or(&[]), packed);
                    }
                    met.iter_mut()
                        .zip(scratch.packed.chunks(long))
                        .for_each(|(met, packed)| *met = packed);
                }
                let products = multiply_lanes(&scratch.dy, met);
                for (sum, product) in sums.iter_mut().zip(&products) {
                    sum.iter_mut().zip(product).for_each(|(sum, product)| *sum += product);
                }
            }
        }
    }
}

/// Buffers that are used image after image.
#[derive(Default)]
struct Scratch {
    /// The padded image.
    x: Vec<f32>,
    /// ∂Y in registers' order.
    dy: Vec<[f32; LANES]>,
    /// What each tap of a tile meets.
    tile: Vec<f32>,
    /// X in registers' order.
    turned: Vec<[f32; LANES]>,
    /// What each tap of a tile meets, in registers.
    packed: Vec<[f32; LANES]>,
}

/// How output positions step through the padded image.
#[derive(Clone, Copy)]
struct Walk {
    rows: usize,
    /// From one row of registers to the next.
    pitch: usize,
    /// From one output row to the next.
    row: usize,
    /// From one output column to the next.
    column: usize,
}

impl Walk {
    fn of(conv: &ConvWeight) -> Walk {
        let ([rows, columns], wide) = (conv.output, conv.padded()[1]);
        Walk {
            rows,
            // With stride 1 the rows of a tap are one run in the padded image: what lies between them meets zeros of ∂Y.
            pitch: if conv.strides == [1, 1] { wide } else { columns }.max(1),
            row: conv.strides[0] * wide,
            column: conv.strides[1].max(1),
        }
    }

    /// Does a tap meet one run of the padded image?
    fn is_one_run(self) -> bool {
        self.column == 1 && self.row == self.pitch
    }

    /// Registers, in whole runs.
    fn positions(self) -> usize {
        (self.rows * self.pitch).max(1).next_multiple_of(RUN)
    }

    /// What one tap meets at each position.
    fn pack<T: Copy>(self, x: &[T], met: &mut [T]) {
        for (row, met) in met.chunks_mut(self.pitch).enumerate() {
            let x = x.get(row * self.row..).unwrap_or(&[]);
            met.iter_mut()
                .zip(x.iter().step_by(self.column))
                .for_each(|(met, x)| *met = *x);
        }
    }
}

/// Up to sixteen maps of these positions and columns, turned: a register for each position. What has no value stays as it is.
fn turn(maps: &[f32], walk: Walk, (positions, columns): (usize, usize), turned: &mut [[f32; LANES]]) {
    for (lane, map) in maps.chunks(positions).enumerate().take(LANES) {
        for (values, registers) in map.chunks(columns.max(1)).zip(turned.chunks_mut(walk.pitch)) {
            registers
                .iter_mut()
                .zip(values)
                .for_each(|(register, value)| register[lane] = *value);
        }
    }
}

/// Σ over positions of ∂Y (a register) times what each tap of a tile meets there.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn multiply(dy: &[[f32; LANES]], taps: [&[f32]; TILE]) -> [[f32; LANES]; TILE] {
    let fused = target_cfg_f!(target_feature = "fma");
    let taps: [&[[f32; RUN]]; TILE] = taps.map(|tap| tap.as_chunks::<RUN>().0);
    let mut sums = [[0.0f32; LANES]; TILE];
    for (at, dy) in dy.as_chunks::<RUN>().0.iter().enumerate() {
        let met: [&[f32; RUN]; TILE] = taps.map(|tap| tap.get(at).unwrap_or(&[0.0; RUN]));
        for (position, dy) in dy.iter().enumerate() {
            for (sums, met) in sums.iter_mut().zip(met) {
                let x = met[position];
                for (sum, dy) in sums.iter_mut().zip(dy) {
                    *sum = if fused { x.mul_add(*dy, *sum) } else { x * dy + *sum };
                }
            }
        }
    }
    sums
}

/// Σ over positions of ∂Y times what each tap of a tile meets there, lane by lane.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn multiply_lanes(dy: &[[f32; LANES]], taps: [&[[f32; LANES]]; TILE]) -> [[f32; LANES]; TILE] {
    let fused = target_cfg_f!(target_feature = "fma");
    let mut products = [[0.0f32; LANES]; TILE];
    for (sums, tap) in products.iter_mut().zip(taps) {
        let mut total = [0.0f32; LANES];
        for (dy, x) in dy.iter().zip(tap) {
            for ((sum, dy), x) in total.iter_mut().zip(dy).zip(x) {
                *sum = if fused { x.mul_add(*dy, *sum) } else { x * dy + *sum };
            }
        }
        *sums = total;
    }
    products
}
