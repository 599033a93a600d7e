"""Runs on several devices or processes of this host, by command."""

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers.project import ROOT
from safetensors.numpy import load_file

# Of metrics.csv, which no two runs share.
TIMES = {"images_per_second", "seconds", "memory_mb"}
# LeNet-5 has neither dropout nor batch norm. It sees 297 images; the last batch has 9 of them.
LENET = (
    "--preset", "digits-lenet5", "--epochs", "2", "--train-limit", "331", "--eval-limit", "101",
    "--resize", "32", "--crop", "random", "--flip", "0.5",
)  # fmt: skip

# Sums are taken in another order, and steps of Adam carry the difference on.
WEIGHTS = {"rtol": 1e-4, "atol": 2e-6}

Processes = list[subprocess.Popen[str]]


def begin(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start `keras-alexnet train` with these arguments."""
    code = "from keras_alexnet.commands.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "train", *map(str, arguments)],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def begin_group(
    backend: str,
    count: int,
    *arguments: object,
    only: int | None = None,
    ports: list[int] | None = None,
) -> Processes:
    """Start the processes of one run, each as its launcher would.

    Args:
        backend: Keras backend.
        count: How many processes there are to be.
        *arguments: Of the command.
        only: Rank of the one that is started; all by default.
        ports: Where they listen; free ones by default.
    """
    ports = ports or free_ports(count)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    launchers: dict[str, Callable[[int], dict[str, str]]] = {
        "torch": lambda rank: {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[0]),
        },
        "jax": lambda rank: {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0],
            "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
            "KERAS_DISTRIBUTION_PROCESS_ID": str(rank),
        },
        "tensorflow": lambda rank: {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            )
        },
    }
    return [
        begin("--distribute", *arguments, KERAS_BACKEND=backend, **launchers[backend](rank))
        for rank in (range(count) if only is None else [only])
    ]


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait until all have succeeded; return what each has written."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def processes_with(text: str) -> dict[int, list[str]]:
    """Return the processes whose command line holds a text: number -> its words."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
            if text in " ".join(words):
                found[int(folder.name)] = words
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def rows(folder: Path) -> list[dict[str, float]]:
    """Return metrics.csv without the times."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if v and k not in TIMES}
            for row in csv.DictReader(file)
        ]


def checkpoint(folder: Path, part: str) -> dict[str, np.ndarray]:
    """Return the variables of a part of the checkpoint: model, metrics or optimizer."""
    arrays = load_file(folder / "checkpoint.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith(f"{part}/")}


def assert_same_run(folder: Path, wanted: Path) -> None:
    """Compare the weights of two runs."""
    found, expected = checkpoint(folder, "model"), checkpoint(wanted, "model")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, **WEIGHTS, err_msg=name)
