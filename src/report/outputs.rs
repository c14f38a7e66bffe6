//! What the report says about the model's outputs: how each was trained, and how near it came to the float model's.

use serde::{Deserialize, Serialize};

word! {
    /// What an output is taken as.
    OutputKind {
        /// Scores of classes: the divergence of their distributions, along the axis of classes.
        Classes,
        /// Probabilities, each by itself: the divergence of each.
        Probabilities,
        /// Numbers: squared error over the float model's variance.
        Values,
        /// Directions: one minus the cosine of rows.
        Cosine,
        /// Nothing that is trained.
        Ignored,
    }
}

part! {
    /// One output of the model.
    ModelOutput {
        /// Its name.
        name: String,
        /// What it was taken as in training.
        kind: OutputKind,
        /// Why.
        reason: String,
        /// Its share of the loss, beside those of the other outputs; null where it is ignored.
        weight: Option<f64>,
        /// How near the fake-quantized model comes to the float one.
        fake_quantized: Fidelity,
        /// How near the integer model comes to the float one.
        lowered: Fidelity,
    }
}

part! {
    /// How near an output is to the same output of another model. A number that cannot be had is null.
    Fidelity {
        /// The mean over samples of the cosine of the two; null for integers.
        cosine: Option<f64>,
        /// The signal-to-noise ratio in dB: that of the squares of the other's values to those of the differences; null for integers, and
        /// where there is no difference.
        snr_db: Option<f64>,
        /// The sum of absolute differences over that of the other's absolute values; null for integers.
        relative_error: Option<f64>,
        /// The largest difference of any value; null if it is not finite.
        largest_difference: Option<f64>,
        /// The share of positions with the same first class, 0 to 1, or of equal integers; null for outputs without classes.
        same_positions: Option<f64>,
        /// The share of samples that have that at all positions: of sequences, whole sequences.
        same_samples: Option<f64>,
    }
}

impl Fidelity {
    /// In words, for a terminal.
    #[must_use]
    pub fn line(&self) -> String {
        let parts = [
            self.cosine.map(|cosine| format!("cosine {cosine:.5}")),
            self.snr_db.map(|ratio| format!("{ratio:.1} dB")),
            self.relative_error
                .map(|error| format!("relative error {:.2} %", 100.0 * error)),
            self.same_positions
                .map(|share| format!("same at {:.2} % of positions", 100.0 * share)),
            self.same_samples
                .map(|share| format!("and in {:.2} % of samples throughout", 100.0 * share)),
        ];
        let said: Vec<String> = parts.into_iter().flatten().collect();
        if said.is_empty() {
            "not comparable".to_owned()
        } else {
            said.join(", ")
        }
    }
}
