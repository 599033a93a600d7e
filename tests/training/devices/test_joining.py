"""What a process learns of the others, and how long it waits for them."""

import json
import subprocess
import sys
from typing import Any

import pytest

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.training.devices.joining import (
    Cluster,
    keras_cluster,
    tensorflow_cluster,
    torchrun_cluster,
)
from keras_alexnet.training.devices.placement import Placement

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "1234"}
KERAS = {
    "KERAS_DISTRIBUTION_PROCESS_ID": "1",
    "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    "KERAS_DISTRIBUTION_JOB_ADDRESSES": "host:1234,other:1234",
}


def tf_config(index: Any = 1, kind: str = "worker", **cluster: Any) -> dict[str, str]:
    cluster = cluster or {"worker": ["host:1", "other:1"]}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_launchers_are_understood() -> None:
    assert torchrun_cluster(TORCHRUN) == Cluster(1, 2, "host:1234", "RANK and WORLD_SIZE")
    found = keras_cluster(KERAS)
    assert (found.rank, found.processes, found.address) == (1, 2, "host:1234")
    assert tensorflow_cluster(tf_config()) == Cluster(1, 2, "other:1", "TF_CONFIG")


@pytest.mark.parametrize(
    ("read", "environment", "message"),
    [
        (torchrun_cluster, {}, r"--distribute needs RANK, WORLD_SIZE, .*torchrun --nproc-per-node"),
        (torchrun_cluster, TORCHRUN | {"RANK": "2"}, "process 2 of 2; .* from 0 to 1"),
        (torchrun_cluster, TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number"),
        (keras_cluster, {}, r"--distribute needs KERAS_DISTRIBUTION_PROCESS_ID"),
        (
            keras_cluster,
            KERAS | {"KERAS_DISTRIBUTION_NUM_PROCESSES": "3"},
            "has 2 addresses, but KERAS_DISTRIBUTION_NUM_PROCESSES is 3",
        ),
        (
            keras_cluster,
            KERAS | {"KERAS_DISTRIBUTION_JOB_ADDRESSES": "host"},
            "'host' is not host:port",
        ),
        (tensorflow_cluster, {}, r"--distribute needs TF_CONFIG .*it is JSON such as"),
        (tensorflow_cluster, {"TF_CONFIG": "{"}, "TF_CONFIG describes no cluster of workers"),
        (tensorflow_cluster, tf_config(index=2), "TF_CONFIG: process 2 of 2; .* from 0 to 1"),
        (tensorflow_cluster, tf_config(index="0"), "describes no cluster of workers"),
        (tensorflow_cluster, tf_config(kind="ps"), "there must be workers, and nothing else"),
        (tensorflow_cluster, tf_config(worker=["host"]), "a worker is not host:port"),
    ],
)
def test_what_launchers_cannot_have_meant(
    read: Any, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(environment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "--devices must be at least 1, got 0"),
        ({"devices": 2, "distribute": True}, "leave one of the two out"),
        ({"join_timeout": 0}, "--join-timeout must be above 0, got 0"),
    ],
)
def test_impossible_placements(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Placement(**options)


WAIT = """
import time
from keras_alexnet.training.devices.joining import Cluster, time_limit
with time_limit({seconds}, Cluster(0, 2, "host:1234", "TF_CONFIG")):
    time.sleep({work})
print("joined")
"""


def test_waiting_ends() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WAIT.format(seconds=0.5, work=60)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode < 0
    assert result.stderr == (
        "error: process 0 has waited 0.5 s for the other 1 of 2 and was stopped. Have all been "
        "started, can they reach host:1234, and do they agree on TF_CONFIG? --join-timeout sets "
        "the time\n"
    )


def test_waiting_in_time_is_left_alone() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WAIT.format(seconds=60, work=0)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "joined\n", "")
