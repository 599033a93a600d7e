"""The notebooks of `examples/notebooks`: that they run, and how a failure is told."""

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

pytest.importorskip("nbclient", reason="no nbclient here: pip install 'keras-alexnet[notebooks]'")

FOLDER = ROOT / "examples" / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
SHORT = {"5_look_inside"}
EACH = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that executes notebooks; kernels find this project."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return importlib.import_module("run")


@EACH
def test_they_say_what_they_need(script: Path) -> None:
    opening = script.read_text().partition("# %%\n")[0]
    assert opening.startswith("# %% [markdown]\n# # ")
    for said in ("Time", "Data", "Needs"):
        assert f"# * **{said}**: " in opening
    assert f"`{script.stem}`" in (ROOT / "docs" / "notebooks.md").read_text()


@EACH
def test_they_use_public_names_alone(script: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    own = {name for name in imported if name and name.startswith(("keras_alexnet", "porting"))}
    assert own
    assert own <= {"keras_alexnet", "porting"}  # whose other names are private


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, marks=() if path.stem in SHORT else pytest.mark.slow, id=path.stem)
        for path in SCRIPTS
    ],
)
def test_they_run(script: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CIFAR10", "CIFAR100", "MODEL", "PHOTOS", "SOURCE"):  # what is embedded
        monkeypatch.delenv(name, raising=False)
    notebook = run.execute(script, tmp_path / "notebook.ipynb")
    assert (tmp_path / "notebook.ipynb").stat().st_size > 10_000
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = {kind for output in outputs for kind in output.get("data", ())}
    assert shown & {"image/png", "text/markdown"}
    errors = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert errors == []


def test_a_failure_names_notebook_and_cell(run: Any, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("# %% [markdown]\n# # Title\n\n# %%\nprint('before')\n\n# %%\n1 / 0\n")
    with pytest.raises(run.TrainingError) as caught:
        run.execute(script, tmp_path / "broken.ipynb")
    assert str(caught.value) == ("broken: its cell [2] failed: ZeroDivisionError: division by zero")
    assert '"before\\n"' in (tmp_path / "broken.ipynb").read_text()


def test_a_cell_that_never_ends(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SECONDS", 1)
    script = tmp_path / "endless.py"
    script.write_text("# %%\nimport time\ntime.sleep(60)\n")
    with pytest.raises(run.TrainingError, match=r"^endless: its cell \[1\] failed: .*1 seconds"):
        run.execute(script, tmp_path / "endless.ipynb")


def test_an_unknown_name(run: Any) -> None:
    with pytest.raises(run.ConfigurationError, match="no notebook 'nothing'; there are 1_port_"):
        run.main(["nothing"])
