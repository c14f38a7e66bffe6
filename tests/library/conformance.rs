//! The `onnx` package's backend node cases through read → simplify and upgrade → write → engine, on every engine at hand.
//!
//! `tests/python/write_node_cases.py FOLDER` writes the cases; LSQC_NODE_CASES names that folder. Of them those are run whose ops all stand in
//! the op table and whose operator set lsqc knows. What an engine does not compute of a case as the package wrote it, it need not compute of
//! what lsqc made of it: these stand in tests/data/node_cases.txt, with the engine's words. What an engine computes before and not after is
//! lsqc's fault; EXCUSED has the exceptions. `UPDATE_NODE_CASES=1 cargo test --release conformance` writes the list again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lsqc::compiler::{Compiler, serialize};
use lsqc::engine::{Engine, Tensors};
use lsqc_passes::ir::{DType, Model, Tensor};
use lsqc_passes::onnx::{NoExternalData, OPSETS, OwnOps, read};
use lsqc_passes::{ops, pipelines};

/// Cases that do not pass for another reason than an engine's limits. One that passes does not stay here.
const EXCUSED: &[(&str, &str)] = &[
    (
        "test_affine_grid_2d_align_corners_expanded",
        "its Range takes tensors [1], which ONNX Runtime accepts only where it does not know the shape; lsqc's inference finds it",
    ),
    ("test_affine_grid_2d_expanded", "the same"),
    (
        "test_scan_sum",
        "refused by name: Scan of operator set 8 has a batch axis, newer ones have none",
    ),
    (
        "test_upsample_nearest",
        "refused by name: Upsample with computed scales may shrink, which Resize rounds otherwise",
    ),
];

/// Characters of an engine's words that are kept; they go on with paths and addresses.
const REASON: usize = 110;

/// How the words end about a number that is off.
const OFF: &str = "is right";

/// One case: its name, the model's file, and what must come of what.
struct Case {
    name: String,
    bytes: Vec<u8>,
    model: Model,
    inputs: Tensors,
    outputs: Tensors,
    /// |found − expected| ≤ atol + rtol·|expected|, as the package's own runner has it for the case.
    rtol: f64,
    atol: f64,
}

impl Case {
    fn open(path: &Path) -> Case {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = file.trim_end_matches(".model.onnx").to_owned();
        let bytes = std::fs::read(path).expect("the folder is readable");
        let data = std::fs::read(path.with_file_name(format!("{name}.data.onnx"))).expect("its data is beside it");
        let (model, _) = read(bytes.clone().into(), &NoExternalData).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (data, _) = read(data.into(), &NoExternalData).expect("a model of constants");
        let tensors: Tensors = data
            .graph
            .values()
            .filter_map(|(_, value)| Some((value.name().to_owned(), value.constant()?.clone())))
            .collect();
        let of = |prefix: &str| -> Tensors {
            let named = tensors
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
            named.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
        };
        let number = |name: &str| tensors[name].to_f64().expect("a number")[0];
        Case {
            inputs: of("in/"),
            outputs: of("out/"),
            rtol: number("rtol"),
            atol: number("atol"),
            name,
            bytes,
            model,
        }
    }

    fn is_of_the_table(&self) -> bool {
        OPSETS.contains(&self.model.opset()) && self.model.graph.nodes().all(|(_, node)| ops::lookup(&node.op).is_some())
    }

    /// What lsqc makes of it.
    fn simplified(&self) -> Result<Vec<u8>, String> {
        let mut model = self.model.clone();
        let run = Compiler::default().run(pipelines::SIMPLIFY, &mut model, |_| (), |_| ());
        let written = run.and_then(|()| serialize(&model, OwnOps::Refuse));
        written.map_err(|error| format!("{error:#}"))
    }

    /// What engines do not compute, by engine and case, with their words; and what lsqc broke.
    fn check(&self, engines: &[Box<dyn Engine>]) -> (BTreeMap<String, String>, Vec<String>) {
        let (mut limits, mut wrong) = (BTreeMap::new(), Vec::new());
        let simplified = match self.simplified() {
            Ok(simplified) => simplified,
            Err(why) => return (limits, vec![format!("{}: {why}", self.name)]),
        };
        for engine in engines {
            let Err(after) = self.run(engine.as_ref(), &simplified) else {
                continue;
            };
            match self.run(engine.as_ref(), &self.bytes) {
                Ok(()) => wrong.push(format!("{}, {}: {after}", engine.name(), self.name)),
                Err(why) => drop(limits.insert(format!("{} {}", engine.name(), self.name), shortened(&why))),
            }
        }
        (limits, wrong)
    }

