//! Bit widths: `3`, or `w3a4` for weights and activations apart; 2 to 8 each. `w4`: weights alone, activations stay in floats. `w3a4u` and `w3a4s` also say whether activations have levels
//! below 0, which is else taken from the graph and the data.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The fewest bits: at 1 a signed weight would be −1 or 0.
const MIN: u8 = 2;
/// The most: levels are bytes.
const MAX: u8 = 8;

/// Bits of weights and activations, each 2 to 8, or of weights alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    weights: u8,
    activations: Option<u8>,
    sign: Option<Signedness>,
}

/// Have activations levels below 0?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signedness {
    /// No: what is below 0 is clipped.
    Unsigned,
    /// Yes.
    Signed,
}

impl Bits {
    /// Bits of weights and activations.
    ///
    /// # Errors
    /// If one is not 2 to 8.
    pub fn new(weights: u8, activations: u8) -> Result<Bits, String> {
        for bits in [weights, activations] {
            if !(MIN..=MAX).contains(&bits) {
                return Err(format!("{bits} bits: weights and activations take {MIN} to {MAX}"));
            }
        }
        Ok(Bits {
            weights,
            activations: Some(activations),
            sign: None,
        })
    }

    /// Bits of weights alone.
    ///
    /// # Errors
    /// If they are not 2 to 8.
    pub fn of_weights(weights: u8) -> Result<Bits, String> {
        Ok(Bits {
            activations: None,
            ..Bits::new(weights, weights)?
        })
    }

    /// The sign of activations that is asked for.
    #[must_use]
    pub fn sign(self) -> Option<Signedness> {
        self.sign
    }

    /// Of the weights.
    #[must_use]
    pub fn weights(self) -> u8 {
        self.weights
    }

    /// Of the activations; `None` where they stay in floats.
    #[must_use]
    pub fn activations(self) -> Option<u8> {
        self.activations
    }

    /// Are weights alone quantized?
    #[must_use]
    pub fn is_weight_only(self) -> bool {
        self.activations.is_none()
    }

    /// Are there 8 of all that is quantized? Such a network is trained for a short while at a low rate, from steps that fit well.
    #[must_use]
    pub fn are_eight(self) -> bool {
        (self.weights, self.activations.unwrap_or(8)) == (8, 8)
    }
}

impl Default for Bits {
    fn default() -> Bits {
        Bits {
            weights: MAX,
            activations: Some(MAX),
            sign: None,
        }
    }
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Bits, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no bit width: write 3, w3a4 for weights and activations apart, or w4 for weights alone, each {MIN} to {MAX}"
            )
        };
        let number = |digits: &str| -> Result<u8, String> {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).ok_or_else(wrong)
        };
        match text.strip_prefix('w') {
            None => number(text).and_then(|bits| Bits::new(bits, bits)),
            Some(rest) => {
                let Some((weights, activations)) = rest.split_once('a') else {
                    return Bits::of_weights(number(rest)?);
                };
                let (activations, sign) = match activations.strip_suffix(['u', 's']) {
                    Some(rest) if activations.ends_with('u') => (rest, Some(Signedness::Unsigned)),
                    Some(rest) => (rest, Some(Signedness::Signed)),
                    None => (activations, None),
                };
                let bits = Bits::new(number(weights)?, number(activations)?)?;
                Ok(Bits { sign, ..bits })
            }
        }
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.sign {
            None => "",
            Some(Signedness::Unsigned) => "u",
            Some(Signedness::Signed) => "s",
        };
        match self.activations {
            Some(activations) => write!(f, "w{}a{activations}{sign}", self.weights),
            None => write!(f, "w{}", self.weights),
        }
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bits, D::Error> {
        struct BitsVisitor;

        impl Visitor<'_> for BitsVisitor {
            type Value = Bits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bits such as 3 or \"w3a4\"")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Bits, E> {
                value.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Bits, E> {
                value.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(BitsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings() {
        assert_eq!("3".parse(), Bits::new(3, 3));
        assert_eq!("w2a8".parse(), Bits::new(2, 8));
        assert_eq!("w2a8".parse::<Bits>().unwrap().to_string(), "w2a8");
    }

    #[test]
    fn of_weights_alone() {
        let bits: Bits = "w4".parse().unwrap();
        assert_eq!(
            (bits.weights(), bits.activations(), bits.to_string()),
            (4, None, "w4".to_owned())
        );
        assert!(bits.is_weight_only() && !Bits::default().is_weight_only());
        assert!("w1".parse::<Bits>().unwrap_err().contains("2 to 8"));
    }

    #[test]
    fn signs() {
        for (text, sign) in [
            ("w8a8u", Some(Signedness::Unsigned)),
            ("w3a4s", Some(Signedness::Signed)),
            ("w3a4", None),
        ] {
            let bits: Bits = text.parse().unwrap();
            assert_eq!((bits.sign(), bits.to_string()), (sign, text.to_owned()));
        }
    }

    #[test]
    fn refusals() {
        for text in ["1", "9", "w1a4", "w4a9", "0"] {
            assert!(text.parse::<Bits>().unwrap_err().contains("2 to 8"), "{text}");
        }
        for text in [
            "x", "", "w", "w3s", "a4", "w3a", "-3", "+3", "3.0", "w 3a4", "300", "W3A4", "3u", "w3au", "w3a4us",
        ] {
            assert!(text.parse::<Bits>().unwrap_err().contains("no bit width"), "{text}");
        }
    }
}
