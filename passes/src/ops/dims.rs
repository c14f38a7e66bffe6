//! Products and quotients of dimensions, some of which are only names.

use crate::ir::Dim;

/// A product: a number, and what is left over.
#[derive(Default)]
struct Product<'a> {
    number: usize,
    symbols: Vec<&'a str>,
    unknown: usize,
}

impl<'a> Product<'a> {
    /// `None` where the number overflows.
    fn of(dims: &'a [Dim]) -> Option<Product<'a>> {
        let mut product = Product {
            number: 1,
            ..Product::default()
        };
        for dim in dims {
            match dim {
                Dim::Known(extent) => product.number = product.number.checked_mul(*extent)?,
                Dim::Symbol(name) => product.symbols.push(name),
                Dim::Unknown => product.unknown += 1,
            }
        }
        Some(product)
    }

    fn dim(&self) -> Dim {
        match (self.unknown, self.symbols.as_slice()) {
            (0, []) => Dim::Known(self.number),
            (0, [symbol]) if self.number == 1 => Dim::Symbol((*symbol).to_owned()),
            _ => Dim::Unknown,
        }
    }
}

/// The product of dimensions, where one dimension can say it.
#[must_use]
pub fn product(dims: &[Dim]) -> Dim {
    Product::of(dims).map_or(Dim::Unknown, |product| product.dim())
}

/// The dimension x with ∏ `rest` · x = ∏ `whole`, where that can be told. Equal names cancel.
///
/// # Errors
/// If both are numbers and do not divide.
pub fn quotient(whole: &[Dim], rest: &[Dim]) -> Result<Dim, String> {
    let (Some(mut whole), Some(rest)) = (Product::of(whole), Product::of(rest)) else {
        return Ok(Dim::Unknown);
    };
    let mut left_over = rest.unknown;
    for symbol in &rest.symbols {
        match whole.symbols.iter().position(|other| other == symbol) {
            Some(position) => drop(whole.symbols.swap_remove(position)),
            None => left_over += 1,
        }
    }
    if left_over > 0 || rest.number == 0 {
        return Ok(Dim::Unknown);
    }
    if whole.number.is_multiple_of(rest.number) {
        whole.number /= rest.number;
        return Ok(whole.dim());
    }
    if whole.symbols.is_empty() && whole.unknown == 0 {
        return Err(format!("{} elements do not divide by {}", whole.number, rest.number));
    }
    Ok(Dim::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n() -> Dim {
        Dim::Symbol("N".to_owned())
    }

    #[test]
    fn names_cancel() {
        let whole = [n(), Dim::Known(64), Dim::Known(7)];
        assert_eq!(quotient(&whole, &[n()]), Ok(Dim::Known(448)));
        assert_eq!(quotient(&whole, &[Dim::Known(448)]), Ok(n()));
        assert_eq!(quotient(&whole, &[Dim::Known(5)]), Ok(Dim::Unknown));
        assert_eq!(quotient(&whole, &[Dim::Symbol("M".to_owned())]), Ok(Dim::Unknown));
        assert!(quotient(&[Dim::Known(7)], &[Dim::Known(2)]).is_err());
    }

    #[test]
    fn products_are_said_where_one_dimension_can() {
        assert_eq!(product(&[Dim::Known(2), Dim::Known(3)]), Dim::Known(6));
        assert_eq!(product(&[n(), Dim::Known(1)]), n());
        assert_eq!(product(&[n(), Dim::Known(2)]), Dim::Unknown);
        assert_eq!(product(&[Dim::Known(usize::MAX), Dim::Known(2)]), Dim::Unknown);
    }
}
