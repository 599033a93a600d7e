"""How a process learns which others there are, and how long it waits for them."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_alexnet.errors import ConfigurationError


@dataclass(frozen=True)
class Cluster:
    """A process among others.

    Attributes:
        rank: Its number, from 0.
        processes: Number of all.
        address: Where it, or the first one, can be reached, as "host:port".
        source: What says so, for messages.
    """

    rank: int
    processes: int
    address: str
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.processes:
            raise ConfigurationError(
                f"{self.source}: process {self.rank} of {self.processes}; processes are numbered "
                f"from 0 to {self.processes - 1}"
            )


_KERAS = (
    "KERAS_DISTRIBUTION_PROCESS_ID",
    "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "KERAS_DISTRIBUTION_JOB_ADDRESSES",
)


def torchrun_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return what torchrun has told this process.

    Raises:
        ConfigurationError: It has not, or something impossible.
    """
    rank, size, host, port = _read(
        ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        environment,
        "start the processes with torchrun --nproc-per-node N -m keras_alexnet.train ..., or use "
        "--devices N on one host",
    )
    return Cluster(
        _number("RANK", rank), _number("WORLD_SIZE", size), f"{host}:{port}", "RANK and WORLD_SIZE"
    )


def keras_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return what the variables of `keras.distribution.initialize` say.

    Raises:
        ConfigurationError: They are missing, or say something impossible.
    """
    rank, size, addresses = _read(
        _KERAS,
        environment,
        "KERAS_DISTRIBUTION_JOB_ADDRESSES is host:port of the first process; or use --devices N on "
        "one host",
    )
    first, *others = addresses.split(",")
    processes = _number(_KERAS[1], size)
    if others and len(others) + 1 != processes:
        raise ConfigurationError(
            f"{_KERAS[2]} has {len(others) + 1} addresses, but {_KERAS[1]} is {processes}"
        )
    if not first.rpartition(":")[2].isdecimal():
        raise ConfigurationError(f"{_KERAS[2]}: {first!r} is not host:port")
    return Cluster(_number(_KERAS[0], rank), processes, first, f"{_KERAS[0]} and {_KERAS[1]}")


def tensorflow_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return what `TF_CONFIG` says.

    Raises:
        ConfigurationError: It is missing, or describes no cluster of workers.
    """
    (text,) = _read(
        ("TF_CONFIG",),
        environment,
        'it is JSON such as {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": '
        '{"type": "worker", "index": 0}}; or use --devices N on one host',
    )
    try:
        content: Any = json.loads(text)
        workers = content["cluster"]["worker"]
        kind, index = content["task"]["type"], content["task"]["index"]
        if not all(isinstance(w, str) and w.rpartition(":")[2].isdecimal() for w in workers):
            raise TypeError("a worker is not host:port")
        if set(content["cluster"]) != {"worker"} or kind != "worker" or type(index) is not int:
            raise TypeError("there must be workers, and nothing else")
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"TF_CONFIG describes no cluster of workers ({error!r}): {text}"
        ) from error
    address = workers[index] if 0 <= index < len(workers) else ""
    return Cluster(index, len(workers), address, "TF_CONFIG")


@contextlib.contextmanager
def time_limit(seconds: float, cluster: Cluster) -> Iterator[None]:
    """End this process, with a message, unless the block ends in time.

    Engines wait within code that lets no other thread run, for an hour or for good; so another
    process watches this one.
    """
    text = (
        f"error: process {cluster.rank} has waited {seconds:g} s for the other "
        f"{cluster.processes - 1} of {cluster.processes} and was stopped. Have all been started, "
        f"can they reach {cluster.address}, and do they agree on {cluster.source}? "
        "--join-timeout sets the time"
    )
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, str(os.getpid()), str(seconds), text],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the one that waits
    )
    assert watch.stdin is not None
    try:
        yield
    finally:
        watch.stdin.close()
        watch.wait()


# Ends when its standard input does.
_WATCH = """
import os, select, signal, sys
pid, seconds, text = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
if not select.select([0], [], [], seconds)[0]:
    print(text, file=sys.stderr, flush=True)
    os.kill(pid, signal.SIGKILL)
"""


def _read(names: tuple[str, ...], environment: Mapping[str, str], hint: str) -> list[str]:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise ConfigurationError(
            f"--distribute needs {', '.join(missing)} in the environment: {hint}"
        )
    return [environment[name] for name in names]


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text!r}, not a number") from None
