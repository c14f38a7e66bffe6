//! Rules for single layers: `layers = { "/fc/*" = "w8a8", "/stem/*" = "float" }`.
//!
//! A pattern is a layer's name or a glob over it, in which `*` also crosses `/`. Where several match, the last in the file wins.

use std::fmt;

use globset::{Glob, GlobMatcher};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::bits::Bits;

/// What is done with the layers that a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRule {
    /// Quantized to these bits.
    Bits(Bits),
    /// Left in float.
    Float,
}

/// Patterns and their rules, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct LayerRules {
    rules: Vec<(GlobMatcher, LayerRule)>,
}

impl LayerRules {
    /// The rule for the layer with this name, if any pattern matches.
    #[must_use]
    pub fn for_layer(&self, name: &str) -> Option<LayerRule> {
        let matches = |matcher: &GlobMatcher| matcher.glob().glob() == name || matcher.is_match(name);
        self.rules
            .iter()
            .rev()
            .find(|(matcher, _)| matches(matcher))
            .map(|(_, rule)| *rule)
    }

    /// The patterns that match none of `names`: they are mistakes, and are to be refused.
    #[must_use]
    pub fn unmatched<'a>(&self, names: impl IntoIterator<Item = &'a str> + Clone) -> Vec<&str> {
        let used = |matcher: &GlobMatcher| {
            names
                .clone()
                .into_iter()
                .any(|name| matcher.glob().glob() == name || matcher.is_match(name))
        };
        self.rules
            .iter()
            .filter(|(matcher, _)| !used(matcher))
            .map(|(matcher, _)| matcher.glob().glob())
            .collect()
    }

    /// Does this pattern, one of them, match the layer with this name?
    #[must_use]
    pub fn matches(&self, pattern: &str, name: &str) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|(matcher, _)| matcher.glob().glob() == pattern && (pattern == name || matcher.is_match(name)))
    }

    /// Every pattern with its rule, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LayerRule)> {
        self.rules.iter().map(|(matcher, rule)| (matcher.glob().glob(), *rule))
    }
}

impl<'de> Deserialize<'de> for LayerRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LayerRule, D::Error> {
        struct RuleVisitor;

        impl Visitor<'_> for RuleVisitor {
            type Value = LayerRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bits such as \"w8a8\", or \"float\"")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<LayerRule, E> {
                value.to_string().parse().map(LayerRule::Bits).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<LayerRule, E> {
                match value {
                    "float" => Ok(LayerRule::Float),
                    bits => bits
                        .parse()
                        .map(LayerRule::Bits)
                        .map_err(|error| E::custom(format!("{error}; or \"float\""))),
                }
            }
        }

        deserializer.deserialize_any(RuleVisitor)
    }
}

impl<'de> Deserialize<'de> for LayerRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LayerRules, D::Error> {
        struct RulesVisitor;

        impl<'de> Visitor<'de> for RulesVisitor {
            type Value = LayerRules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of layer patterns, such as { \"/fc/*\" = \"w8a8\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LayerRules, A::Error> {
                let mut rules = Vec::new();
                while let Some((pattern, rule)) = map.next_entry::<String, LayerRule>()? {
                    let glob = Glob::new(&pattern)
                        .map_err(|error| A::Error::custom(format!("\"{pattern}\" is no pattern: {}", error.kind())))?;
                    rules.push((glob.compile_matcher(), rule));
                }
                Ok(LayerRules { rules })
            }
        }

        deserializer.deserialize_map(RulesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Table {
        layers: LayerRules,
    }

    fn rules(text: &str) -> LayerRules {
        toml::from_str::<Table>(&format!("layers = {{ {text} }}")).unwrap().layers
    }

    #[test]
    fn last_match_wins_and_order_is_kept() {
        let rules = rules(r#""z*" = 4, "/a/*" = "float", "/a/b" = "w2a3", "conv[1]" = 8"#);
        assert_eq!(rules.for_layer("/a/b"), Some(LayerRule::Bits(Bits::new(2, 3).unwrap())));
        assert_eq!(rules.for_layer("/a/b/c"), Some(LayerRule::Float));
        assert_eq!(rules.for_layer("conv[1]"), Some(LayerRule::Bits(Bits::new(8, 8).unwrap())));
        assert_eq!(rules.for_layer("other"), None);
        assert_eq!(
            rules.iter().map(|(pattern, _)| pattern).collect::<Vec<_>>(),
            ["z*", "/a/*", "/a/b", "conv[1]"]
        );
        assert_eq!(rules.unmatched(["/a/b", "conv1"]), ["z*"]);
    }

    #[test]
    fn refusals() {
        let message = |text: &str| {
            toml::from_str::<Table>(&format!("layers = {{ {text} }}"))
                .err()
                .unwrap()
                .message()
                .to_owned()
        };
        assert!(message(r#""a" = "w9a9""#).contains("2 to 8"));
        assert!(message(r#""a" = "flat""#).contains("or \"float\""));
        assert!(message(r#""a[" = 4"#).contains("no pattern"));
    }
}
