//! From the quantized network to its step graph, pass by pass; and each refusal.

use std::collections::BTreeMap;

use crate::common::{elements, nodes, notes, run_in, run_on};
use insta::assert_snapshot;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{LSQC_DOMAIN, Model, Oscillation, Role, ValueId};
use lsqc_passes::legalize::{Codes, LEGALIZE};
use lsqc_passes::pass::{NoEvaluator, PassCx};
use lsqc_passes::pipelines::TRAIN;
use lsqc_passes::text::{PrintOptions, parse};
use lsqc_passes::train::{
    ATTACH_LOSS, ATTACH_OPTIMIZER, CHOOSE_PARAMETERS, DIFFERENTIATE, FREEZE_OSCILLATING, Loss, LossPlan, OptimizerPlan,
    Oscillations, OutputKind, OutputLoss, USE_BATCH_STATISTICS, Variance, head,
};

fn names(model: &Model, values: &[ValueId]) -> Vec<String> {
    values.iter().map(|&value| model.graph[value].name().to_owned()).collect()
}

fn role(model: &Model, name: &str) -> Role {
    model.graph[model.graph.find(name).unwrap()].role
}

const LAYER: &str = "g (float[2,3] x) => (y)
    <float[3,2] w = {1, 2, 3, 4, 5, 6}, float s = {0.5}, float[2] b = {1, 2}, float[2] other = {3, 4},
     float[2] gamma = {1, 1}, float[2] beta = {0, 0}, float[2] mean = {5, 6}, float[2] var = {7, 8}>
    {
      wq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, s)
      p = MatMul (x, wq)
      t = Add (b, p)
      u = Mul (t, other)
      y = BatchNormalization <momentum = 0.75> (u, gamma, beta, mean, var)
    }";

#[test]
fn weights_biases_norms_and_steps_become_inputs() {
    let model = run_in(&[&INFER_TYPES, &CHOOSE_PARAMETERS], &mut PassCx::new(&NoEvaluator), LAYER).unwrap();
    assert_eq!(names(&model, model.graph.inputs()), ["x", "w", "s", "b", "gamma", "beta"]);
    for parameter in ["w", "b", "gamma", "beta"] {
        assert_eq!(role(&model, parameter), Role::Parameter, "{parameter}");
    }
    assert_eq!(role(&model, "s"), Role::Step);
    assert_eq!(elements(&model, "b"), [1.0, 2.0], "the default is the initial value");
    assert_eq!(role(&model, "other"), Role::Plain);
}

#[test]
fn a_batch_norm_normalises_by_the_batch_and_keeps_estimates() {
    let mut cx = PassCx::new(&NoEvaluator);
    let model = run_in(&[&INFER_TYPES, &USE_BATCH_STATISTICS], &mut cx, LAYER).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    wq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, s)
    p = MatMul (x, wq)
    t = Add (b, p)
    u = Mul (t, other)
    y, "batch/mean", "batch/var" = lsqc.BatchNormalizationTrain <epsilon = 1e-5> (u, gamma, beta)
    "next/mean/Mul" = Mul (mean, "next/mean/const")
    "next/mean/Mul_1" = Mul ("batch/mean", "next/mean/const_1")
    "next/mean" = Add ("next/mean/Mul", "next/mean/Mul_1")
    "next/var/Mul" = Mul (var, "next/var/const")
    "next/var/Mul_1" = Mul ("batch/var", "next/var/const_1")
    "next/var" = Add ("next/var/Mul", "next/var/Mul_1")
    "#);
    assert_eq!(role(&model, "mean"), Role::RunningMean);
    assert_eq!(role(&model, "next/var"), Role::Next(model.graph.find("var").unwrap()));
    // Momentum 0.75, and 2/(2 − 1) for the unbiased variance of two values.
    let factors: Vec<f32> = ["next/mean", "next/var"]
        .iter()
        .flat_map(|base| ["const", "const_1"].map(|end| elements(&model, &format!("{base}/{end}"))[0]))
        .collect();
    assert_eq!(factors, [0.75, 0.25, 0.75, 0.5]);
    assert_eq!(names(&model, model.graph.outputs()), ["y", "next/mean", "next/var"]);
}

#[test]
fn statistics_that_are_not_its_own_stay_frozen() {
    for (text, why) in [
        (
            LAYER.replace("float[2,3]", "float[1,3]"),
            "a channel has a single value in a batch",
        ),
        (LAYER.replace("mean, var)", "mean, mean)"), "they are not its own constants"),
        (
            LAYER.replace("float[2,3]", "float[N,3]"),
            "the shape of its input is not fixed",
        ),
    ] {
        let mut cx = PassCx::new(&NoEvaluator);
        let model = run_in(&[&INFER_TYPES, &USE_BATCH_STATISTICS], &mut cx, &text).unwrap();
        let expected = format!("BatchNormalization -> y (BatchNormalization): its statistics stay frozen in training: {why}");
        assert_eq!(notes(&cx), expected);
        assert!(nodes(&model).contains("= BatchNormalization"), "{why}");
    }
}

