"""What becomes of a run on several devices that loses a process, or never finds all of them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.devices import (
    LENET,
    assert_same_run,
    begin,
    begin_group,
    finish,
    processes_with,
)
from helpers.project import ROOT

MINUTE = 60.0
EVERY_BACKEND = ("torch", "tensorflow", "jax")
# Long enough to be struck: in the middle of some epoch behind the first one.
LONG = (*LENET, "--epochs", "6", "--checkpoint-steps", "3")


def wait_for(path: Path, *processes: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 2 * MINUTE
    while not path.exists():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.005)


def end_within(seconds: float, process: subprocess.Popen[str]) -> str:
    """Return what a process has written, which fails in so many seconds."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode != 0
    assert "Traceback" not in output, output
    return output


def worker_of_rank(rank: int, output: Path) -> int:
    """Return the process that torchrun's agent has given a rank in the run of a folder."""
    for pid, words in processes_with("-m keras_alexnet.training.worker").items():
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        if f"RANK={rank}" in environment and str(output) in Path(words[-2]).read_text():
            return pid
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
def test_a_killed_worker_of_torch_ends_the_run_which_others_finish(tmp_path: Path) -> None:
    folder, whole = tmp_path / "struck", tmp_path / "whole"
    process = begin(*LONG, "--backend", "torch", "--devices", 2, "--output", folder)
    uninterrupted = begin(*LONG, "--backend", "torch", "--output", whole)
    wait_for(folder / "metrics.csv", process)
    victim = worker_of_rank(1, folder)
    os.kill(victim, signal.SIGKILL)
    output = end_within(MINUTE, process)
    assert process.returncode == 2
    assert f"error: process 1 (pid {victim}) was ended by SIGKILL" in output
    assert f"--resume {folder} --devices 2" in output
    assert not (folder / "summary.json").exists()
    # On another number of devices.
    finish(begin("--resume", folder, "--devices", 4), uninterrupted)
    assert_same_run(folder, whole)


@pytest.mark.slow
def test_torchrun_starts_a_run_again(tmp_path: Path) -> None:
    folder, whole = tmp_path / "struck", tmp_path / "whole"
    arguments = (*LONG, "--backend", "torch")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("--max-restarts=1", "-m", "keras_alexnet.train", *arguments),
            *("--output", str(folder), "--distribute"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    uninterrupted = begin(*arguments, "--output", whole)
    wait_for(folder / "metrics.csv", process)
    workers = set(processes_with(str(folder))) - {process.pid}
    os.kill(max(workers), signal.SIGKILL)
    first, _ = finish(process, uninterrupted)
    assert "resumed behind epoch" in first
    assert_same_run(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("backend", EVERY_BACKEND)
def test_a_killed_process_ends_the_others(backend: str, tmp_path: Path) -> None:
    folder, whole = tmp_path / "struck", tmp_path / "whole"
    processes = begin_group(backend, 2, *LONG, "--epochs", "20", "--output", folder)
    wait_for(folder / "metrics.csv", *processes)
    processes[1].kill()
    processes[1].communicate()
    output, _ = processes[0].communicate(timeout=MINUTE)
    assert processes[0].returncode not in (0, None)
    named = {
        "tensorflow": r"error: process 1 \(worker 1\) was lost",
        # JAX's own words, in one of its two ways to find out.
        "jax": r"heartbeats\):\s+1\s|Task 1 heartbeat timeout",
        # torchrun names it, which nobody has started here.
        "torch": "error: another process was lost",
    }
    assert re.search(named[backend], output), output
    assert "was lost" in output
    finish(begin(*LONG, "--epochs", "20", "--backend", backend, "--output", whole))
    finish(*begin_group(backend, 2, "--resume", folder))
    assert_same_run(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("backend", EVERY_BACKEND)
def test_interrupted_together_and_resumed_by_one(backend: str, tmp_path: Path) -> None:
    """Ctrl-C reaches one process; all stop behind the same batch."""
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    options = (*LENET, "--epochs", "40")
    processes = begin_group(backend, 2, *options, "--output", folder)
    wait_for(folder / "metrics.csv", *processes)
    processes[1].send_signal(signal.SIGINT)
    outputs = [process.communicate(timeout=MINUTE)[0] for process in processes]
    assert [process.returncode for process in processes] == [130, 130], outputs
    assert "stopped and saved; go on with" in outputs[0]
    finish(
        begin("--resume", folder), begin(*options, "--backend", backend, "--output", whole)
    )  # fmt: skip
    assert_same_run(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("backend", EVERY_BACKEND)
def test_waiting_for_others_has_an_end(backend: str, rank: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    processes = begin_group(
        backend, 2, *LENET, "--output", folder, "--join-timeout", 15, only=rank
    )  # fmt: skip
    output = end_within(2 * MINUTE, processes[0])
    assert "error: process" in output
    assert "--join-timeout sets the time" in output
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", EVERY_BACKEND)
def test_a_port_in_use_is_named(backend: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        processes = begin_group(
            backend, 2, *LENET, "--output", tmp_path / "run", "--join-timeout", 30, only=0,
            ports=[port, port],
        )  # fmt: skip
        output = end_within(2 * MINUTE, processes[0])
    assert str(port) in output
    assert "error: " in output
    assert not (tmp_path / "run").exists()


# The same mistakes without processes: test_shards.py, test_joining.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--devices", 3), "batch_size 32 is that of all devices together .* among 3"),
        (("--devices", 2, "--distribute"), "leave one of the two out"),
        (("--distribute",), "--distribute needs RANK, WORLD_SIZE"),
    ],
)
def test_what_cannot_be(options: tuple[object, ...], message: str, tmp_path: Path) -> None:
    process = begin(*LENET, "--backend", "torch", *options, "--output", tmp_path / "run")
    output = end_within(MINUTE, process)
    assert process.returncode == 2
    assert re.search(message, output), output
    assert not (tmp_path / "run").exists()
