"""What can be imported from the packages' tops, and that the documentation shows nothing else."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

import keras_alexnet
import porting

NAMES = {
    "keras_alexnet": (
        "AlexNet BenchmarkError ChildError CompilationError ConfigurationError DataError "
        "DataSurvey Evaluation Experiment Explainer ExplanationDetail ExportError ExportRequest "
        "GoogLeNet ImageFileError ImportOrderError KerasAlexNetError LocalResponseNormalization "
        "MissingDependencyError ModelFileError OptimizedModel Packing Picture Predictor "
        "Preprocessing Preset Run TrainingError UnknownModelError VerificationError "
        "compare_curves compare_runs confusion_matrix create_model evaluate example_grid "
        "export_model feature_extractor find_data find_preset heat_overlay learning_curves "
        "list_models list_presets load_images load_model load_weights normalize optimize "
        "pack_data read_record read_run read_runs reliability_diagram resize_and_crop "
        "resume_experiment run_experiment sample_predictions save_model signed_overlay "
        "survey_data write_comparison write_explanation"
    ),
    "porting": (
        "CheckRequest Checkpoint CheckpointError Counterpart DownloadError GraphError ParityResult "
        "PortingError TOLERANCES Tolerance TrainingRequest TrainingResult TransferError UsageError "
        "build_torch check check_training convert diff export from_torch from_torchvision "
        "inspect load_model load_state_dict read_checkpoint seeded_state_dict to_state_dict "
        "write_checkpoint write_report"
    ),
}
PACKAGES = pytest.mark.parametrize("package", [keras_alexnet, porting], ids=lambda p: p.__name__)
# Modules that are public as such.
MODULES = {"keras_alexnet.errors", "keras_alexnet.layers", "keras_alexnet.lrn"}
MODULES |= {"keras_alexnet.train", "porting.errors", "porting.tolerances"}
REFERENCE = re.compile(r"\b(?:keras_alexnet|porting)(?:\.\w+)+")


@PACKAGES
def test_exported_names(package: Any) -> None:
    assert sorted(package.__all__) == sorted(NAMES[package.__name__].split())
    for name in package.__all__:
        assert name in dir(package)
        found = getattr(package, name)
        assert found.__doc__ or name == "TOLERANCES", name
    with pytest.raises(AttributeError, match="attribute nonsense"):
        _ = package.nonsense


@PACKAGES
def test_types_are_shipped(package: Any) -> None:
    folder = Path(package.__file__).parent
    assert (folder / "py.typed").is_file()
    for name in package.__all__:  # editors take a name without `as` for a private one
        assert re.search(rf"\b{name} as {name}\b", (folder / "__init__.pyi").read_text())


@PACKAGES
def test_exceptions_are_all_public(package: Any) -> None:
    errors = importlib.import_module(f"{package.__name__}.errors")
    own = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert own <= set(package.__all__)


def _shown() -> list[tuple[str, str]]:
    """File and dotted name of what README, docs, error texts and help texts tell people to use."""
    found = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text()
        parts = re.findall(r"```python\n(.*?)```|`([^`\n]+)`", text, re.S)
        code = "\n".join("".join(part) for part in parts)
        found += [(file.name, name) for name in REFERENCE.findall(code)]
        for module, names in re.findall(r"^from (keras_alexnet|porting) import (.+)$", code, re.M):
            found += [(file.name, f"{module}.{name.strip()}") for name in names.split(",")]
    for file in sorted((*ROOT.glob("keras_alexnet/**/*.py"), *ROOT.glob("porting/**/*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                found += [(file.name, name) for name in REFERENCE.findall(node.value)]
    return sorted(set(found))


@pytest.mark.parametrize(("file", "name"), _shown())
def test_what_the_documentation_shows_is_there(file: str, name: str) -> None:
    """A public name from a package's top, a public module, or a room of the house."""
    package, first, *rest = name.split(".")
    if first in ("json", "keras", "md", "src"):
        pytest.skip("a file's name")
    if first in NAMES[package].split():
        found = getattr(importlib.import_module(package), first)
        for part in rest:
            found = getattr(found, part)
        return
    if f"{package}.{first}" in MODULES:
        module = importlib.import_module(f"{package}.{first}")
        assert not rest or hasattr(module, rest[0])
        return
    # Docstrings of the rooms speak of each other; what people are shown does not.
    assert not file.endswith(".md") or file == "contributing.md", f"{name} is private"
    parts = name.split(".")
    place = ROOT.joinpath(*parts)
    assert (
        place.is_dir()
        or place.with_suffix(".py").is_file()
        or (
            ROOT.joinpath(*parts[:-1]).with_suffix(".py").is_file()
            and parts[-1] in ROOT.joinpath(*parts[:-1]).with_suffix(".py").read_text()
        )
    ), name
