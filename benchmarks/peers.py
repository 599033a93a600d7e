"""Convert torchvision's networks with other converters and with this one, side by side.

    python benchmarks/peers.py --json peers.json --peer onnx2keras=envs/onnx2keras/bin/python ...

Each peer has an environment of its own, made by `python3 -m venv envs/NAME` and, with its `pip`:

    onnx2keras   pip install onnx2keras==0.0.25
    keras-hub    pip install keras-hub==0.32.0 tensorflow-cpu safetensors
    onnx2tf      pip install 'onnx2tf[tensorflow]==2.6.9'  (Python 3.12 or newer)
    nobuco       pip install nobuco==0.17.0 tensorflow-cpu==2.15.1 keras==2.15.0 'numpy<2'
                     torch==2.14.1 torchvision==0.29.1 safetensors  (Python 3.11 at the newest)

Keras' own TorchModuleWrapper and this converter run in the project's environment. Converters that a
network lacks are run together, on the same seeded, lively weights and two images. The batch is
symbolic. Those that read
ONNX get a file of torch's older exporter (opset 17), which leaves batch norms whole, and where that
is not right one of its newer exporter (opset 18), whose result counts if it is. KerasHub takes the
weights for timm's, some of which have the same names. Its own mapping is all that it is asked for:
what it refuses here, it may well have by another route.

`peers.json` is kept and gone on with, a network at a time; `--write` puts the table into
`docs/coverage.md`. A result is right where no logit is off by more than 1e-4 of the largest one. A
file is opened here by plain `keras.saving.load_model`, and counts where it computes what the
converted model did. A plain call is `model(images)`, as in a custom training loop's evaluation.
"""

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coverage_table import DOCUMENT
from peers_child import EXPORTERS
from readme import replace_between

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.core.files import write_json
from keras_alexnet.core.machine import installed_versions, processor_name
from keras_alexnet.core.tables import Column, Sheet, markdown
from porting.conversion.network import Network, prepare
from porting.graph.plan import Plan
from porting.torch_side.targets import Target

CHILD = Path(__file__).with_name("peers_child.py")
NETWORKS = (
    "resnet18,googlenet,densenet121,mobilenet_v3_small,shufflenet_v2_x0_5,vit_b_32,squeezenet1_1,"
    "inception_v3,efficientnet_b0,convnext_tiny,swin_t"
)
# Peer -> its ways to convert, each a row of the table.
VARIANTS: dict[str, tuple[str, ...]] = {
    "porting": ("",),
    "onnx2keras": ("channels_first", "channels_last"),
    "onnx2tf": ("flatbuffer_direct", "tf_converter"),
    "nobuco": ("",),
    "keras-hub": ("",),
    "TorchModuleWrapper": ("",),
}
_HERE = ("porting", "TorchModuleWrapper")  # which need no environment of their own
_FROM_ONNX = ("onnx2keras", "onnx2tf")
RIGHT = 1e-4  # of the largest logit

Row = tuple[str, str]  # peer and variant
Result = dict[str, Any]
Results = dict[str, Result]  # row's title -> result; `torch` -> what there is to keep