fn attach(loss: Loss, teacher: Option<&str>, text: &str) -> Result<Model, String> {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(LossPlan {
        loss,
        teacher: teacher.map(|text| parse(text).unwrap()),
        ..LossPlan::default()
    });
    run_in(&[&INFER_TYPES, &ATTACH_LOSS], &mut cx, text)
}

#[test]
fn cross_entropy_begins_at_the_scores_before_a_softmax() {
    let text = "g (float[2,3] x) => (y) { t = Relu (x)  y = Softmax <axis = 1> (t) }";
    let model = attach(Loss::CrossEntropy, None, text).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    t = Relu (x)
    y = Softmax <axis = 1> (t)
    "loss/ce/StopGradient" = lsqc.StopGradient (t)
    "loss/ce/TopK", "loss/ce/TopK_" = TopK <axis = 1> ("loss/ce/StopGradient", "loss/ce/const")
    "loss/ce/Sub" = Sub (t, "loss/ce/TopK")
    "loss/ce/Exp" = Exp ("loss/ce/Sub")
    "loss/ce/ReduceSum" = ReduceSum <keepdims = 1> ("loss/ce/Exp", "loss/ce/const_1")
    "loss/ce/Log" = Log ("loss/ce/ReduceSum")
    "loss/ce/Sub_1" = Sub ("loss/ce/Sub", "loss/ce/Log")
    "loss/ce/OneHot" = OneHot <axis = -1> (label, "loss/ce/const_2", "loss/ce/const_3")
    "loss/ce/Mul" = Mul ("loss/ce/OneHot", "loss/ce/Sub_1")
    "loss/ce/ReduceSum_1" = ReduceSum <keepdims = 0> ("loss/ce/Mul")
    loss = Mul ("loss/ce/ReduceSum_1", "loss/ce/const_4")
    "#);
    assert_eq!(names(&model, model.graph.inputs()), ["x", "label"]);
    assert_eq!(names(&model, model.graph.outputs()), ["loss"]);
    assert_eq!((role(&model, "label"), role(&model, "loss")), (Role::Label, Role::Loss));
}

#[test]
fn the_teacher_is_copied_beside_the_student() {
    let text = "g (float[2,3] x) => (y) { y = Relu (x) }";
    let model = attach(
        Loss::Distillation,
        Some("t (float[2,3] x) => (float[2,3] y) { y = Neg (x) }"),
        text,
    )
    .unwrap();
    assert!(nodes(&model).contains("\"teacher/y\" = Neg (x)"), "{}", nodes(&model));
    assert_eq!(names(&model, model.graph.inputs()), ["x"], "no labels");
    assert_eq!(
        attach(Loss::Distillation, None, text).unwrap_err(),
        "distillation needs the teacher"
    );
}

#[test]
fn networks_without_scores_have_no_loss() {
    let nothing = "the model has no output of type float to train on";
    let no_scores = "labels go with an output [N, classes] of float scores, and the model has none";
    for (text, why) in [
        ("g (int64[2,3] x) => (y) { y = Neg (x) }", nothing),
        ("g (double[2,3] x) => (y) { y = Neg (x) }", nothing),
        ("g (float[2] x) => (y) { y = Relu (x) }", no_scores),
        ("g (float[2,3,4] x) => (y) { y = Relu (x) }", no_scores),
    ] {
        assert_eq!(attach(Loss::CrossEntropy, None, text).unwrap_err(), why);
    }
}

/// Heads of every kind: what each output is taken as, where its loss begins, on which axis.
#[test]
fn heads_are_read_off_the_graph() {
    let text = "g (float[2,3,4] x, int64[2] n, double[2] d) => (a, b, c, e, f, h, i, j, k, d2, n2)
        <float[4,5] w = normal(seed = 1), float[5] bias = normal(seed = 2), float[4,1] one = normal(seed = 3)>
        {
          a = Softmax <axis = 1> (x)
          m = MatMul (x, w)
          b = Add (m, bias)
          s = LogSoftmax (m)
          c = Transpose <perm = [2, 0, 1]> (s)
          z = Sigmoid (x)
          e = Flatten (z)
          f = ReduceMean <axes = [1], keepdims = 0> (x)
          h = MatMul (x, one)
          i = Gemm (f, w)
          j = Relu (b)
          k = Identity (i)
          d2 = Neg (d)
          n2 = Neg (n)
        }";
    let model = run_in(&[&INFER_TYPES], &mut PassCx::new(&NoEvaluator), text).unwrap();
    let graph = &model.graph;
    let lines = graph.outputs().iter().map(|&output| {
        let head = head(graph, output);
        format!(
            "{}: {:?}, {:?}, from {}, axis {}: {}",
            graph[output].name(),
            head.kind,
            head.certainty,
            graph[head.start].name(),
            head.axis,
            head.why
        )
    });
    assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
    a: Classes, Shown, from x, axis 1: it ends in Softmax -> a (Softmax)
    b: Classes, Guessed, from b, axis 2: its rows come from MatMul -> m (MatMul)
    c: Classes, Shown, from m, axis 2: it ends in LogSoftmax -> s (LogSoftmax)
    e: Probabilities, Shown, from x, axis 1: it ends in Sigmoid -> z (Sigmoid)
    f: Values, Shown, from f, axis 1: it is floats, and no op shows more
    h: Values, Shown, from h, axis 2: it is floats, and no op shows more
    i: Classes, Guessed, from i, axis 1: its rows come from Gemm -> i (Gemm)
    j: Values, Shown, from j, axis 2: it is floats, and no op shows more
    k: Classes, Guessed, from k, axis 1: its rows come from Gemm -> i (Gemm)
    d2: Ignored, Shown, from d2, axis 0: its type is double, and training is in float
    n2: Ignored, Shown, from n2, axis 0: its type is int64: no gradient passes it
    "#);
}

