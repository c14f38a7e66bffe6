#!/usr/bin/env python3
"""Latency of lowered files in stock ONNX Runtime, beside the float model and ONNX Runtime's own quantizer, interleaved.

    benches/latency.py                                      everything, in ONNX Runtime
    benches/latency.py --networks resnet20 --batches 1 --rounds 5
    benches/latency.py --openvino                           the same in OpenVINO, of files for --target openvino
    benches/latency.py --profile                            also which share of the time each kind of node takes, in ONNX Runtime
    benches/latency.py --render                             README's table again; --check: is it in step?

Run it with .venv/bin/python, which tests/run makes; for --openvino with a Python that has benches/requirements-openvino.txt. ResNet-18 is
a file of `fixtures/imagenet.py --out target/imagenet resnet18`. Results are in `latency.json`, an entry for each engine, network, batch
and number of threads; --dry stores nothing. Each candidate's kinds of nodes are printed, and what it has more or fewer of than the file of
`quantize_static`: of the graph that ONNX Runtime runs, or of OpenVINO's, with the precision of its inputs.

Exit codes: 0 good; 1 README is not in step; 2 something is missing or fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests" / "python")]
from deployed_table import NETWORKS, Problem, Results, act, latency_key, render_latency, shared_arguments  # noqa: E402

RESULTS = Results("latency", latency_key, render_latency)
TARGETS = {"onnxruntime": "ort", "openvino": "openvino"}
PROFILED_RUNS = 10


class OnnxRuntime:
    """Times and explains in ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self) -> None:
        import deployed
        import onnxruntime

        self.session, self.versions = deployed.session, {"onnxruntime": onnxruntime.__version__}

    def side(self, model: Path, threads: int, fed) -> Callable[[], object]:
        """What runs the model once on `fed`."""
        session = self.session(model, threads)
        return lambda: session.run(None, {"image": fed})

    def nodes(self, model: Path) -> Counter:
        """Kinds of nodes of the graph that is run."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            self.session(model, 1, optimized_model_filepath=str(optimized))
            return Counter(node.op_type for node in onnx.load(optimized).graph.node)

    def profile(self, model: Path, threads: int, fed) -> dict[str, float]:
        """Milliseconds of one run that each kind of node takes: of each node the median."""
        with tempfile.TemporaryDirectory() as folder:
            more = {"enable_profiling": True, "profile_file_prefix": str(Path(folder) / "profile")}
            session = self.session(model, threads, **more)
            for _ in range(PROFILED_RUNS):
                session.run(None, {"image": fed})
            events = json.loads(Path(session.end_profiling()).read_text())
        spent: dict[tuple[str, str], list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                spent.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
        total: Counter = Counter()
        for (kind, _), micros in spent.items():
            total[kind] += statistics.median(micros)
        return {kind: micros / 1000 for kind, micros in total.most_common()}


class OpenVino:
    """Times and explains in OpenVINO."""

    name = "openvino"

    def __init__(self) -> None:
        try:
            import openvino
        except ImportError as error:
            raise Problem(f"a package is missing ({error}): install benches/requirements-openvino.txt") from error
        self.core, self.versions = openvino.Core(), {"openvino": openvino.__version__.split("-")[0]}

    def compile(self, model: Path, threads: int, shape: tuple[int, ...]):
        """For one fixed shape, as a program that knows its batch would."""
        read = self.core.read_model(model)
        read.reshape(list(shape))
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        return self.core.compile_model(read, "CPU", settings)

    def side(self, model: Path, threads: int, fed) -> Callable[[], object]:
        """What runs the model once on `fed`."""
        request = self.compile(model, threads, fed.shape).create_infer_request()
        return lambda: request.infer([fed])

    def nodes(self, model: Path) -> Counter:
        """Kinds of nodes of the graph that is run, each with its precision."""
        shape = [1, *self.core.read_model(model).inputs[0].get_partial_shape().to_string().strip("[]").split(",")[1:]]
        kinds: Counter = Counter()
        for node in self.compile(model, 1, tuple(int(extent) for extent in shape)).get_runtime_model().get_ops():
            info = {key: str(node.get_rt_info()[key].astype(str)) for key in ("layerType", "runtimePrecision")}
            if info["layerType"] not in ("Input", "Output", "Const", "Constant"):
                kinds[f"{info['layerType']}:{info['runtimePrecision']}"] += 1
        return kinds


def candidates(maker, network, engine: str, bits: list[int]) -> dict[str, Path]:
    """The files, by the names of the table."""
    files = {"float": network.model, "quantize_static": maker.by_onnxruntime(network)}
    for count in bits:
        flags = ["--bits", count, "--target", TARGETS[engine]]
        files[f"lsqc-{count}"] = maker.by_lsqc(network, flags)
        files[f"lsqc-{count}-per-channel"] = maker.by_lsqc(network, [*flags, "--per-channel"])
    return files


def explain(kinds: dict[str, Counter]) -> None:
    """Prints what each candidate is made of."""
    reference = kinds["quantize_static"]
    for name, found in kinds.items():
        print(f"  {name:19} " + ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())))
        differ = {kind: found[kind] - reference[kind] for kind in sorted(found | reference) if found[kind] != reference[kind]}
        if differ and name != "float":
            print(" " * 22 + "against quantize_static: " + ", ".join(f"{count:+d} {kind}" for kind, count in differ.items()))


def measure(engine, files: dict[str, Path], fed, threads: int, rounds: int) -> dict:
    """Times all candidates, prints them and gives their part of the entry."""
    import deployed

    times = deployed.interleaved({name: engine.side(file, threads, fed) for name, file in files.items()}, rounds)
    measured = {}
    for name, own in times.items():
        timed = {"ms": round(statistics.median(own), 4), "least": round(min(own), 4), "most": round(max(own), 4)}
        for other in ("float", "quantize_static"):
            if name != other:
                each = deployed.ratios(own, times[other])
                timed[f"to_{other}"] = round(statistics.median(each), 4)
                timed[f"to_{other}_range"] = [round(min(each), 4), round(max(each), 4)]
        shown = [f"{timed[f'to_{of}']:.2f} of {of}" for of in ("float", "quantize_static") if name != of]
        print(f"  {name:19} {timed['ms']:9.3f} ms ({timed['least']:.3f} to {timed['most']:.3f})  {', '.join(shown)}", flush=True)
        measured[name] = timed
    return measured


def run(arguments: argparse.Namespace) -> None:
    """Makes, explains, times and stores."""
    try:
        import deployed
    except ImportError as error:
        raise Problem(f"a package is missing ({error}): run this with .venv/bin/python, which tests/run makes") from error
    engine = OpenVino() if arguments.openvino else OnnxRuntime()
    maker = deployed.Maker(arguments.lsqc.resolve(), arguments.folder)
    made = {name: deployed.Network.find(name, arguments.nets) for name in arguments.networks}
    files = {name: candidates(maker, network, engine.name, arguments.bits) for name, network in made.items()}
    for name, network in made.items():
        kinds = {of: engine.nodes(file) for of, file in files[name].items()}
        print(f"{name} in {engine.name}: what is run")
        explain(kinds)
        for batch in arguments.batches if not arguments.only_nodes else ():
            fed = network.images(batch)
            for threads in arguments.threads:
                print(f"{name} in {engine.name}, batch {batch}, threads {threads}, {arguments.rounds} rounds", flush=True)
                entry = {"engine": engine.name, "network": name, "batch": batch, "threads": threads, "rounds": arguments.rounds}
                entry |= {"candidates": measure(engine, files[name], fed, threads, arguments.rounds)}
                entry |= {"nodes": {of: dict(sorted(found.items())) for of, found in kinds.items()}}
                if not arguments.dry:
                    RESULTS.add(entry | deployed.circumstances(maker, **engine.versions))
                if arguments.profile and isinstance(engine, OnnxRuntime):
                    for of, file in files[name].items():
                        spent = engine.profile(file, threads, fed)
                        print(f"  {of:19} " + ", ".join(f"{kind} {ms:.2f} ms" for kind, ms in spent.items()), flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NET", help=", ".join(NETWORKS))
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 3], choices=(8, 3), metavar="N", help="[8 3]")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64], metavar="N", help="[1 64]")
    parser.add_argument("--openvino", action="store_true", help="in OpenVINO")
    parser.add_argument("--profile", action="store_true", help="the share of each kind of node")
    parser.add_argument("--only-nodes", action="store_true", help="make the files and print their nodes, time nothing")
    shared_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(act(parse(), RESULTS, run))
