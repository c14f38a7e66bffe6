//! Sizes of memory: `512MB`, `4GB`, `1.5GiB`, or plain bytes. MB counts by 1000, MiB by 1024, in any case of letters.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A number of bytes, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

const UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

impl Size {
    /// This many bytes.
    #[must_use]
    pub fn of(bytes: u64) -> Size {
        Size(bytes)
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("\"{text}\" is no size of memory: write 512MB or 4GB");
        let lower = text.trim().to_ascii_lowercase();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)))
            .unwrap_or((&lower, 1));
        let digits = digits.trim_end();
        let plain =
            digits.starts_with(|first: char| first.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
        let number: f64 = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        #[allow(clippy::cast_precision_loss)]
        let bytes = number * unit as f64;
        // 2^63 is more than any machine has, and a float of it still an integer.
        if !(1.0..9.2e18).contains(&bytes) {
            return Err(wrong());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(Size(bytes as u64))
    }
}

impl fmt::Display for Size {
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1_000 => write!(f, "{bytes} B"),
            bytes @ 1_000..1_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes @ 1_000_000..1_000_000_000 => write!(f, "{:.0} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.2} GB", bytes as f64 / 1e9),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"4GB\"")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Size, E> {
                value.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, bytes) in [
            ("4GB", 4_000_000_000),
            ("512mb", 512_000_000),
            ("1.5 GiB", 3 << 29),
            ("100", 100),
            ("7b", 7),
            ("2KiB", 2048),
        ] {
            assert_eq!(text.parse(), Ok(Size::of(bytes)), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "GB",
            "0",
            "-1GB",
            "+1GB",
            "1e3MB",
            "four GB",
            "1.2.3GB",
            "99999999TB",
            ".5GB",
            "4 G",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(
                error.contains("no size of memory") && error.contains("4GB"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn shown() {
        let shown = [12, 1_234, 87_654_321, 4_000_000_000].map(|bytes| Size::of(bytes).to_string());
        assert_eq!(shown, ["12 B", "1.2 kB", "88 MB", "4.00 GB"]);
    }
}