    /// Runs `bytes` and compares.
    fn run(&self, engine: &dyn Engine, bytes: &[u8]) -> Result<(), String> {
        let session = engine.load(bytes, &crate::engine_support::options(&[]));
        let found = session
            .and_then(|mut session| session.run(&self.inputs))
            .map_err(|error| format!("{error:#}"))?;
        for (name, expected) in &self.outputs {
            let found = found.get(name).ok_or_else(|| format!("'{name}' is not computed"))?;
            self.compare(found, expected).map_err(|why| format!("'{name}' {why}"))?;
        }
        Ok(())
    }

    fn compare(&self, found: &Tensor, expected: &Tensor) -> Result<(), String> {
        if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
            let of = |tensor: &Tensor| format!("{}{:?}", tensor.dtype(), tensor.shape());
            return Err(format!("is {}, not {}", of(found), of(expected)));
        }
        if found.dtype() == DType::String {
            return if found.strings() == expected.strings() {
                Ok(())
            } else {
                Err("differs".to_owned())
            };
        }
        let (Some(values), Some(wanted)) = (found.to_f64(), expected.to_f64()) else {
            return if found.bytes() == expected.bytes() {
                Ok(())
            } else {
                Err("differs".to_owned())
            };
        };
        let equal = |(a, b): &(f64, f64)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= self.atol + self.rtol * b.abs();
        match values.into_iter().zip(wanted).find(|pair| !equal(pair)) {
            Some((a, b)) => Err(format!("has {a:.6} where {b:.6} {OFF}")),
            None => Ok(()),
        }
    }
}

#[test]
fn node_cases_of_the_table() {
    let Some(folder) = folder() else { return };
    let engines = crate::engine_support::engines();
    let (mut limits, mut faults, mut cases) = (BTreeMap::new(), Vec::new(), 0);
    for path in models(&folder) {
        let case = Case::open(&path);
        if !case.is_of_the_table() {
            continue;
        }
        cases += 1;
        let (beyond, wrong) = case.check(&engines);
        limits.extend(beyond);
        let excused = EXCUSED.iter().any(|(name, _)| *name == case.name);
        if excused && wrong.is_empty() && engines.len() > 1 {
            faults.push(format!("{}: it passes, and is excused", case.name));
        }
        faults.extend(wrong.into_iter().filter(|_| !excused));
    }
    println!("{cases} cases on {} engines", engines.len());
    assert!(
        faults.is_empty(),
        "computed before lsqc and not after:\n{}",
        faults.join("\n")
    );
    assert!(cases > 1000, "{cases} cases are too few: the folder is not whole");
    check_list(&limits, engines.len() > 1);
}

/// The list names just the cases that fail; without ONNX Runtime its cases are not looked at. Results that are a little off are listed too, but
/// whether they are depends on the processor.
fn check_list(limits: &BTreeMap<String, String>, all_engines: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/node_cases.txt");
    if std::env::var_os("UPDATE_NODE_CASES").is_some() && all_engines {
        let lines: String = limits.iter().map(|(case, why)| format!("{case}: {why}\n")).collect();
        std::fs::write(&path, lines).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<(&str, &str)> = committed.lines().filter_map(|line| line.split_once(": ")).collect();
    let lines: Vec<_> = lines
        .into_iter()
        .filter(|(case, _)| all_engines || case.starts_with("tract "))
        .collect();
    let listed: Vec<&str> = lines.iter().map(|(case, _)| *case).collect();
    let new: Vec<String> = limits
        .iter()
        .filter(|(case, why)| !listed.contains(&case.as_str()) && !why.ends_with(OFF))
        .map(|(case, why)| format!("{case}: {why}"))
        .collect();
    let gone: Vec<&str> = lines
        .iter()
        .filter(|(case, why)| !limits.contains_key(*case) && !why.ends_with(OFF))
        .map(|(case, _)| *case)
        .collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "not in tests/data/node_cases.txt:\n{}\nthere, and computed now: {gone:?}",
        new.join("\n")
    );
}

/// One line, without what differs between machines.
fn shortened(why: &str) -> String {
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON).collect()
}

fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is readable").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".model.onnx"));
    paths.sort();
    paths
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("LSQC_NODE_CASES").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: LSQC_NODE_CASES names no folder");
    }
    folder
}
