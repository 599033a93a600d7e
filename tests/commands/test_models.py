"""`keras-alexnet`: its formats, its errors, and what it imports."""

import csv
import importlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

from keras_alexnet.commands import models
from keras_alexnet.core.tables import Format
from keras_alexnet.specs import SPECS
from keras_alexnet.summary.costs import DEFINITIONS
from keras_alexnet.summary.profile import profile

KNOWN = ", ".join(SPECS)
Run = Callable[..., tuple[int, str, str]]


def _child(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "keras_alexnet", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(command, env=environment, text=True, **options)


def test_summary_as_csv(run_cli: Run) -> None:
    code, out, err = run_cli("summary", "googlenet", "--aux-heads", "--format", "csv")
    assert (code, err) == (0, "")
    *rows, total = csv.DictReader(io.StringIO(out))
    network = profile(SPECS["googlenet"], aux_heads=True)
    assert [row["name"] for row in rows] == [row.name for row in network.rows]
    for row, expected in zip(rows, network.rows, strict=True):
        assert row["input"] == "x".join(map(str, expected.input))
        assert int(row["parameters"]) == expected.cost.parameters
        assert int(row["receptive_field"] or 0) == (expected.receptive_field or 0)
    assert rows[0]["padding"] == "3"
    assert rows[3]["padding"] == "0+1"
    assert total["name"] == "total"
    assert int(total["flops"]) == network.totals.flops
    assert total["kind"] == total["output"] == total["jump"] == ""


def test_summary_as_json(run_cli: Run) -> None:
    code, out, _ = run_cli(
        "summary", "alexnet_keras", "--format", "json", "--input-size", "227x224"
    )
    assert code == 0
    content = json.loads(out)
    network = profile(SPECS["alexnet_keras"], size=(227, 224))
    assert content["model"] == "alexnet_keras"
    assert content["input_size"] == [227, 224]
    assert (content["classes"], content["aux_heads"]) == (10, False)
    assert content["totals"]["madd"] == network.totals.madd
    assert content["definitions"] == dict(DEFINITIONS)
    assert content["notes"] == list(network.notes)
    assert len(content["layers"]) == len(network.rows)
    assert content["layers"][0] == {
        "name": "conv1",
        "kind": "Conv",
        "input": [3, 227, 224],
        "output": [96, 57, 56],
        "kernel": 11,
        "stride": 4,
        "padding": [[4, 4], [3, 4]],
        "receptive_field": 11,
        "jump": 4,
        "parameters": 34944,
        **{key: getattr(network.rows[0].cost, key) for key in ("memory", "macs", "madd", "flops")},
        "bytes_read": 4 * (3 * 227 * 224 + 34944),
        "bytes_written": 4 * 96 * 57 * 56,
    }
    assert content["layers"][-1]["receptive_field"] is None


def test_summary_as_markdown(run_cli: Run) -> None:
    code, out, _ = run_cli("summary", "alexnet_cifar", "--format", "markdown")
    assert code == 0
    lines = out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(profile(SPECS["alexnet_cifar"]).rows) + 1
    assert {line.count("|") for line in table} == {17}
    assert table[-1].startswith("| total |")
    assert "| 456,637,750 | 228,743,360 |" in table[-1]
    notes = [line for line in lines if line.startswith("* ")]
    assert len(notes) == len(DEFINITIONS) + 2
    assert "BatchNorm of vectors 8,212 FLOPs" in notes[-1]


def test_summary_of_a_file(run_cli: Run, tmp_path: Path) -> None:
    """Of any model: here of one of ours, whose figures its spec gives, too."""
    from keras_alexnet import create_model

    file = tmp_path / "mine.keras"
    create_model("lenet5").save(file)
    code, out, _ = run_cli("summary", str(file), "--format", "json")
    assert code == 0
    found, known = json.loads(out), profile(SPECS["lenet5"]).totals
    assert found["totals"] == {"parameters": known.parameters, "macs": known.macs}
    assert {"name", "kind", "receptive_field", "macs"} <= found["operations"][0].keys()
    code, out, _ = run_cli("summary", str(file))
    assert code == 0
    assert "total" in out
    for more in (["--classes", "3"], ["--aux-heads"], ["--plot", "a.svg"]):
        code, out, err = run_cli("summary", str(file), *more)
        assert (code, out) == (2, "")
        assert "is what it is: --classes, --aux-heads and --plot are for models by name" in err
    code, _, err = run_cli("summary", str(file), "--input-size", "64")
    assert (code, err) == (2, "error: lenet5 takes images of 28x28 pixels alone\n")
    code, _, err = run_cli("summary", str(tmp_path / "gone.keras"))
    assert (code, err) == (2, f"error: {tmp_path / 'gone.keras'}: no such file\n")


def test_summary_as_a_table_in_a_pipe_is_whole(run_cli: Run) -> None:
    code, out, _ = run_cli("summary", "googlenet", "--classes", "7")
    assert code == 0
    assert "…" not in out
    network = profile(SPECS["googlenet"], classes=7)
    assert out.startswith("googlenet, 224 x 224 pixels, 7 classes\n")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    for row in network.rows:
        cells = lines[row.name]
        assert len(cells) == 16
        assert cells[9] == f"{row.cost.parameters:,}"
    assert lines["total"][1:3] == [
        f"{network.totals.parameters:,}", f"{network.totals.memory:,}",
    ]  # fmt: skip
    assert "torchstat has no rule for some kinds of layers in this network" in out
    assert all(f"{heading}: " in out for heading in ("MACs", "MAdd", "FLOPs", "field", "padding"))


@pytest.mark.parametrize("columns", ["80", "120", "400"])
def test_a_terminal_gets_as_many_tables_as_it_needs(columns: str) -> None:
    """Nothing is cut off, whatever the width."""
    leader, follower = pty.openpty()
    environment = {"COLUMNS": columns, "TERM": "xterm", "NO_COLOR": "1"}
    with _child("summary", "alexnet", stdout=follower, env=environment) as child:
        os.close(follower)
        chunks = []
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # how a terminal ends on Linux
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(leader)
    assert child.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", b"".join(chunks).decode())
    assert "…" not in text
    assert all(len(line) <= int(columns) for line in text.splitlines())
    assert text.count(" features_0 ") == {"80": 3, "120": 2, "400": 1}[columns]
    total = profile(SPECS["alexnet"]).totals
    assert all(f"{n:,}" in text for n in (total.parameters, total.madd, total.bytes_written))


def test_models(run_cli: Run) -> None:
    code, out, _ = run_cli("models", "--format", "json")
    assert code == 0
    records = {record["name"]: record for record in json.loads(out)}
    assert list(records) == list(SPECS)
    assert records["googlenet"] == {
        "name": "googlenet",
        "origin": "torchvision",
        "reference": SPECS["googlenet"].reference,
        "input": [224, 224, 3],
        "parameters": 6_624_904,
        "parameters_with_aux": 13_004_888,
        "macs": 1_498_376_192,
        "weights": "IMAGENET1K_V1",
    }
    assert records["lenet5"]["input"] == [28, 28, 1]
    assert records["lenet5"]["parameters_with_aux"] is None
    _, out, _ = run_cli("models", "google*", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == [name for name in SPECS if name.startswith("google")]
    assert (rows[0]["macs"], rows[0]["input"]) == ("1498376192", "224x224x3")
    assert rows[1]["weights"] == ""
    _, out, _ = run_cli("models")
    assert all(name in out for name in SPECS)
    lenet = next(line.split() for line in out.splitlines() if line.startswith(" lenet5"))
    assert lenet[-4:] == ["61,706", "-", "0.000417", "-"]
    alexnet = next(line.split() for line in out.splitlines() if line.startswith(" alexnet "))
    assert alexnet[-2:] == ["0.714", "IMAGENET1K_V1"]


def test_the_documentation_holds_the_table_of_models(
    run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("models_table")
    between = (
        script.DOCUMENT.read_text().partition(script.BEGIN)[2].partition(script.END)[0].strip()
    )
    _, out, _ = run_cli("models", "--format", "markdown")
    assert between == out.strip(), "run `make models-table`"
    assert len(between.splitlines()) == 2 + len(SPECS)


def test_replace_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    replace_between = importlib.import_module("readme").replace_between
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- a -->\nold\nolder\n<!-- b -->\ntwo <!-- a -->\n")
    replace_between("<!-- a -->", "<!-- b -->", "new", page)
    assert page.read_text() == "one\n<!-- a -->\nnew\n<!-- b -->\ntwo <!-- a -->\n"
    replace_between("<!-- a -->", "<!-- b -->", "new", page)
    assert page.read_text() == "one\n<!-- a -->\nnew\n<!-- b -->\ntwo <!-- a -->\n"
    with pytest.raises(SystemExit, match=r"page\.md lacks the marker <!-- c -->"):
        replace_between("<!-- a -->", "<!-- c -->", "x", page)
    with pytest.raises(SystemExit, match=r"page\.md lacks the marker <!-- b2 -->"):
        replace_between("<!-- b2 -->", "<!-- a -->", "x", page)
    assert page.read_text() == "one\n<!-- a -->\nnew\n<!-- b -->\ntwo <!-- a -->\n"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("summary", "googlenett"),
            f"unknown model 'googlenett'. Did you mean 'googlenet'? Known: {KNOWN}",
        ),
        (("models", "vgg*"), f"no model matches 'vgg*'. Known: {KNOWN}"),
        (
            ("summary", "alexnet", "--input-size", "62", "--plot", "net.svg"),
            "alexnet needs images of at least 63 x 63 pixels, as its feature map vanishes below; "
            "got 62 x 62",
        ),
        (
            ("summary", "alexnet", "--input-size", "big"),
            "size 'big' is neither N nor HEIGHTxWIDTH, in pixels",
        ),
        (
            ("summary", "alexnet", "--input-size", "0x64"),
            "size '0x64' is neither N nor HEIGHTxWIDTH, in pixels",
        ),
        (("summary", "alexnet", "--classes", "0"), "classes must be a positive integer, got 0"),
        (("summary", "alexnet", "--aux-heads"), "alexnet has no auxiliary heads"),
        (
            ("summary", "alexnet", "--plot", "missing/net.svg"),
            "cannot write missing/net.svg: there is no folder missing",
        ),
        (
            ("summary", "alexnet", "--plot", "net.gif"),
            "cannot draw net.gif: its suffix must be one of .svg, .png, .pdf",
        ),
    ],
)
def test_mistakes(run_cli: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert run_cli(*arguments) == (2, "", f"error: {message}\n")
    assert not list(tmp_path.iterdir())


def test_usage(run_cli: Run) -> None:
    code, _, err = run_cli("summary", "alexnet", "--format", "yaml")
    assert code == 2
    assert "'table', 'markdown', 'csv', 'json'" in " ".join(err.replace("│", " ").split())
    assert run_cli("--help")[0] == 0


def test_plot(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        models, "profile", lambda *args, **kwargs: calls.append(1) or profile(*args, **kwargs)
    )
    code, out, _ = run_cli("summary", "lenet5", "--plot", "net.svg", "--format", "csv")
    assert code == 0
    assert out.startswith("name,kind,")
    assert (tmp_path / "net.svg").read_text().startswith("<?xml")
    assert len(calls) == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run_cli("summary", "lenet5", "--plot", "other.svg")
    assert (code, out) == (2, "")
    assert err.startswith("error: matplotlib is needed here and is not installed. Install it with")
    assert [path.name for path in tmp_path.iterdir()] == ["net.svg"]
    assert len(calls) == 1


def test_an_interruption_ends_quietly(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "profile", interrupted)
    assert run_cli("summary", "alexnet") == (130, "", "")


@pytest.mark.parametrize("format_", list(Format))
def test_a_reader_that_leaves_ends_it_quietly(format_: str) -> None:
    child = _child(
        "summary", "googlenet", "--format", format_, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout
    assert child.stderr
    child.stdout.close()
    assert child.stderr.read() == ""
    child.stderr.close()
    assert child.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_error() -> None:
    with Path("/dev/full").open("w") as full:
        child = _child("models", stdout=full, stderr=subprocess.PIPE)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (2, "error: [Errno 28] No space left on device\n")


def test_no_framework_is_imported(run_python: Callable[..., Any]) -> None:
    code = """
import sys
from keras_alexnet.commands import app
sys.argv = ["keras-alexnet", *sys.argv[1:]]
try:
    app.main()
except SystemExit as end:
    assert not end.code, end.code
packages = {name.partition(".")[0] for name in sys.modules}
print(sorted(packages & {"keras", "tensorflow", "torch", "torchvision", "jax", "matplotlib"}))
"""
    for arguments in (("models",), ("summary", "googlenet", "--aux-heads")):
        assert run_python(code, *arguments).stdout.splitlines()[-1] == "[]"