def run_child(python: str, job: dict[str, Any], backend: str, timeout: float) -> Result:
    """Run a task in an interpreter; the answer holds `error` where there is nothing else."""
    answer = Path(job["folder"], "answer.json")
    answer.unlink(missing_ok=True)
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",  # without it TensorFlow has no channels_first on a CPU
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiled for a single batch
        "PYTHONSAFEPATH": "1",  # a file of this folder is no package of the peer's
    }
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    command = [python, str(CHILD), json.dumps(job | {"answer": str(answer)})]
    output = f"took more than {timeout:g} s"
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            env=environment,
            cwd=job["folder"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        output = f"exit code {done.returncode}\n{done.stdout}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if answer.exists():
        told = json.loads(answer.read_text())
        if told.get("unsaved") == "":  # it ended while it saved
            told["unsaved"] = lines[0]
        return told
    return {"error": next((line for line in lines if "ERROR" in line), lines[-1])}


def convert(row: Row, python: str, network: Network, folder: Path, timeout: float) -> Result:
    """Convert in one way, from the ONNX file that serves it better."""
    job: dict[str, Any] = {
        "task": "convert",
        "network": network.target.name,
        "folder": str(folder),
        "peer": row[0],
        "variant": row[1],
        "own": network.to_json(),
    }
    backend = "torch" if row[0] == "TorchModuleWrapper" else "tensorflow"
    tries: list[Result] = []
    for exporter in EXPORTERS if row[0] in _FROM_ONNX else [""]:
        file = str(folder / f"{''.join(row)}{exporter}.keras")
        job |= {"onnx": str(folder / f"{exporter}.onnx"), "file": file}
        tries.append(run_child(python, job, backend, timeout) | {"from": exporter, "file": file})
        if _gap(tries[-1]) <= RIGHT:
            break
    return min(tries, key=lambda result: (_gap(result) > RIGHT, "gap" not in result))


def measure(
    name: str, rows: Sequence[Row], pythons: dict[str, str], found: Results, timeout: float
) -> None:
    """Convert one network in each of these ways, and open the files on every backend."""
    with tempfile.TemporaryDirectory(prefix="peers-") as text:
        folder, job = Path(text), {"network": name, "folder": text}
        network = prepare(Target(f"torchvision:{name}"), None, folder)
        plan = Plan.load(network.plan)
        found["torch"] = {
            "trainable": sum(math.prod(p.shape) for p in plan.parameters.values() if not p.buffer),
            "norms": Counter(node.op for node in plan.nodes)["batch_norm"],
        }
        for exporter in EXPORTERS if any(peer in _FROM_ONNX for peer, _ in rows) else []:
            export = job | {"task": "export", "exporter": exporter}
            answer = run_child(sys.executable, export, "torch", timeout)
            if "error" in answer:
                print(f"{name}: torch's {exporter} exporter: {answer['error']}", flush=True)
        for row in rows:
            result = convert(row, pythons[row[0]], network, folder, timeout)
            found[_title(row)] = result | {"opened": {}}
            print(f"{name}, {_title(row)}: {result}", flush=True)
        files = {_title(row): found[_title(row)].pop("file") for row in rows}
        done = {title: file for title, file in files.items() if _saved(found[title])}
        for backend in BACKENDS:
            opening = job | {"task": "open", "files": done}
            answer = run_child(sys.executable, opening, backend, timeout)
            for title in done:
                found[title]["opened"][backend] = answer.get(title, answer.get("error"))


def summary(networks: dict[str, Results], rows: Sequence[str]) -> Sheet:
    """Return the table with a line for each converter."""
    headings = ("converter", "runs on", "right", "wrong in silence", "refused")
    more = (
        *(f"file opens on {b}" for b in BACKENDS),
        "plain call agrees",
        "all trainable",
        "batch norms kept",
    )
    columns = tuple(Column(name, name, text=True) for name in (*headings, *more))
    return Sheet("Converters side by side", columns, [_line(networks, row) for row in rows])


def _line(networks: dict[str, Results], row: str) -> tuple[str, ...]:
    tried = {name: found for name, found in networks.items() if row in found}
    done = {name: found[row] for name, found in tried.items() if "gap" in found[row]}
    wrong = [f"{n} {r['gap']:.1e}" for n, r in done.items() if not _gap(r) <= RIGHT]
    refused = [name for name in tried if name not in done]
    example = next(iter(done.values()), {"version": "", "keras": "-"})

    def share(counts: Iterable[bool]) -> str:
        known = list(counts)
        return f"{sum(known)} of {len(known)}" if known else "-"

    def same(result: Result, gap: object) -> bool:
        return isinstance(gap, float) and gap <= max(RIGHT, 2 * result["gap"])

    def all_there(what: str) -> Iterator[bool]:
        return (result[what] >= tried[name]["torch"][what] for name, result in done.items())

    return (
        f"{row} {example['version']}".strip(),
        example["keras"],
        f"{len(done) - len(wrong)} of {len(tried)}",
        ", ".join(wrong) or "-",
        ", ".join(refused) or "-",
        *(share(same(r, r["opened"].get(b)) for r in done.values()) for b in BACKENDS),
        share(same(result, result["plain"]) for result in done.values() if "plain" in result),
        share(all_there("trainable")),
        share(all_there("norms")),
    )


def reasons(networks: dict[str, Results], rows: Sequence[str]) -> list[str]:
    """Return why networks were refused and why files do not open, each reason once."""
    said: dict[tuple[str, str], list[str]] = {}
    for name, found in networks.items():
        for row in (row for row in rows if row in found):
            result = found[row]
            if "error" in result:
                said.setdefault((row, f"refused: {result['error']}"), []).append(name)
            if "unsaved" in result:
                said.setdefault((row, f"not saved: {result['unsaved']}"), []).append(name)
            opened = result["opened"].items()
            for error in dict.fromkeys(gap for _, gap in opened if isinstance(gap, str)):
                where = ", ".join(backend for backend, gap in opened if gap == error)
                text = f"its file does not open on {where}: {error.partition('. ')[0]}"
                said.setdefault((row, text), []).append(name)
    return [f"* {row}, {', '.join(names)}: {text}" for (row, text), names in said.items()]


def _saved(result: Result) -> bool:
    return "gap" in result and "unsaved" not in result


def _gap(result: Result) -> float:
    return result.get("gap", math.inf)


def _title(row: Row) -> str:
    return f"{row[0]} ({row[1]})" if row[1] else row[0]


def main() -> None:
    """Measure what the JSON file lacks, and write the table beside it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--without", action="append", default=[], help="a row, by its name")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for each conversion")
    parser.add_argument("--write", action="store_true", help=f"the table into {DOCUMENT.name}")
    arguments = parser.parse_args()
    pairs = (each.split("=", 1) for each in arguments.peer)
    # A link to an interpreter is an environment, what it points to is not.
    given = {name: str(Path(python).absolute()) for name, python in pairs}
    if unknown := given.keys() - VARIANTS.keys():
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(VARIANTS)}")
    pythons = dict.fromkeys(_HERE, sys.executable) | given
    content: dict[str, Any] = {"versions": {}, "networks": {}}
    if arguments.json.is_file():
        content = json.loads(arguments.json.read_text())
    content["versions"] = installed_versions(("keras", "torch", "torchvision", *BACKENDS))
    networks: dict[str, Results] = content["networks"]
    rows = [(peer, each) for peer, variants in VARIANTS.items() for each in variants]
    for name in arguments.networks.split(","):
        found = networks.setdefault(name, {})
        done = {*found, *arguments.without}
        missing = [row for row in rows if row[0] in pythons and _title(row) not in done]
        if missing:
            measure(name, missing, pythons, found, arguments.timeout)
            write_json(arguments.json, content)  # what is there survives an interruption
    titles = [_title(row) for row in rows if any(_title(row) in n for n in networks.values())]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [f"{processor_name()}; {versions}.", "", markdown(summary(networks, titles)), ""]
    text = "\n".join([*lines, *reasons(networks, titles)])
    print(text)
    if arguments.write:
        replace_between("<!-- peers -->", "<!-- end of peers -->", text, DOCUMENT)


if __name__ == "__main__":
    main()
