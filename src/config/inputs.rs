//! What the user settles about the model's inputs before anything is done with it: shapes, extents of named axes, values that never change.
//!
//! `--shape NAME=1x3xHxW` (a number or the name of an axis for each extent; commas instead of `x` where a name has that letter),
//! `--axis NAME=SIZE`, `--fix-input NAME=VALUE`; in `lsqc.toml` the tables `shapes`, `axes` and `fixed` of `[model]`. What does not read as
//! that is refused here; names that the model does not have, where the model is read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};

use super::file::ModelTable;
use super::flags::ShapeFlags;

/// One extent of an input's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A number, at least 1.
    Number(usize),
    /// A named axis: the same extent everywhere in the model.
    Axis(String),
}

/// The extents of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents(pub Vec<Extent>);

/// All that is settled, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputWishes {
    /// The shapes of inputs.
    pub shapes: BTreeMap<String, Extents>,
    /// The sizes of named axes.
    pub axes: BTreeMap<String, usize>,
    /// What every element of an input is; it is no input of the result.
    pub fixed: BTreeMap<String, f64>,
}

impl InputWishes {
    /// What the flags say, and of other names what `[model]` says.
    pub(super) fn new(flags: &ShapeFlags, table: &ModelTable) -> InputWishes {
        let mut wishes = InputWishes {
            shapes: table.shapes.clone(),
            axes: table.axes.iter().map(|(name, size)| (name.clone(), size.get())).collect(),
            fixed: table.fixed.clone(),
        };
        let pairs = |pair: &Named<Extents>| (pair.name.clone(), pair.value.clone());
        wishes.shapes.extend(flags.shape.iter().map(pairs));
        wishes
            .axes
            .extend(flags.axis.iter().map(|axis| (axis.name.clone(), axis.value.get())));
        wishes
            .fixed
            .extend(flags.fix_input.iter().map(|pair| (pair.name.clone(), pair.value.0)));
        wishes
    }
}

/// `NAME=VALUE`. Names may hold `=`, values do not.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T> {
    /// Before the last `=`.
    pub name: String,
    /// Behind it.
    pub value: T,
}

impl<T: FromStr<Err: fmt::Display>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Named<T>, String> {
        match text.rsplit_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Named {
                name: name.to_owned(),
                value: value.parse().map_err(|why: T::Err| format!("{name}: {why}"))?,
            }),
            _ => Err(format!("\"{text}\" is not NAME=VALUE")),
        }
    }
}

/// A number that is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finite(pub f64);

impl FromStr for Finite {
    type Err = String;

    fn from_str(text: &str) -> Result<Finite, String> {
        let number: Option<f64> = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Finite).ok_or_else(|| format!("\"{text}\" is no number"))
    }
}

impl FromStr for Extents {
    type Err = String;

    fn from_str(text: &str) -> Result<Extents, String> {
        let separator = if text.contains(',') { ',' } else { 'x' };
        let wrong = || format!("\"{text}\" is no shape: write 1x3x224x224, with the name of an axis where it is to stay open");
        let extent = |part: &str| {
            let part = part.trim();
            if part.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
                part.parse().ok().filter(|&size| size > 0).map(Extent::Number)
            } else {
                (!part.is_empty()).then(|| Extent::Axis(part.to_owned()))
            }
        };
        let extents = if text.is_empty() {
            Some(vec![])
        } else {
            text.split(separator).map(extent).collect()
        };
        extents.map(Extents).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Extents, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Result<Vec<Extent>, String> {
        text.parse().map(|Named::<Extents> { value, .. }| value.0)
    }

    #[test]
    fn shapes() {
        let axis = |name: &str| Extent::Axis(name.to_owned());
        let number = Extent::Number;
        assert_eq!(shape("image=1x3x224x224").unwrap(), [1, 3, 224, 224].map(number));
        assert_eq!(shape("a=b=Nx3").unwrap(), [axis("N"), number(3)]);
        assert_eq!(shape("a=max,2").unwrap(), [axis("max"), number(2)]);
        assert_eq!(shape("a=").unwrap(), []);
        for wrong in ["a=1x0", "a=1xx2", "a=-1x3", "a=3y"] {
            assert!(shape(wrong).unwrap_err().contains("no shape"), "{wrong}");
        }
        for wrong in ["1x3", "=1x3"] {
            assert!(shape(wrong).unwrap_err().contains("is not NAME=VALUE"), "{wrong}");
        }
    }

    #[test]
    fn values() {
        let value = |text: &str| text.parse().map(|Named::<Finite> { value, .. }| value.0);
        assert_eq!(value("sr=16000"), Ok(16000.0));
        assert_eq!(value("x=-0.5"), Ok(-0.5));
        assert_eq!(value("x=inf"), Err("x: \"inf\" is no number".to_owned()));
        assert_eq!(value("x=loud"), Err("x: \"loud\" is no number".to_owned()));
    }
}
