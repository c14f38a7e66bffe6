#!/usr/bin/env python3
"""Writes src/simplify/opset_changes.txt: which operator set changed which op of ONNX's default domain, and how.

    python3 passes/tools/opset_changes.py        (needs the Python package onnx)

A version means the same as the one before it if its operands, results and attributes are the same and no type was taken away; or if it is
listed in SAME. It changes an op if it does more than that, or is listed in CHANGED because the schema does not show it. What each change
asks for is in src/simplify/opset_rules.rs.
"""

import collections
import pathlib

import onnx.defs
import onnx.helper

FIRST, LAST = 7, 25

# Only optional attributes or operands were added, and left out they mean what the op meant before.
SAME = {
    "ArgMax": [12], "ArgMin": [12], "AveragePool": [10, 19], "Cast": [19, 24], "CastLike": [19, 24], "Constant": [11, 12],
    "DepthToSpace": [11], "DequantizeLinear": [13, 21, 23], "GRU": [14], "GatherND": [12], "Gemm": [11], "LSTM": [14],
    "LpPool": [18], "MaxPool": [8, 10], "OptionalHasElement": [18], "Pad": [18], "QuantizeLinear": [13, 19, 21, 23], "RNN": [14],
    "Reshape": [14], "Resize": [18], "ScatterElements": [16], "ScatterND": [16], "Shape": [15], "TopK": [11],
    # Integers were taken away, which nobody computes an error function of.
    "Erf": [13],
}

# What the schema does not show.
CHANGED = {
    "OneHot": [11],  # Negative indices count from the back; before they chose nothing.
}


def formal(parameter):
    return parameter.option.name, parameter.is_homogeneous


def parameters_widened(old, new):
    def widened(a, b):
        return formal(a) == formal(b) and set(a.types) <= set(b.types)

    return len(old) == len(new) and all(map(widened, old, new))


def attributes_equal(old, new):
    def facts(attribute):
        return attribute.type.name, attribute.required, attribute.default_value.SerializeToString()

    return {k: facts(v) for k, v in old.items()} == {k: facts(v) for k, v in new.items()}


def mark(old, new):
    name, version = new.name, new.since_version
    if new.deprecated:
        return "!"
    if version in CHANGED.get(name, []):
        return "!"
    same = (
        parameters_widened(old.inputs, new.inputs)
        and parameters_widened(old.outputs, new.outputs)
        and attributes_equal(old.attributes, new.attributes)
    )
    listed = version in SAME.get(name, [])
    assert not (same and listed), f"{name} {version} need not be listed"
    return "=" if same or listed else "!"


def main():
    versions = collections.defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= LAST:
            versions[schema.name].append(schema)
    lines = [
        "# Written by passes/tools/opset_changes.py; do not edit.",
        "# `ir`: the IR version that each operator set needs. Then every op: its versions; = means as before, ! changed.",
        "ir " + " ".join(f"{s}:{onnx.helper.OP_SET_ID_VERSION_MAP[('ai.onnx', s)]}" for s in range(FIRST, LAST + 1)),
    ]
    for name, schemas in sorted(versions.items()):
        schemas.sort(key=lambda schema: schema.since_version)
        steps = [f"{new.since_version}{mark(old, new)}" for old, new in zip(schemas, schemas[1:]) if new.since_version > FIRST]
        lines.append(" ".join([name, *steps]))
    path = pathlib.Path(__file__).resolve().parent.parent / "src" / "simplify" / "opset_changes.txt"
    path.write_text("\n".join(lines) + "\n")


main()