/// How the loss of each kind is spelled; tests/library/losses.rs holds them to numbers.
#[test]
fn each_kind_of_output_has_its_loss() {
    let of = |kind: OutputKind, variance: Variance, body: &str| {
        let text = format!("g (float[2,3] x) => (y) {{ {body} }}");
        let teacher = format!("t (float[2,3] x) => (float[2,3] y) {{ {body} }}");
        let mut cx = PassCx::new(&NoEvaluator);
        let output = OutputLoss {
            variance,
            ..OutputLoss::of(kind)
        };
        cx.set(LossPlan {
            loss: Loss::Distillation,
            teacher: Some(parse(&teacher).unwrap()),
            outputs: [("y".to_owned(), output)].into(),
        });
        run_in(&[&INFER_TYPES, &ATTACH_LOSS], &mut cx, &text).map(|model| nodes(&model))
    };
    let each = Variance {
        axis: Some(1),
        values: vec![1.0, 2.0, 4.0],
    };
    assert_snapshot!(of(OutputKind::Values, each.clone(), "y = Softmax (x)").unwrap(), @r#"
    y = Softmax (x)
    "teacher/y" = Softmax (x)
    "loss/kd/Sub" = Sub (y, "teacher/y")
    "loss/kd/Mul" = Mul ("loss/kd/Sub", "loss/kd/Sub")
    "loss/kd/Mul_1" = Mul ("loss/kd/Mul", "loss/kd/const")
    "loss/kd/ReduceSum" = ReduceSum <keepdims = 0> ("loss/kd/Mul_1")
    loss = Mul ("loss/kd/ReduceSum", "loss/kd/const_1")
    "#);
    assert_snapshot!(of(OutputKind::Probabilities, Variance::default(), "y = Sigmoid (x)").unwrap(), @r#"
    y = Sigmoid (x)
    "teacher/y" = Sigmoid (x)
    "loss/kd/Abs" = Abs (x)
    "loss/kd/Add" = Add (x, "loss/kd/Abs")
    "loss/kd/Mul" = Mul ("loss/kd/Add", "loss/kd/const")
    "loss/kd/Mul_1" = Mul ("loss/kd/Abs", "loss/kd/const_1")
    "loss/kd/Exp" = Exp ("loss/kd/Mul_1")
    "loss/kd/Add_1" = Add ("loss/kd/Exp", "loss/kd/const_2")
    "loss/kd/Log" = Log ("loss/kd/Add_1")
    "loss/kd/Add_2" = Add ("loss/kd/Mul", "loss/kd/Log")
    "loss/kd/Abs_1" = Abs (x)
    "loss/kd/Add_3" = Add (x, "loss/kd/Abs_1")
    "loss/kd/Mul_2" = Mul ("loss/kd/Add_3", "loss/kd/const_3")
    "loss/kd/Mul_3" = Mul ("loss/kd/Abs_1", "loss/kd/const_4")
    "loss/kd/Exp_1" = Exp ("loss/kd/Mul_3")
    "loss/kd/Add_4" = Add ("loss/kd/Exp_1", "loss/kd/const_5")
    "loss/kd/Log_1" = Log ("loss/kd/Add_4")
    "loss/kd/Add_5" = Add ("loss/kd/Mul_2", "loss/kd/Log_1")
    "loss/kd/Sigmoid" = Sigmoid (x)
    "loss/kd/Sub" = Sub (x, x)
    "loss/kd/Mul_4" = Mul ("loss/kd/Sigmoid", "loss/kd/Sub")
    "loss/kd/Sub_1" = Sub ("loss/kd/Add_2", "loss/kd/Add_5")
    "loss/kd/Sub_2" = Sub ("loss/kd/Sub_1", "loss/kd/Mul_4")
    "loss/kd/ReduceSum" = ReduceSum <keepdims = 0> ("loss/kd/Sub_2")
    loss = Mul ("loss/kd/ReduceSum", "loss/kd/const_6")
    "#);
    assert_snapshot!(of(OutputKind::Cosine, Variance::default(), "y = Neg (x)").unwrap(), @r#"
    y = Neg (x)
    "teacher/y" = Neg (x)
    "loss/kd/Mul" = Mul (y, "teacher/y")
    "loss/kd/ReduceSum" = ReduceSum <keepdims = 0> ("loss/kd/Mul", "loss/kd/const")
    "loss/kd/Mul_1" = Mul (y, y)
    "loss/kd/ReduceSum_1" = ReduceSum <keepdims = 0> ("loss/kd/Mul_1", "loss/kd/const_1")
    "loss/kd/Mul_2" = Mul ("teacher/y", "teacher/y")
    "loss/kd/ReduceSum_2" = ReduceSum <keepdims = 0> ("loss/kd/Mul_2", "loss/kd/const_2")
    "loss/kd/Mul_3" = Mul ("loss/kd/ReduceSum_1", "loss/kd/ReduceSum_2")
    "loss/kd/Add" = Add ("loss/kd/Mul_3", "loss/kd/const_3")
    "loss/kd/Sqrt" = Sqrt ("loss/kd/Add")
    "loss/kd/Div" = Div ("loss/kd/ReduceSum", "loss/kd/Sqrt")
    "loss/kd/Sub" = Sub ("loss/kd/const_4", "loss/kd/Div")
    "loss/kd/ReduceSum_3" = ReduceSum <keepdims = 0> ("loss/kd/Sub")
    loss = Mul ("loss/kd/ReduceSum_3", "loss/kd/const_5")
    "#);
    let wrong = Variance { axis: Some(0), ..each };
    assert_eq!(
        of(OutputKind::Values, wrong, "y = Neg (x)").unwrap_err(),
        "3 variances along axis Some(0) do not fit an output of shape [2, 3]"
    );
    assert_eq!(
        of(OutputKind::Ignored, Variance::default(), "y = Neg (x)").unwrap_err(),
        "the model has no output of type float to train on"
    );
}

/// A text whose output `loss` is the loss and whose input `p` is trained.
fn loss_graph(text: &str) -> Model {
    let mut model = parse(text).unwrap();
    run_on(&[&INFER_TYPES], &mut PassCx::new(&NoEvaluator), &mut model).unwrap();
    for (name, role) in [("loss", Role::Loss), ("p", Role::Parameter)] {
        let value = model.graph.find(name).unwrap();
        model.graph[value].role = role;
    }
    model
}

fn differentiate(text: &str) -> (Model, String) {
    let mut cx = PassCx::new(&NoEvaluator);
    let mut model = loss_graph(text);
    run_on(&[&DIFFERENTIATE], &mut cx, &mut model).unwrap();
    (model, notes(&cx))
}

const TWO_USES: &str = "g (float[2,3] x, float[3] p = {1, 2, 3}) => (loss)
    { a = Mul (x, p)  b = Add (a, p)  loss = ReduceSum <keepdims = 0> (b) }";

#[test]
fn gradients_of_two_uses_are_added_and_summed_over_what_was_broadcast() {
    let (model, notes) = differentiate(TWO_USES);
    assert_eq!(notes, "");
    assert_snapshot!(nodes(&model), @r#"
    a = Mul (x, p)
    b = Add (a, p)
    loss = ReduceSum <keepdims = 0> (b)
    "grad/ReduceSum -> loss/Reshape" = Reshape ("grad/seed", "grad/ReduceSum -> loss/const")
    "grad/ReduceSum -> loss/Expand" = Expand ("grad/ReduceSum -> loss/Reshape", "grad/ReduceSum -> loss/const_1")
    "grad/Add -> b/ReduceSum" = ReduceSum <keepdims = 1> ("grad/ReduceSum -> loss/Expand", "grad/Add -> b/const")
    "grad/Add -> b/Reshape" = Reshape ("grad/Add -> b/ReduceSum", "grad/Add -> b/const_1")
    "grad/Mul -> a/Mul" = Mul ("grad/ReduceSum -> loss/Expand", x)
    "grad/Mul -> a/ReduceSum" = ReduceSum <keepdims = 1> ("grad/Mul -> a/Mul", "grad/Mul -> a/const")
    "grad/Mul -> a/Reshape" = Reshape ("grad/Mul -> a/ReduceSum", "grad/Mul -> a/const_1")
    "grad/p" = Add ("grad/Add -> b/Reshape", "grad/Mul -> a/Reshape")
    "#);
    assert_eq!(names(&model, model.graph.outputs()), ["loss", "grad/p"]);
    let p = model.graph.find("p").unwrap();
    assert_eq!(role(&model, "grad/p"), Role::Gradient(p));
    let gradient = model.graph.find("grad/p").unwrap();
    assert_eq!(model.graph[gradient].shape(), Some(vec![3]));
}

#[test]
fn a_path_through_an_op_without_a_rule_is_noted() {
    let (model, notes) = differentiate(
        "g (float[2,3] x, float[3] p = {1, 2, 3}) => (loss) <float[2,3] b> { a = Mul (x, p)  b = some.domain.Op (a)  c = Add (b, x)  loss = ReduceSum <keepdims = 0> (c) }",
    );
    assert_snapshot!(notes, @r#"
    some.domain.Op -> b (some.domain.Op): gradients stop here: lsqc does not know this op
    Mul -> a (Mul): 'p' is not trained: no gradient reaches it
    "#);
    assert_eq!(names(&model, model.graph.outputs()), ["loss"]);
    let (_, notes) = differentiate(
        "g (float[2,2] x, float[2] p = {1, 2}) => (loss) { a = Mul (x, p)  b = Einsum <equation = \"ii->i\"> (a)  loss = ReduceSum <keepdims = 0> (b) }",
    );
    assert_snapshot!(notes, @"
    Einsum -> b (Einsum): gradients stop here: the gradient of a diagonal is not written
    Mul -> a (Mul): 'p' is not trained: no gradient reaches it
    ");
    let mut plain = parse(TWO_USES).unwrap();
    let error = run_on(&[&DIFFERENTIATE], &mut PassCx::new(&NoEvaluator), &mut plain).unwrap_err();
    assert_eq!(error, "there is no loss to differentiate");
}

/// The nodes that the optimizer adds for a weight.
fn optimizer(plan: OptimizerPlan) -> (Model, String) {
    optimizer_of(Role::Parameter, plan)
}

fn optimizer_of(role: Role, plan: OptimizerPlan) -> (Model, String) {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(plan);
    let (mut model, _) =
        differentiate("g (float[3] x, float[3] p = {1, 2, 3}) => (loss) { a = Mul (x, p)  loss = ReduceSum <keepdims = 0> (a) }");
    let p = model.graph.find("p").unwrap();
    model.graph[p].role = role;
    let before = nodes(&model);
    run_on(&[&ATTACH_OPTIMIZER], &mut cx, &mut model).unwrap();
    let added: Vec<String> = nodes(&model)
        .lines()
        .filter(|line| !before.contains(line))
        .map(str::to_owned)
        .collect();
    (model, added.join("\n"))
}

#[test]
fn momentum_decay_and_floor() {
    let for_p = |value: f32| BTreeMap::from([("p".to_owned(), value)]);
    let (model, added) = optimizer(OptimizerPlan {
        momentum: 0.9,
        weight_decay: for_p(0.25),
        floors: BTreeMap::from([("p".to_owned(), vec![0.125])]),
    });
    assert_snapshot!(added, @r#"
    "next/p/Mul" = Mul ("momentum/p", "next/p/const")
    "next/p/Add" = Add ("next/p/Mul", "grad/p")
    "next/p/Mul_1" = Mul (p, "next/p/const_1")
    "next/momentum/p" = Add ("next/p/Add", "next/p/Mul_1")
    "next/p/Mul_2" = Mul ("next/momentum/p", learning_rate)
    "next/p/Sub" = Sub (p, "next/p/Mul_2")
    "next/p" = Max ("next/p/Sub", "next/p/const_2")
    "#);
    assert_eq!(elements(&model, "next/p/const"), [0.9]);
    assert_eq!(elements(&model, "next/p/const_1"), [0.25]);
    assert_eq!(elements(&model, "next/p/const_2"), [0.125]);
    assert_eq!(elements(&model, "momentum/p"), [0.0; 3]);
    let find = |name: &str| model.graph.find(name).unwrap();
    assert_eq!(role(&model, "momentum/p"), Role::Momentum(find("p")));
    assert_eq!(role(&model, "next/p"), Role::Next(find("p")));
    assert_eq!(role(&model, "next/momentum/p"), Role::Next(find("momentum/p")));
    assert_eq!(role(&model, "learning_rate"), Role::LearningRate);
}

#[test]
fn a_step_at_most_halves() {
    let plan = OptimizerPlan {
        momentum: 0.9,
        weight_decay: BTreeMap::new(),
        floors: BTreeMap::from([("p".to_owned(), vec![0.125])]),
    };
    let (model, added) = optimizer_of(Role::Step, plan);
    assert_snapshot!(added, @r#"
    "next/p/Mul" = Mul ("momentum/p", "next/p/const")
    "next/momentum/p" = Add ("next/p/Mul", "grad/p")
    "next/p/Mul_1" = Mul ("next/momentum/p", learning_rate)
    "next/p/Sub" = Sub (p, "next/p/Mul_1")
    "next/p/Mul_2" = Mul (p, "next/p/const_2")
    "next/p/Max" = Max ("next/p/Sub", "next/p/Mul_2")
    "next/p" = Max ("next/p/Max", "next/p/const_1")
    "#);
    assert_eq!(elements(&model, "next/p/const_1"), [0.125]);
    assert_eq!(elements(&model, "next/p/const_2"), [0.5]);
}

#[test]
fn without_decay_and_floor_neither_is_computed() {
    let (_, added) = optimizer(OptimizerPlan {
        momentum: 0.9,
        ..OptimizerPlan::default()
    });
    assert_snapshot!(added, @r#"
    "next/p/Mul" = Mul ("momentum/p", "next/p/const")
    "next/momentum/p" = Add ("next/p/Mul", "grad/p")
    "next/p/Mul_1" = Mul ("next/momentum/p", learning_rate)
    "next/p" = Sub (p, "next/p/Mul_1")
    "#);
}

const OSCILLATING: &str = "g (float[2,3] x) => (y) <float[3,2] w = {0.2, 0.25, 0.3, -0.75, 9, -9}, float s = {0.5}>
    { q = lsqc.FakeQuantize <bits = 3, signed = 1> (w, s)  y = MatMul (x, q) }";

/// The step graph of `text` up to the optimizer; then what `freeze-oscillating` makes of it, if asked.
fn freeze(oscillations: Oscillations, text: &str) -> Result<(Model, Model, String), String> {
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(LossPlan {
        loss: Loss::CrossEntropy,
        ..LossPlan::default()
    });
    cx.set(oscillations);
    let passes = [
        &INFER_TYPES,
        &CHOOSE_PARAMETERS,
        &ATTACH_LOSS,
        &DIFFERENTIATE,
        &ATTACH_OPTIMIZER,
    ];
    let before = run_in(&passes, &mut cx, text)?;
    let mut after = before.clone();
    run_on(&[&FREEZE_OSCILLATING], &mut cx, &mut after)?;
    Ok((before, after, notes(&cx)))
}

#[test]
fn a_weight_that_oscillates_is_frozen() {
    let (before, model, notes) = freeze(Oscillations::Frozen, OSCILLATING).unwrap();
    let before = nodes(&before);
    let added: Vec<String> = nodes(&model)
        .lines()
        .filter(|line| !before.contains(line))
        .map(str::to_owned)
        .collect();
    assert_snapshot!(added.join("\n"), @r#"
    "next/w/free" = Sub (w, "next/w/Mul_1")
    "oscillation/w/Sub" = Sub ("oscillation/w/const", "frozen/w")
    "oscillation/w/Div" = Div ("next/w/free", "next/s")
    "oscillation/w/Clip" = Clip ("oscillation/w/Div", "oscillation/w/const_1", "oscillation/w/const_2")
    "oscillation/w/Round" = Round ("oscillation/w/Clip")
    "oscillation/w/Mul" = Mul ("frozen/w", "last_code/w")
    "oscillation/w/Mul_1" = Mul ("oscillation/w/Sub", "oscillation/w/Round")
    "oscillation/w/Add" = Add ("oscillation/w/Mul", "oscillation/w/Mul_1")
    "oscillation/w/Sub_1" = Sub ("oscillation/w/Add", "last_code/w")
    "oscillation/w/Sign" = Sign ("oscillation/w/Sub_1")
    "oscillation/w/Mul_2" = Mul ("oscillation/w/Sign", "last_direction/w")
    "oscillation/w/Neg" = Neg ("oscillation/w/Mul_2")
    "oscillation/w/Relu" = Relu ("oscillation/w/Neg")
    "oscillation/w/Abs" = Abs ("oscillation/w/Sign")
    "oscillation/w/Sub_2" = Sub ("oscillation/w/const", "oscillation/w/Abs")
    "oscillation/w/Mul_3" = Mul ("oscillation/w/Sub_2", "last_direction/w")
    "next/last_direction/w" = Add ("oscillation/w/Sign", "oscillation/w/Mul_3")
    "oscillation/w/Mul_4" = Mul ("frequency/w", "oscillation/w/const_3")
    "oscillation/w/Mul_5" = Mul ("oscillation/w/Relu", "oscillation/w/const_4")
    "next/frequency/w" = Add ("oscillation/w/Mul_4", "oscillation/w/Mul_5")
    "oscillation/w/Mul_6" = Mul ("mean_code/w", "oscillation/w/const_5")
    "oscillation/w/Mul_7" = Mul ("oscillation/w/Add", "oscillation/w/const_6")
    "next/mean_code/w" = Add ("oscillation/w/Mul_6", "oscillation/w/Mul_7")
    "oscillation/w/Sub_3" = Sub ("next/frequency/w", freeze_threshold)
    "oscillation/w/Sign_1" = Sign ("oscillation/w/Sub_3")
    "oscillation/w/Relu_1" = Relu ("oscillation/w/Sign_1")
    "oscillation/w/Mul_8" = Mul ("oscillation/w/Relu_1", "oscillation/w/Sub")
    "next/frozen/w" = Add ("frozen/w", "oscillation/w/Mul_8")
    "oscillation/w/Round_1" = Round ("next/mean_code/w")
    "oscillation/w/Sub_4" = Sub ("oscillation/w/const", "oscillation/w/Mul_8")
    "oscillation/w/Mul_9" = Mul ("oscillation/w/Mul_8", "oscillation/w/Round_1")
    "oscillation/w/Mul_10" = Mul ("oscillation/w/Sub_4", "oscillation/w/Add")
    "next/last_code/w" = Add ("oscillation/w/Mul_9", "oscillation/w/Mul_10")
    "oscillation/w/Mul_11" = Mul ("next/last_code/w", "next/s")
    "oscillation/w/Sub_5" = Sub ("oscillation/w/const", "next/frozen/w")
    "oscillation/w/Mul_12" = Mul ("next/frozen/w", "oscillation/w/Mul_11")
    "oscillation/w/Mul_13" = Mul ("oscillation/w/Sub_5", "next/w/free")
    "next/w" = Add ("oscillation/w/Mul_12", "oscillation/w/Mul_13")
    "#);
    assert_eq!(notes, "");
    // 0.25/0.5 is a half, which goes to the even level.
    assert_eq!(elements(&model, "last_code/w"), [0.0, 0.0, 1.0, -2.0, 3.0, -4.0]);
    assert_eq!(elements(&model, "mean_code/w"), [0.0, 0.0, 1.0, -2.0, 3.0, -4.0]);
    let find = |name: &str| model.graph.find(name).unwrap();
    for kept in Oscillation::ALL {
        let name = kept.input("w");
        assert_eq!(role(&model, &name), Role::Oscillation(kept, find("w")));
        assert_eq!(role(&model, &format!("next/{name}")), Role::Next(find(&name)));
    }
    for name in ["last_direction/w", "frequency/w", "frozen/w"] {
        assert_eq!(elements(&model, name), [0.0; 6], "{name}");
    }
    assert_eq!(role(&model, "freeze_threshold"), Role::FreezeThreshold);
    assert_eq!(role(&model, "next/w"), Role::Next(find("w")));
    assert_eq!(role(&model, "next/w/free"), Role::Plain);
    assert!(!model.graph.outputs().contains(&find("next/w/free")));
}

#[test]
fn where_oscillations_are_left_alone_nothing_changes() {
    let (before, after, notes) = freeze(Oscillations::Left, OSCILLATING).unwrap();
    assert_eq!(
        lsqc_passes::text::print(&after, &PrintOptions::brief()),
        lsqc_passes::text::print(&before, &PrintOptions::brief())
    );
    assert_eq!(notes, "");
}

#[test]
fn weights_that_are_not_watched() {
    for (text, why) in [
        (OSCILLATING.replace("bits = 3", "bits = 5"), "it has 5 bits, more than 4"),
        (
            OSCILLATING
                .replace("float s = {0.5}", "float[2] s = {0.5, 0.5}")
                .replace("signed = 1", "signed = 1, axis = 1"),
            "it has a step for each channel",
        ),
        (
            OSCILLATING.replace("x) => (y)", "x, float[2,3] z) => (y)").replace(
                "y = MatMul (x, q)",
                "r = lsqc.FakeQuantize <bits = 8, signed = 1> (w, s)  a = MatMul (x, q)  b = MatMul (z, r)  y = Add (a, b)",
            ),
            "it has several quantizers",
        ),
        (
            OSCILLATING
                .replace("y = MatMul (x, q)", "d = some.domain.Op (q)  y = MatMul (x, other)")
                .replace("float s", "float[3,2] other = {1, 2, 3, 4, 5, 6}, float[3,2] d, float s"),
            "it is not trained",
        ),
    ] {
        let (before, after, notes) = freeze(Oscillations::Frozen, &text).unwrap();
        let said = format!("lsqc.FakeQuantize -> q (lsqc.FakeQuantize): oscillations of its weight are left alone: {why}");
        assert!(notes.lines().any(|line| line == said), "{why}\n{notes}");
        assert_eq!(nodes(&after), nodes(&before), "{why}");
        assert_eq!(after.graph.find("freeze_threshold"), None);
    }
}

#[test]
fn only_scalar_steps_are_watched() {
    let text = OSCILLATING.replace("float s = {0.5}", "float[2] s = {0.5, 0.5}");
    assert_eq!(
        freeze(Oscillations::Frozen, &text).unwrap_err(),
        "lsqc.FakeQuantize -> q (lsqc.FakeQuantize): the step 's' is not one number"
    );
}

fn legalize(text: &str) -> Result<Model, String> {
    run_in(&[&INFER_TYPES, &LEGALIZE], &mut PassCx::new(&NoEvaluator), text)
}

#[test]
fn a_quantizer_is_divide_clip_round_multiply() {
    let text = "g (float[2,3] x, float s) => (y) { q = lsqc.FakeQuantize <bits = 3, signed = 1> (x, s)  y = Relu (q) }";
    let model = legalize(text).unwrap();
    assert_snapshot!(nodes(&model), @r#"
    "lsqc.FakeQuantize -> q/Div" = Div (x, s)
    "lsqc.FakeQuantize -> q/Clip" = Clip ("lsqc.FakeQuantize -> q/Div", "lsqc.FakeQuantize -> q/const", "lsqc.FakeQuantize -> q/const_1")
    "lsqc.FakeQuantize -> q/Round" = Round ("lsqc.FakeQuantize -> q/Clip")
    q = Mul ("lsqc.FakeQuantize -> q/Round", s)
    y = Relu (q)
    "#);
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(Codes::Outputs);
    let model = run_in(&[&INFER_TYPES, &LEGALIZE], &mut cx, text).unwrap();
    assert_eq!(names(&model, model.graph.outputs()), ["y", "code/q"]);
    assert_eq!(role(&model, "code/q"), Role::Code(model.graph.find("s").unwrap()));
}

#[test]
fn a_training_norm_is_spelled_in_primitives() {
    let text = "g (float[2,3] x, float[3] a, float[3] b) => (y, m, v) { y, m, v = lsqc.BatchNormalizationTrain <epsilon = 0.5> (x, a, b) }";
    assert_snapshot!(nodes(&legalize(text).unwrap()), @r#"
    "lsqc.BatchNormalizationTrain -> y/ReduceSum" = ReduceSum <keepdims = 0> (x, "lsqc.BatchNormalizationTrain -> y/const")
    m = Mul ("lsqc.BatchNormalizationTrain -> y/ReduceSum", "lsqc.BatchNormalizationTrain -> y/const_1")
    "lsqc.BatchNormalizationTrain -> y/Sub" = Sub (x, m)
    "lsqc.BatchNormalizationTrain -> y/Mul_1" = Mul ("lsqc.BatchNormalizationTrain -> y/Sub", "lsqc.BatchNormalizationTrain -> y/Sub")
    "lsqc.BatchNormalizationTrain -> y/ReduceSum_1" = ReduceSum <keepdims = 0> ("lsqc.BatchNormalizationTrain -> y/Mul_1", "lsqc.BatchNormalizationTrain -> y/const_2")
    v = Mul ("lsqc.BatchNormalizationTrain -> y/ReduceSum_1", "lsqc.BatchNormalizationTrain -> y/const_3")
    "lsqc.BatchNormalizationTrain -> y/Add" = Add (v, "lsqc.BatchNormalizationTrain -> y/const_4")
    "lsqc.BatchNormalizationTrain -> y/Sqrt" = Sqrt ("lsqc.BatchNormalizationTrain -> y/Add")
    "lsqc.BatchNormalizationTrain -> y/Div" = Div ("lsqc.BatchNormalizationTrain -> y/const_5", "lsqc.BatchNormalizationTrain -> y/Sqrt")
    "lsqc.BatchNormalizationTrain -> y/Mul_3" = Mul (a, "lsqc.BatchNormalizationTrain -> y/Div")
    "lsqc.BatchNormalizationTrain -> y/Mul_4" = Mul ("lsqc.BatchNormalizationTrain -> y/Sub", "lsqc.BatchNormalizationTrain -> y/Mul_3")
    y = Add ("lsqc.BatchNormalizationTrain -> y/Mul_4", b)
    "#);
}

#[test]
fn an_op_without_a_spelling_is_an_error() {
    let error = legalize("g (float[2] x) => (y) { y = lsqc.Nothing (x) }").unwrap_err();
    assert_eq!(error, "lsqc.Nothing -> y (lsqc.Nothing): lsqc has no spelling for this op");
}

#[test]
fn a_step_graph_has_no_op_of_lsqc_left() {
    let text = "g (float[2,1,4,4] x) => (y)
        <float[2,1,3,3] w = normal(seed = 1, scale = 1), float[2] one = {1, 1}, float[2] zero = {0, 0}, float[2] var = {1, 1}, float[2] mean = {0, 0},
         float sx = {0.5}, float sw = {0.25}, float[8,3] v = normal(seed = 2, scale = 1)>
        {
          xq = lsqc.FakeQuantize <bits = 8, signed = 1> (x, sx)
          wq = lsqc.FakeQuantize <bits = 4, signed = 1> (w, sw)
          c = Conv <pads = [1, 1, 1, 1]> (xq, wq)
          n = BatchNormalization (c, one, zero, mean, var)
          r = Relu (n)
          p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
          f = Flatten (p)
          y = MatMul (f, v)
        }";
    let mut cx = PassCx::new(&NoEvaluator);
    cx.set(LossPlan {
        loss: Loss::CrossEntropy,
        ..LossPlan::default()
    });
    let mut passes = vec![&INFER_TYPES];
    passes.extend(TRAIN);
    let model = run_in(&passes, &mut cx, text).unwrap();
    for (_, node) in model.graph.nodes() {
        assert_ne!(node.op.domain, LSQC_DOMAIN, "{}", node.label(&model.graph));
    }
    assert_eq!(notes(&cx), "");
    for parameter in ["w", "v", "one", "zero", "sx", "sw"] {
        assert_eq!(
            role(&model, &format!("next/{parameter}")),
            Role::Next(model.graph.find(parameter).unwrap()),
            "{parameter}"
        );
    }
}
