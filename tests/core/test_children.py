"""Child processes that die, hang, or complain are reported with their output, in bounded time."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

from keras_alexnet.core.children import Workers, call_child
from keras_alexnet.errors import ChildError, ConfigurationError
from porting.errors import UsageError

CHILDREN = {
    "crashing": "import sys\nprint('loading')\nprint('cannot go on', file=sys.stderr)\nsys.exit(3)",
    "raising": "raise RuntimeError('a bug')",
    "killed": "import os\nprint('so far', flush=True)\nos.kill(os.getpid(), 9)",
    "hanging": "import time\nprint('waiting', flush=True)\ntime.sleep(600)",
    "complaining": (
        "from keras_alexnet.core.children import enter_child\n"
        "from porting.errors import UsageError\n"
        "def main(job):\n    raise UsageError(f\"bad {job['what']}\")\nenter_child(main)"
    ),
    "surprised": (
        "from keras_alexnet.core.children import enter_child\n"
        "def main(job):\n    print('on the way')\n    return job['what']\nenter_child(main)"
    ),
    "filling": (
        "import errno, os\nfrom keras_alexnet.core.children import enter_child\n"
        "def main(job):\n    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "enter_child(main)"
    ),
    "echoing": (
        "import os\nfrom keras_alexnet.core.children import enter_child\n"
        "enter_child(lambda job: [job, os.getpid()])"
    ),
    "working": (
        "import time\nfrom keras_alexnet.core.children import enter_child, report_progress\n"
        "def main(job):\n    end = time.monotonic() + job['seconds']\n"
        "    while time.monotonic() < end:\n        report_progress('at work')\n"
        "        time.sleep(.5)\n    return 'done'\nenter_child(main)"
    ),
    "littering": (
        "import tempfile, time\nfrom keras_alexnet.core.children import enter_child\n"
        "def main(job):\n    print(tempfile.mkdtemp())\n    time.sleep(600)\nenter_child(main)"
    ),
    "busy": (
        "import time\nfrom keras_alexnet.core.children import enter_child\n"
        "def main(job):\n    open(job['file'], 'w').close()\n    time.sleep(600)\nenter_child(main)"
    ),
    "marking": (
        "import os, time\nfrom keras_alexnet.core.children import enter_child\n"
        "def main(job):\n    open(job['file'], 'w').close()\n"
        "    while os.path.exists(job['file']):\n        time.sleep(.02)\n    return 'done'\n"
        "enter_child(main)"
    ),
    "parent": (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    ),
}


needs_ps = pytest.mark.skipif(shutil.which("ps") is None, reason="needs the program ps")


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, code in CHILDREN.items():
        (tmp_path / f"{name}_child.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("crashing", ["exit code 3", "loading", "cannot go on"]),
        ("raising", ["exit code 1", "RuntimeError: a bug"]),
        ("killed", ["signal SIGKILL", "so far"]),
    ],
)
def test_a_failure_is_told_with_its_output(children: Path, name: str, texts: list[str]) -> None:
    with pytest.raises(ChildError) as caught:
        call_child(f"{name}_child", {"what": "colour"}, timeout=60)
    for text in (f"{name}_child failed", *texts):
        assert text in str(caught.value)


def test_the_end_of_a_child_between_two_jobs_is_told(children: Path) -> None:
    """As where the memory does not suffice for all that wait for their turn."""
    with Workers() as workers:
        _, process = workers.call("echoing_child", {}, timeout=60)
        os.kill(process, signal.SIGKILL)
        while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.02)
        with pytest.raises(ChildError, match="echoing_child failed with signal SIGKILL"):
            workers.call("echoing_child", {}, timeout=60)
        assert workers.call("echoing_child", {"a": 1}, timeout=60)[0] == {"a": 1}


def test_an_error_of_ours_is_the_same_in_the_parent(children: Path) -> None:
    with pytest.raises(UsageError, match=r"^bad colour$"):
        call_child("complaining_child", {"what": "colour"}, timeout=60)


def test_a_full_disk_is_told_in_one_line(children: Path) -> None:
    text = r"^no room for temporary files in .* \(No space left on device\); free some there$"
    with pytest.raises(ConfigurationError, match=text):
        call_child("filling_child", {}, timeout=60)


def test_a_foreign_error_is_told_in_one_line_and_with_the_output(children: Path) -> None:
    with pytest.raises(ChildError, match=r"surprised_child failed\.\n.*\n  on the way") as caught:
        call_child("surprised_child", {}, timeout=60)
    assert caught.value.reason == "KeyError: 'what'"
    assert "Traceback" in str(caught.value)


def test_what_a_child_returns_comes_back(children: Path) -> None:
    with Workers() as workers:
        pids = [workers.call("echoing_child", {"n": n}, timeout=60) for n in (1, 2)]
    assert [job for job, _ in pids] == [{"n": 1}, {"n": 2}]
    assert pids[0][1] == pids[1][1]  # one process


def test_the_parent_works_while_a_child_does(children: Path) -> None:
    mark = children / "at-work"

    def meanwhile() -> None:
        while not mark.exists():
            time.sleep(0.02)
        mark.unlink()

    with Workers() as workers:
        job = {"file": str(mark)}
        assert workers.call("marking_child", job, timeout=60, meanwhile=meanwhile) == "done"


def test_an_error_of_the_parent_ends_its_child(children: Path) -> None:
    def meanwhile() -> None:
        raise UsageError("the parent's own")

    with Workers() as workers:
        _, before = workers.call("echoing_child", {}, timeout=60)
        with pytest.raises(UsageError, match="the parent's own"):
            workers.call("echoing_child", {}, timeout=60, meanwhile=meanwhile)
        _, behind = workers.call("echoing_child", {}, timeout=60)
    assert before != behind


def test_a_child_that_reports_progress_is_not_stopped(children: Path) -> None:
    """It takes longer than the limit, and is silent for less."""
    assert call_child("working_child", {"seconds": 6}, timeout=3) == "done"


def test_what_a_stopped_child_leaves_goes_with_it(children: Path) -> None:
    with pytest.raises(ChildError) as caught:
        call_child("littering_child", {}, timeout=2)
    assert not Path(str(caught.value).split()[-1]).exists()


def test_the_backend_is_named(children: Path) -> None:
    with pytest.raises(ChildError, match="crashing_child on jax failed"):
        call_child("crashing_child", {}, backend="jax", timeout=60)


@needs_ps
def test_a_hanging_child_is_stopped_with_all_its_children(children: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ChildError, match=r"was silent for 2 s and was stopped") as caught:
        call_child("parent_child", {}, timeout=2)
    assert time.monotonic() - start < 30
    grandchild = int(str(caught.value).split()[-1])
    for _ in range(100):
        if not _runs(grandchild):
            break
        time.sleep(0.05)
    assert not _runs(grandchild)


def test_output_of_a_hanging_child_is_kept(children: Path) -> None:
    with pytest.raises(ChildError, match="waiting"):
        call_child("hanging_child", {}, timeout=2)


@needs_ps
def test_an_interruption_ends_the_child(children: Path) -> None:
    code = (
        "from keras_alexnet.core.children import call_child\n"
        "call_child('parent_child', {}, timeout=60)"
    )
    environment = os.environ | {"PYTHONPATH": f"{children}{os.pathsep}{ROOT}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    try:
        # Until the child has started a child of its own.
        mine = _wait_for(lambda: _descendants(parent.pid), count=2)
        parent.send_signal(signal.SIGINT)
        parent.wait(20)
    finally:
        parent.kill()
    assert parent.returncode != 0
    assert _wait_for(lambda: [pid for pid in mine if not _runs(pid)], count=2)


@needs_ps
def test_a_busy_child_does_not_outlive_its_parent(children: Path, tmp_path: Path) -> None:
    """Even if the parent had no chance to end it."""
    file = tmp_path / "started"
    code = "import sys; from keras_alexnet.core.children import call_child\n"
    code += "call_child('busy_child', {'file': sys.argv[1]}, timeout=60)"
    environment = os.environ | {"PYTHONPATH": f"{children}{os.pathsep}{ROOT}"}
    parent = subprocess.Popen([sys.executable, "-c", code, str(file)], env=environment)
    try:
        _wait_for(lambda: [file] if file.exists() else [], count=1)
        (child,) = _descendants(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    assert _wait_for(lambda: [] if _runs(child) else [child], count=1)


def _wait_for(found: Callable[[], list[Any]], *, count: int) -> list[Any]:
    """Return what is found as soon as there is enough of it."""
    deadline = time.monotonic() + 60
    while len(result := found()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result


def _descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    listing = ["ps", "-eo", "pid=,ppid="]
    lines = subprocess.run(listing, capture_output=True, text=True, check=False).stdout.splitlines()
    pairs = [tuple(map(int, line.split())) for line in lines]
    found = [pid]
    for parent in found:
        found += [child for child, of in pairs if of == parent]
    return found[1:]


def _runs(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")
