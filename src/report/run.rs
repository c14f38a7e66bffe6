//! What the report says about the run as a whole.

use serde::{Deserialize, Serialize};

part! {
    /// The program that wrote the report.
    Tool {
        /// Its name: lsqc.
        name: String,
        /// Its version.
        version: String,
    }
}

impl Tool {
    /// This program.
    #[must_use]
    pub fn this() -> Tool {
        Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

word! {
    /// Whether all gates were passed.
    Status {
        /// They were, or there were none.
        Passed,
        /// A gate failed; the files were written all the same.
        GateFailed,
    }
}

part! {
    /// A file that was read.
    File {
        /// Its name, without its folder.
        name: String,
        /// Its size in bytes.
        bytes: u64,
        /// The SHA-256 of its content, in hexadecimal.
        sha256: String,
    }
}

word! {
    /// What an output file is.
    OutputRole {
        /// The integer model.
        Model,
        /// The trained fake-quantized model.
        FakeQuantized,
        /// Part of the training-step graph.
        Step,
        /// Part of the hand-over folder.
        Deployment,
    }
}

part! {
    /// A file that was written.
    Output {
        /// What it is.
        role: OutputRole,
        /// Name, size and hash.
        file: File,
    }
}

word! {
    /// Where samples came from.
    DataOrigin {
        /// Files.
        Real,
        /// Noise: the result is not to be trusted.
        Synthetic,
    }
}

word! {
    /// Where test samples came from.
    TestSet {
        /// A test set was given.
        Given,
        /// A part of the training data was set aside.
        Split,
        /// Noise.
        Synthetic,
    }
}

part! {
    /// The data of the run.
    Data {
        /// Where samples came from.
        origin: DataOrigin,
        /// The files that were read, in that order; one entry for all images of a folder.
        files: Vec<File>,
        /// Samples that were calibrated and trained on.
        train_samples: u64,
        /// Samples that were measured on.
        test_samples: u64,
        /// Where test samples came from.
        test_set: TestSet,
        /// Whether training data has labels.
        labels: bool,
    }
}

part! {
    /// What was asked for, with every default filled in.
    Settings {
        /// Bits of weights where no rule says otherwise.
        weight_bits: u8,
        /// Bits of activations where no rule says otherwise; null where weights alone are quantized.
        activation_bits: Option<u8>,
        /// Weights along the input axis that share a step; null where activations are quantized too.
        block: Option<u64>,
        /// Where quantizers stand at residual additions: q8, shared, shortcut or paper; none where weights alone are quantized.
        placement: String,
        /// The runtime that the result is for: ort, openvino, tensorrt or portable.
        target: String,
        /// Whether weights have a step for each output channel.
        per_channel: bool,
        /// The smallest type that weights are stored in: int8, int4 or int2.
        storage: String,
        /// Whether sums of two products stay within 16 bits.
        no_vnni: bool,
        /// How step sizes started: auto, lsq or mse.
        init: String,
        /// What was minimised: ce, kd or both; null where nothing was trained.
        loss: Option<String>,
        /// Batches that were trained on.
        steps: u64,
        /// Samples in a batch.
        batch: u64,
        /// The learning rate at the start.
        learning_rate: f64,
        /// The weight decay that was asked for; null: by the weights' bits.
        weight_decay: Option<f64>,
        /// BatchNorm in training: batch or frozen.
        batch_norm: String,
        /// Whether weights that oscillate were to be frozen.
        freeze_oscillating: bool,
        /// The seed of every random choice.
        seed: u64,
        /// Threads that were asked for; 0: the engine's choice.
        threads: u64,
    }
}

part! {
    /// What ran the graphs.
    Engine {
        /// The name that --engine takes.
        name: String,
        /// Its version and kind.
        description: String,
        /// Why it was chosen.
        reason: String,
    }
}

part! {
    /// The loss at one step.
    LossPoint {
        /// Steps before it.
        step: u64,
        /// The mean over the batch.
        loss: f64,
    }
}

part! {
    /// What became of quantized weights that were watched for oscillations.
    Oscillating {
        /// Weights that were watched.
        weights: u64,
        /// The share of them whose frequency of oscillations was above 0.005 after the last step, 0 to 1.
        share: f64,
        /// The share of them that was frozen, 0 to 1.
        frozen: f64,
    }
}

part! {
    /// How training went.
    Training {
        /// Steps that were done.
        steps: u64,
        /// Times through the training data, rounded up.
        epochs: u64,
        /// The loss now and then, first and last step among them.
        losses: Vec<LossPoint>,
        /// Batches on which BatchNorm was re-estimated at the end; 0: it was not.
        batch_norm_batches: u64,
        /// Bytes that the values of a step were estimated to take at any one time.
        memory_estimate: Option<u64>,
        /// The weights whose oscillations were watched; null where none were.
        oscillating: Option<Oscillating>,
    }
}

part! {
    /// Sizes, in bytes.
    Sizes {
        /// The float model's file.
        float_model: u64,
        /// The integer model's file.
        lowered_model: u64,
        /// The weights of quantized layers, in float.
        float_weights: u64,
        /// The same weights as the file stores them, without their steps.
        stored_weights: u64,
        /// The steps of blocks, where weights alone are quantized; else 0.
        block_steps: u64,
        /// The same weights at their bits, packed without gaps.
        packed_weights: u64,
    }
}

word! {
    /// What became of a gate.
    GateOutcome {
        /// It was passed.
        Passed,
        /// It failed.
        Failed,
        /// It could not be measured: there are no labels.
        NotMeasured,
    }
}

part! {
    /// The gate --max-drop. It decides by the point estimate.
    Gate {
        /// Points of top-1 that might be lost.
        max_drop: f64,
        /// Points that were lost, float to integer model.
        drop: Option<f64>,
        /// The paired 95 % interval of that.
        interval: Option<[f64; 2]>,
        /// What became of it.
        outcome: GateOutcome,
    }
}

part! {
    /// One part of the run.
    Phase {
        /// Its name.
        name: String,
        /// How long it took.
        seconds: f64,
    }
}

part! {
    /// How long it took.
    Timing {
        /// The whole run.
        seconds: f64,
        /// Its parts, in order.
        phases: Vec<Phase>,
        /// Training steps per second; null where nothing was trained.
        steps_per_second: Option<f64>,
        /// The most bytes of memory that were resident in training, above those before its first step; null where the system does not tell.
        memory_peak: Option<u64>,
    }
}

part! {
    /// What loads the integer model.
    Requires {
        /// The runtime that it is for.
        runtime: String,
        /// The oldest version of it that loads the file; null where that is not known.
        version: Option<String>,
        /// The version of the default operator set.
        opset: i64,
        /// The version of ONNX's file format.
        ir_version: i64,
    }
}
