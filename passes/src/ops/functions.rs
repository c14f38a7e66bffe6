//! Functions of one number: powers, trigonometry and its inverses, hyperbolic functions; ∂x = ∂y · f'(x), as in [`super::pointwise`].
//!
//! Operator sets 7 and 9 brought the trigonometric ones. At the ends of their domains slopes are infinite, as they are.

use super::OpEntry;
use super::build::Build;
use super::pointwise::{At, by_slope, less_square, like_first};
use super::sample::Sample;
use crate::ir::ValueId;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Sqrt", like_first, "").gradient(|cx| by_slope(cx, sqrt), positive),
    OpEntry::new("Exp", like_first, "").gradient(|cx| by_slope(cx, |_, at| at.y), anywhere),
    OpEntry::new("Log", like_first, "").gradient(|cx| by_slope(cx, log), positive),
    OpEntry::new("Abs", like_first, "").gradient(|cx| by_slope(cx, |b, at| b.unary("Sign", at.x)), anywhere),
    OpEntry::new("Reciprocal", like_first, "").gradient(|cx| by_slope(cx, reciprocal), negative),
    OpEntry::new("Sin", like_first, "").gradient(|cx| by_slope(cx, |b, at| b.unary("Cos", at.x)), anywhere),
    OpEntry::new("Cos", like_first, "").gradient(|cx| by_slope(cx, cos), anywhere),
    OpEntry::new("Tan", like_first, "").gradient(|cx| by_slope(cx, tan), anywhere),
    OpEntry::new("Asin", like_first, "").gradient(|cx| by_slope(cx, asin), inside),
    OpEntry::new("Acos", like_first, "").gradient(|cx| by_slope(cx, acos), inside),
    OpEntry::new("Atan", like_first, "").gradient(|cx| by_slope(cx, atan), anywhere),
    OpEntry::new("Sinh", like_first, "").gradient(|cx| by_slope(cx, sinh), anywhere),
    OpEntry::new("Cosh", like_first, "").gradient(|cx| by_slope(cx, cosh), anywhere),
    OpEntry::new("Asinh", like_first, "").gradient(|cx| by_slope(cx, asinh), anywhere),
    OpEntry::new("Acosh", like_first, "").gradient(
        |cx| by_slope(cx, acosh),
        || vec![Sample::new("above 1").x_in(&[2, 3], 1.25, 3.0)],
    ),
    OpEntry::new("Atanh", like_first, "").gradient(|cx| by_slope(cx, atanh), inside),
];

fn inverse(b: &mut Build, v: ValueId) -> ValueId {
    let one = b.scalar(1.0);
    b.div(one, v)
}

/// v·v + c.
fn square_plus(b: &mut Build, v: ValueId, c: f32) -> ValueId {
    let (c, square) = (b.scalar(c), b.mul(v, v));
    b.add(square, c)
}

/// 1/(2√x).
/// Roots are taken for no less when their slope is computed: far below any activation, and its inverse far below the largest float.
const LEAST_ROOT: f32 = 1e-12;

/// 1/(2y), but finite at 0: what a root is taken of is mostly a sum of squares, whose own slope is 0 there, and ∞ · 0 would be no number.
fn sqrt(b: &mut Build, at: &At) -> ValueId {
    let (half, least) = (b.scalar(0.5), b.scalar(LEAST_ROOT));
    let root = b.binary("Max", at.y, least);
    b.div(half, root)
}

fn log(b: &mut Build, at: &At) -> ValueId {
    inverse(b, at.x)
}

/// −1/x² = −y².
fn reciprocal(b: &mut Build, at: &At) -> ValueId {
    less_square(b, 0.0, at.y)
}

fn cos(b: &mut Build, at: &At) -> ValueId {
    let sine = b.unary("Sin", at.x);
    b.unary("Neg", sine)
}

/// 1 + tan² x.
fn tan(b: &mut Build, at: &At) -> ValueId {
    square_plus(b, at.y, 1.0)
}

/// 1/√(1 − x²).
fn asin(b: &mut Build, at: &At) -> ValueId {
    let rest = less_square(b, 1.0, at.x);
    let root = b.unary("Sqrt", rest);
    inverse(b, root)
}

fn acos(b: &mut Build, at: &At) -> ValueId {
    let slope = asin(b, at);
    b.unary("Neg", slope)
}

/// 1/(1 + x²).
fn atan(b: &mut Build, at: &At) -> ValueId {
    let whole = square_plus(b, at.x, 1.0);
    inverse(b, whole)
}

/// (exp x ± exp −x)/2: not every engine has Sinh and Cosh.
fn half_exps(b: &mut Build, x: ValueId, join: &'static str) -> ValueId {
    let (negative, up) = (b.unary("Neg", x), b.unary("Exp", x));
    let down = b.unary("Exp", negative);
    let both = b.binary(join, up, down);
    b.scale(both, 0.5)
}

fn sinh(b: &mut Build, at: &At) -> ValueId {
    half_exps(b, at.x, "Add")
}

fn cosh(b: &mut Build, at: &At) -> ValueId {
    half_exps(b, at.x, "Sub")
}

/// 1/√(x² + 1).
fn asinh(b: &mut Build, at: &At) -> ValueId {
    let whole = square_plus(b, at.x, 1.0);
    let root = b.unary("Sqrt", whole);
    inverse(b, root)
}

/// 1/√(x² − 1).
fn acosh(b: &mut Build, at: &At) -> ValueId {
    let whole = square_plus(b, at.x, -1.0);
    let root = b.unary("Sqrt", whole);
    inverse(b, root)
}

/// 1/(1 − x²).
fn atanh(b: &mut Build, at: &At) -> ValueId {
    let rest = less_square(b, 1.0, at.x);
    inverse(b, rest)
}

fn anywhere() -> Vec<Sample> {
    vec![Sample::new("both signs").x(&[2, 3]), Sample::new("scalar").x(&[])]
}

fn positive() -> Vec<Sample> {
    vec![Sample::new("positive").x_in(&[2, 3], 0.5, 2.0)]
}

fn negative() -> Vec<Sample> {
    vec![Sample::new("negative").x_in(&[2, 1, 3], -2.0, -0.5)]
}

fn inside() -> Vec<Sample> {
    vec![Sample::new("inside the domain").x_in(&[2, 3], -0.75, 0.75)]
}
