"""Writes the node cases of the onnx package's backend tests, for tests/library/conformance.rs, which cannot make them.

    python tests/python/write_node_cases.py FOLDER

For each case and each set of its data: `NAME.model.onnx`, and `NAME.data.onnx`, a model whose initializers are the inputs (`in/…`), the
results (`out/…`) and the tolerances (`rtol`, `atol`). Cases with other values than tensors are left out, as is what only the package's own
training runtime computes.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases


def tensor(value: object, name: str) -> TensorProto | None:
    """A tensor of that name; none for a sequence, an optional, or a type that numpy lacks."""
    if isinstance(value, TensorProto):
        copy = TensorProto()
        copy.CopyFrom(value)
        copy.name = name
        return copy
    if not isinstance(value, (np.ndarray, np.generic)):
        return None
    try:
        return numpy_helper.from_array(np.asarray(value), name)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None


def write(case, folder: Path) -> bool:
    """Writes one case; false where it is left out."""
    graph = case.model.graph
    if not all(value.type.HasField("tensor_type") for value in [*graph.input, *graph.output]):
        return False
    for number, (inputs, outputs) in enumerate(case.data_sets):
        named = [(f"in/{value.name}", given) for value, given in zip(graph.input, inputs)]
        named += [(f"out/{value.name}", given) for value, given in zip(graph.output, outputs)]
        tensors = [tensor(given, name) for name, given in named]
        if None in tensors or len(inputs) != len(graph.input) or len(outputs) != len(graph.output):
            return False
        tensors += [numpy_helper.from_array(np.float64(case.rtol), "rtol"), numpy_helper.from_array(np.float64(case.atol), "atol")]
        outs = [helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in tensors]
        data = helper.make_model(helper.make_graph([], "data", [], outs, tensors))
        name = case.name if number == 0 else f"{case.name}.{number}"
        (folder / f"{name}.model.onnx").write_bytes(case.model.SerializeToString())
        (folder / f"{name}.data.onnx").write_bytes(data.SerializeToString())
    return True


def main() -> None:
    """Writes all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
        cases = collect_testcases(None)
    written = [write(case, folder) for case in cases if case.model is not None]
    print(f"{sum(written)} cases in {folder}, {len(written) - sum(written)} left out")
    # The last: who finds it finds all.
    (folder / "version").write_text(onnx.__version__)


if __name__ == "__main__":
    main()
