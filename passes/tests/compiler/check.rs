//! Every rule of `check` on files that break it, and on the right ones beside them: for each target one file that is right, and what changes
//! of it break which rules. The rules that are broken must be just those that are named.

use std::collections::BTreeSet;

use crate::check_cases::right::RIGHT;
use crate::check_cases::wrong::CASES;
use crate::check_cases::{Case, Changes, INT8_FILE, OPENVINO_CHANGES, OPSET_21, ORT_FILE};
use lsqc_passes::check::{Finding, check, rules_of};
use lsqc_passes::target::{ORT, TARGETS, Target, Version};
use lsqc_passes::text::parse;

fn changed(text: &str, changes: Changes) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn right(target: &Target) -> String {
    match target.name {
        "ort" => ORT_FILE.to_owned(),
        "openvino" => changed(ORT_FILE, OPENVINO_CHANGES),
        _ => INT8_FILE.to_owned(),
    }
}

fn findings(text: &str, target: &'static Target, runtime: Option<Version>) -> Vec<Finding> {
    let model = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    check(&model, target, runtime)
}

fn broken(text: &str, target: &'static Target) -> Vec<&'static str> {
    ids(&findings(text, target, None))
}

fn ids(findings: &[Finding]) -> Vec<&'static str> {
    let mut ids: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
    ids.dedup();
    ids
}

#[test]
fn what_only_looks_wrong_breaks_no_rule() {
    for (targets, changes) in RIGHT {
        for &target in *targets {
            let text = changed(&right(target), changes);
            assert_eq!(findings(&text, target, None), [], "{}: {changes:?}", target.name);
        }
    }
}

#[test]
fn right_files_break_no_rule() {
    for &target in TARGETS {
        assert_eq!(findings(&right(target), target, None), [], "{}", target.name);
    }
}

#[test]
fn wrong_files_break_the_rules_that_are_named() {
    for Case {
        targets,
        breaks,
        changes,
    } in CASES
    {
        for &target in *targets {
            let text = changed(&right(target), changes);
            assert_eq!(broken(&text, target), *breaks, "{}: {changes:?}", target.name);
        }
    }
}

#[test]
fn every_rule_of_every_target_is_broken_by_some_file() {
    let mut tried: BTreeSet<(&str, &str)> = BTreeSet::new();
    for case in CASES {
        for target in case.targets {
            tried.extend(case.breaks.iter().map(|&rule| (target.name, rule)));
        }
    }
    // These look at the whole file, and have tests of their own.
    tried.insert(("ort", "runtime"));
    tried.extend(TARGETS.iter().map(|target| (target.name, "quantized")));
    for target in TARGETS {
        for rule in rules_of(target) {
            assert!(tried.contains(&(target.name, rule.id)), "{}/{}", target.name, rule.id);
        }
    }
}

#[test]
fn rules_are_told_apart_by_their_ids() {
    for target in TARGETS {
        let ids: BTreeSet<&str> = rules_of(target).iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), rules_of(target).len(), "{}", target.name);
    }
}

#[test]
fn a_file_without_quantizers_is_told() {
    for &target in TARGETS {
        assert_eq!(
            broken("g (float[1] x) => (float[1] y) { y = Relu (x) }", target),
            ["quantized"]
        );
    }
}

#[test]
fn a_version_of_the_runtime_loads_the_file_or_not() {
    let with = |changes: Changes, runtime: Version| {
        let found = findings(&changed(ORT_FILE, changes), &ORT, Some(runtime));
        let of_runtime = |finding: Finding| (finding.rule == "runtime").then_some(finding.what);
        found.into_iter().filter_map(of_runtime).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(with(&[], Version(1, 12)), "");
    assert_eq!(
        with(&[], Version(1, 11)),
        "operator set 17: ONNX Runtime 1.11 does not load it, 1.12 and later do"
    );
    assert_eq!(
        with(&[("ir_version: 8", "ir_version: 10")], Version(1, 17)),
        "IR version 10: ONNX Runtime 1.17 does not load it, 1.18 and later do"
    );
    let packed: Changes = &[
        OPSET_21,
        ("int8[2,2,1,1] w = {3, -5, 7, 9}", "int4[2,2,1,1] v = {3, -5, 7, 6}"),
        ("wd = ", "w = Cast <to = 3> (v)  wd = "),
    ];
    assert_eq!(with(packed, Version(1, 23)), "");
    assert_eq!(
        with(packed, Version(1, 22)),
        "weights of int4: ONNX Runtime 1.22 does not load it, 1.23 and later do"
    );
    let product = |bits: &str| {
        let node =
            format!("m = com.microsoft.MatMulNBits <K = 4, N = 2, bits = {bits}, block_size = 16> (x, bl, bs)  [conv] c =");
        let made = "float f0 = {0}, uint8[2,1,8] bl = fill(7), float[2,1] bs = {1, 2}";
        let text = changed(ORT_FILE, &[("float f0 = {0}", made), ("[conv] c =", &node)]);
        let found = findings(&text, &ORT, Some(Version(1, 17)));
        let of_runtime = |finding: Finding| (finding.rule == "runtime").then_some(finding.what);
        found.into_iter().filter_map(of_runtime).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(product("4"), "");
    assert_eq!(
        product("8"),
        "MatMulNBits of 8 bits: ONNX Runtime 1.17 does not load it, 1.23 and later do"
    );
}

#[test]
fn findings_name_the_node_and_the_cure() {
    let text = changed(ORT_FILE, &[("(xd, wd, bd)", "(xd, wd, bf)")]);
    let found = findings(&text, &ORT, None);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!((finding.node.as_deref(), finding.op.as_deref()), (Some("conv"), Some("Conv")));
    assert_eq!(finding.what, "its bias is in floats");
    assert!(
        finding.cure.contains("int32") && finding.says.contains("int32"),
        "{finding:?}"
    );
}

#[test]
fn rules_look_into_subgraphs() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        g (bool t, float[1,2] x) => (float[1,2] y) <float s = {0.1}, uint8 z = {0}, float zero = {0}>
        {
          q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)
          y = If (t) <then_branch = one () => (a) { b = QuantizeLinear (d, zero, z)  a = DequantizeLinear (b, zero, z) },
                      else_branch = two () => (c) { c = Identity (d) }>
        }"#;
    // The scale is a constant of the graph around it.
    assert_eq!(broken(text, &ORT), ["scale"]);
}
