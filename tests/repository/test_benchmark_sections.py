"""`benchmarks/results.py` and the tables of the scripts that use it."""

import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

BENCHMARKS = ROOT / "benchmarks"
NAMES = re.findall(
    r"(?:write_section|publish)\(\s*\"(.+?)\"",
    "".join(path.read_text(encoding="utf-8") for path in sorted(BENCHMARKS.glob("*.py"))),
)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("results")
    copy = shutil.copy(module.RESULTS, tmp_path)
    monkeypatch.setattr(module, "RESULTS", Path(copy))
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_its_section(name: str, results: Any) -> None:
    results.write_section(name, "measured")
    text = results.RESULTS.read_text(encoding="utf-8")
    assert f"<!-- {name} -->\nmeasured\n<!-- end of {name} -->" in text


def test_a_section_says_how_it_was_measured(
    results: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    monkeypatch.setattr(
        "sys.argv", ["/somewhere/lrn.py", "--images", str(photos), "--cases", "small one"]
    )
    results.publish("lrn", ["| a |", "|---|"], "Once.", packages=("pillow", "no-such-package"))
    section = results.RESULTS.read_text(encoding="utf-8").split("<!-- lrn -->")[1].split("<!--")[0]
    assert section.startswith(
        "\n```\npython benchmarks/lrn.py --images IMAGES --cases 'small one'\n```\n"
    )
    assert re.search(r"threads; keras \S+, numpy \S+, pillow \S+\. Once\.\n\n\| a \|\n", section)
    assert str(tmp_path) not in section


def test_an_unknown_section_is_an_error(results: Any) -> None:
    before = results.RESULTS.read_bytes()
    with pytest.raises(SystemExit, match=r"RESULTS.md lacks the marker <!-- speed -->"):
        results.write_section("speed", "")
    assert results.RESULTS.read_bytes() == before


def test_table_of_pipelines(results: Any) -> None:
    table = importlib.import_module("input_pipeline").table
    lines = table(
        {
            "cifar/host": [(70.0, 1.0), (50.0, 1.0), (65.0, 2.0)],
            "cifar/device": [(40.0, 1.0)],
            "cifar/0 workers": [(10.0, 4.0)],
            "cifar/2 workers": [(8.0, 9.0)],
            "large/host": [(24.0, 1.0)],
            "large/2 workers": [(10.0, 1.0)],
        }
    )
    assert {line.count("|") for line in lines} == {9}
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]]
    assert rows == [
        ["host", "65", "50 - 70", "6.50", "1.00", "4.00", "6 reached"],
        ["device", "40", "40 - 40", "4.00", "1.00", "4.00", ""],
        ["torchvision, 0 workers", "10", "10 - 10", "1.00", "4.00", "1.00", ""],
        ["torchvision, 2 workers", "8", "8 - 8", "0.80", "9.00", "0.44", ""],
        ["host", "24", "24 - 24", "2.40", "1.00", "1.00", "2.5 missed"],
        ["torchvision, 2 workers", "10", "10 - 10", "1.00", "1.00", "1.00", ""],
    ]
