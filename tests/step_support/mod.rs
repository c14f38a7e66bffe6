//! What tests of step graphs share: a float network with its data, quantized and made into a step graph as a run does it.
#![allow(dead_code)] // Each test uses some of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsqc::calibrate::{self, Start};
use lsqc::compiler::Compiler;
use lsqc::config::{Flags, Plan};
use lsqc::data::{self, Augment, Batch, Dataset, TrainBatches, TrainOptions};
use lsqc::engine::{Engine, LoadOptions, QdqFusion, Tensors};
use lsqc::model_file;
use lsqc::run::{classes, model_inputs};
use lsqc::terminal::{Terminal, Verbosity};
use lsqc::tune::{self, BnMode, Gradients, StepGraph, StepPlan};
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::legalize::Dialect;
use lsqc_passes::pipelines;
use lsqc_passes::quantize::{Bits, FLIP_GAMMAS, QuantizePlan, SET_STEPS, Sites, StepInit};
use lsqc_passes::target::ORT;
use lsqc_passes::train::{Loss, Oscillations, names};

/// One thread, no fusion.
pub fn options() -> LoadOptions {
    LoadOptions {
        qdq_fusion: QdqFusion::Off,
        ..LoadOptions::plain()
    }
}

/// A float network, its data, and the compiler.
pub struct Bench {
    /// The compiler.
    pub compiler: Compiler,
    /// The network in plain form.
    pub float: Model,
    train: Arc<dyn Dataset>,
    batch: usize,
    rate: f32,
}

impl Bench {
    /// The fixture of this name.
    pub fn new(fixture: &str, batch: usize, rate: f32) -> Bench {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Bench::open(&root.join(format!("fixtures/fashion-{fixture}/model.onnx")), batch, rate)
    }

    /// The model at `model`, which has an lsqc.toml beside it.
    pub fn open(model: &Path, batch: usize, rate: f32) -> Bench {
        // The plan refuses outputs that could not be written; nothing is.
        let flags = Flags {
            model: model.to_path_buf(),
            output: Some(PathBuf::from("unwritten.onnx")),
            ..Flags::default()
        };
        let plan = Plan::new(&flags).expect("the model has its settings");
        let mut compiler = Compiler::default();
        let mut float = model_file::read(&plan.model).expect("it is read").model;
        compiler
            .run(pipelines::SIMPLIFY, &mut float, |_| (), |_| ())
            .expect("it is simplified");
        compiler
            .run(&[&FLIP_GAMMAS], &mut float, |_| (), |_| ())
            .expect("filters are flipped");
        let data = data::open(&plan.data, &model_inputs(&float), classes(&float), plan.seed).expect("it has data");
        Bench {
            compiler,
            float,
            train: data.train,
            batch,
            rate,
        }
    }

    /// The network in 3 bits, its steps set from what `engine` shows.
    pub fn quantized(&mut self, engine: &dyn Engine) -> (Model, Sites) {
        let mut model = self.float.clone();
        let plan = QuantizePlan {
            bits: Bits {
                weight: 3,
                activation: 3,
                sign: None,
            },
            ..QuantizePlan::default()
        };
        let sites: Sites = self
            .compiler
            .run(
                pipelines::QUANTIZE,
                &mut model,
                |cx| cx.set(plan),
                |cx| cx.take().unwrap_or_default(),
            )
            .expect("quantizers are placed");
        let (init, terminal) = (StepInit::Lsq, Terminal::new(Verbosity::Quiet));
        let start = Start {
            init,
            target: &ORT,
            untrained: &std::collections::BTreeSet::new(),
        };
        let calibration =
            calibrate::calibrate(&self.float, &sites, &self.train, engine, &options(), start, &terminal).expect("it calibrates");
        let prepare = |cx: &mut lsqc_passes::pass::PassCx| {
            cx.set(calibration.steps);
            cx.set(init);
        };
        self.compiler
            .run(&[&SET_STEPS], &mut model, prepare, |_| ())
            .expect("steps are set");
        (model, sites)
    }

    /// The step graph of `student` in this dialect, with both losses and BatchNorm by the batch.
    pub fn assemble(&mut self, student: &Model, sites: &Sites, gradients: Gradients, dialect: Dialect) -> StepGraph {
        let plan = StepPlan {
            shapes: self.shapes(),
            loss: Loss::Both,
            outputs: std::collections::BTreeMap::new(),
            bn: BnMode::Batch,
            weight_decay: None,
            oscillations: Oscillations::Left,
            gradients,
            dialect,
        };
        tune::assemble(&mut self.compiler, student, &self.float, sites, &plan).expect("it is assembled")
    }

    /// BatchNormalization's statistics of `model`, as a run takes them after training, and the values of the one input in the batches that
    /// they were taken over.
    pub fn statistics(&mut self, model: &Model, engine: &dyn Engine, dialect: Dialect) -> (Tensors, Vec<Vec<f64>>) {
        let shapes = self.shapes();
        let batches = TrainOptions {
            batch: self.batch,
            seed: 0,
            augment: Augment::default(),
        };
        let with = tune::Loop {
            data: &self.train,
            engine,
            options: &options(),
            terminal: &Terminal::new(Verbosity::Quiet),
        };
        let statistics = tune::reestimate(
            &mut self.compiler,
            model,
            (&shapes, dialect),
            (batches, tune::STATISTICS_BATCHES),
            with,
        )
        .expect("statistics are taken");
        let mut loader = TrainBatches::start(Arc::clone(&self.train), batches).expect("the data has batches");
        let input = |batch: Batch| batch.inputs.values().next().and_then(Tensor::to_f64).expect("numbers");
        let taken = (0..statistics.batches).map(|_| input(loader.next_batch().expect("another batch")));
        (statistics.values, taken.collect())
    }

    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let batch = self.batch(0).inputs;
        batch
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
            .collect()
    }

    fn batch(&self, number: usize) -> Batch {
        let samples: Vec<usize> = (number * self.batch..(number + 1) * self.batch).collect();
        self.train.batch(&samples, None).expect("the data has them")
    }

    /// What the step of this number is fed.
    pub fn feeds(&self, number: usize) -> Tensors {
        let Batch { mut inputs, labels, .. } = self.batch(number);
        inputs.extend(labels.map(|labels| (names::LABEL.to_owned(), labels)));
        inputs.insert(names::LEARNING_RATE.to_owned(), Tensor::scalar(self.rate));
        inputs
    }
}
