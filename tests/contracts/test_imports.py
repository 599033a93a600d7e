"""What each import loads, in child processes, and what is said where something is missing."""

import importlib.util
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.backends import EACH_BACKEND

import keras_alexnet
import porting
from keras_alexnet.core.backend import BACKENDS, installed, installed_backends, require
from keras_alexnet.errors import (
    ConfigurationError,
    ImportOrderError,
    KerasAlexNetError,
    MissingDependencyError,
)

RunPython = Callable[..., Any]
FRAMEWORKS = ["keras", "tensorflow", "torch", "torchvision", "jax"]

REPORT = f"""
import json, sys
packages = {{name.partition(".")[0] for name in sys.modules}}
print(json.dumps(sorted(packages & {{*{FRAMEWORKS}, "keras_alexnet", "porting"}})))
"""

# Makes packages look as if they were not installed.
HIDE = """
import importlib.util, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
find_spec = importlib.util.find_spec
def find_visible(name, package=None):
    return None if name.partition(".")[0] in {hidden} else find_spec(name, package)
importlib.util.find_spec = find_visible
"""


def _hide(*packages: str) -> str:
    return HIDE.format(hidden=set(packages))


def _modules(package: Any) -> list[str]:
    return [
        module.name
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]


def _loaded(done: Any) -> set[str]:
    return set(json.loads(done.stdout.splitlines()[-1]))


# What imports load


@pytest.mark.parametrize(
    ("code", "own"),
    [
        ("import keras_alexnet", {"keras_alexnet"}),
        ("from keras_alexnet import normalize, read_record", {"keras_alexnet"}),
        ("import keras_alexnet.specs, keras_alexnet.specs.shapes", {"keras_alexnet"}),
        ("import porting", {"porting"}),
        ("import keras_alexnet.models.interface", {"keras_alexnet"}),
        ("import porting.checks.parity, porting.weights.spec_tables", {"keras_alexnet", "porting"}),
        ("import porting.checks.reference", {"keras_alexnet", "porting"}),
    ],
)
def test_no_framework_is_loaded(code: str, own: set[str], run_python: RunPython) -> None:
    assert _loaded(run_python(code + REPORT)) == own


def test_a_network_loads_its_own_tables_alone(run_python: RunPython) -> None:
    code = """
import sys
from keras_alexnet.specs import SPECS
loaded = lambda: {name for name in sys.modules if name.startswith("keras_alexnet.specs.")}
tables = {"keras_alexnet.specs.schema", "keras_alexnet.specs.preprocessing"}
assert len(list(SPECS)) > 9 and loaded() == tables, loaded()
SPECS["lenet5"]
own = {"keras_alexnet.specs.lenet", "keras_alexnet.specs.shared"}
assert loaded() == tables | own, loaded()
"""
    run_python(code)


def test_no_module_of_porting_loads_a_framework(run_python: RunPython) -> None:
    """Only functions do, so files can be inspected and compared without any framework.

    But for `candidate`, the Keras child of a check that nothing imports, and `torch_model`, which
    functions import.
    """
    own = {"porting.checks.candidate", "porting.torch_side.torch_model"}
    modules = [name for name in _modules(porting) if name not in own]
    assert len(modules) > 50
    done = run_python(f"import {', '.join(modules)}" + REPORT)
    assert _loaded(done) == {"keras_alexnet", "porting"}


def test_keras_alexnet_needs_no_porting(tmp_path: Path, run_python: RunPython) -> None:
    """Every module of it works where neither the kit nor what the kit alone needs is there."""
    # TensorFlow needs some of that itself.
    modules = [name for name in _modules(keras_alexnet) if ".tensorflow" not in name]
    assert len(modules) > 130
    (tmp_path / "keras_alexnet").symlink_to(Path(keras_alexnet.__file__).parent)
    code = _hide("porting", "requests", "jinja2", "torchvision")
    code += f"""
import {", ".join(modules)}
model = keras_alexnet.GoogLeNet(classes=5, input_shape=(32, 32, 3), include_preprocessing=True)
keras_alexnet.feature_extractor(model, ["stage1"])
"""
    options = {"on_path": False, "PYTHONPATH": str(tmp_path), "KERAS_BACKEND": "torch"}
    loaded = _loaded(run_python(code + REPORT, **options))
    assert (
        {"keras_alexnet", "keras", "torch"} <= loaded <= {"keras_alexnet", "jax", "keras", "torch"}
    )


@EACH_BACKEND
def test_a_model_loads_one_framework(backend: str, run_python: RunPython) -> None:
    # Keras itself may load JAX when it is imported, on every backend; that is not ours to judge.
    code = f"""
import json, sys
frameworks = {FRAMEWORKS}
from keras_alexnet.core.backend import load_keras
load_keras()
first = [name for name in frameworks if name in sys.modules]
from keras_alexnet import AlexNet
model = AlexNet(include_top=False, pooling="avg")
assert model.output_shape == (None, 256)
print(json.dumps([first, [name for name in frameworks if name in sys.modules]]))
"""
    done = run_python(code, KERAS_BACKEND=backend)
    first, afterwards = json.loads(done.stdout.splitlines()[-1])
    assert afterwards == first
    assert {"keras", backend} <= set(first)
    others = set(BACKENDS) - {backend}
    assert set(first) & others <= {"jax"}


# What is missing


def test_chosen_backend_is_missing(run_python: RunPython) -> None:
    code = _hide("tensorflow") + "from keras_alexnet import GoogLeNet"
    done = run_python(code, check=False, KERAS_BACKEND="tensorflow")
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "MissingDependencyError: The Keras backend 'tensorflow', chosen by the environment " in (
        message
    )
    assert "variable KERAS_BACKEND, is not installed." in message
    assert "Install it with: pip install " in message
    assert "tensorflow" in message.partition("pip install ")[2]
    for other in set(installed_backends()) - {"tensorflow"}:
        assert f"KERAS_BACKEND={other}" in message


@pytest.mark.parametrize("name", ["tensorflwo", "numpy"])
def test_chosen_backend_is_none_of_ours(name: str, run_python: RunPython) -> None:
    code = "from keras_alexnet import GoogLeNet"
    done = run_python(code, check=False, KERAS_BACKEND=name)
    assert done.stderr.splitlines()[-1] == (
        f"keras_alexnet.errors.ConfigurationError: unknown Keras backend {name!r}, chosen by the "
        "environment variable KERAS_BACKEND; this package runs on tensorflow, torch, jax"
    )


def test_no_backend_at_all(tmp_path: Path, run_python: RunPython) -> None:
    code = _hide(*BACKENDS) + "from keras_alexnet import create_model"
    done = run_python(code, check=False, KERAS_BACKEND=None, KERAS_HOME=str(tmp_path))
    message = done.stderr.splitlines()[-1]
    assert "none of tensorflow, torch and jax is installed. Install one with: pip install " in (
        message
    )


def test_backend_of_the_keras_configuration_is_missing(
    tmp_path: Path, run_python: RunPython
) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    code = _hide("jax") + "from keras_alexnet.core.backend import load_keras; load_keras()"
    done = run_python(code, check=False, KERAS_BACKEND=None, KERAS_HOME=str(tmp_path))
    message = done.stderr.splitlines()[-1]
    assert f"The Keras backend 'jax', chosen by {tmp_path / 'keras.json'}, is not instal" in message
    assert "pip install" in message


@pytest.mark.parametrize("content", ["{not json", "[1, 2]", '"torch"'])
def test_damaged_keras_configuration(content: str, tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "keras.json").write_text(content)
    code = "from keras_alexnet.core.backend import load_keras; load_keras()"
    done = run_python(code, check=False, KERAS_BACKEND=None, KERAS_HOME=str(tmp_path))
    message = done.stderr.splitlines()[-1]
    assert f"ConfigurationError: {tmp_path / 'keras.json'} is not a readable Keras" in message


@pytest.mark.slow
def test_tensorflow_by_default_was_never_chosen(tmp_path: Path, run_python: RunPython) -> None:
    """Keras writes "tensorflow" into its configuration by itself, installed or not."""
    (tmp_path / "keras.json").write_text('{"backend": "tensorflow"}')
    code = _hide("tensorflow", "jax") + (
        "from keras_alexnet.core.backend import load_keras; print(load_keras().backend.backend())"
    )
    done = run_python(code, KERAS_BACKEND=None, KERAS_HOME=str(tmp_path))
    assert done.stdout.splitlines()[-1] == "torch"


def test_loaded_keras_is_taken_as_it_is() -> None:
    from keras_alexnet.core.backend import load_keras

    assert load_keras() is sys.modules["keras"]


@pytest.mark.parametrize("package", ["torch", "torchvision", "jinja2", "matplotlib", "nonsense"])
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    text = "is needed here and is not installed. Install it with: pip install "
    with pytest.raises(MissingDependencyError, match=text) as caught:
        require(package)
    assert package in str(caught.value).partition("pip install ")[2].split()
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, KerasAlexNetError)


def test_a_package_that_lacks_something_itself(tmp_path: Path, run_python: RunPython) -> None:
    """Then its own error says more than ours could."""
    (tmp_path / "matplotlib.py").write_text("import something_else")
    code = "from keras_alexnet.core.backend import require; require('matplotlib')"
    done = run_python(code, check=False, PYTHONPATH=str(tmp_path))
    assert done.stderr.splitlines()[-1] == ("ModuleNotFoundError: No module named 'something_else'")


def test_torchvision_of_another_build(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    code = "from keras_alexnet.core.backend import require; require('torchvision')"
    done = run_python(code, check=False, PYTHONPATH=str(tmp_path))
    message = done.stderr.splitlines()[-1]
    assert "MissingDependencyError: torchvision does not match the installed torch" in message
    assert "pip install --force-reinstall torch torchvision" in message


@pytest.mark.parametrize("package", ["torchvision", "triton"])
def test_torchvision_after_tensorflow(package: str, run_python: RunPython) -> None:
    """The real import would end the process; a module of that name stands for TensorFlow."""
    code = f"""
import sys, types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from keras_alexnet.core.backend import require
require("{package}")
"""
    done = run_python(code, check=False)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert f"ImportOrderError: {package} cannot be imported after TensorFlow" in message
    assert f"Import {package} before Keras or TensorFlow" in message
    assert "KERAS_BACKEND=torch" in message


def test_torchvision_before_tensorflow_is_fine() -> None:
    """Here it is loaded already, whatever else is."""
    assert require("torchvision") is sys.modules["torchvision"]


def test_installed() -> None:
    assert installed("json")
    assert not installed("nonsense_that_nobody_installs")
    assert set(installed_backends()) == {
        name for name in BACKENDS if importlib.util.find_spec(name) is not None
    }


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigurationError, ValueError),
        (MissingDependencyError, ImportError),
        (ImportOrderError, ImportError),
    ],
)
def test_errors_are_built_in_kinds_too(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, KerasAlexNetError)


@pytest.mark.slow
def test_training_in_memory_needs_no_tensorflow(run_python: RunPython, tmp_path: Path) -> None:
    code = _hide("tensorflow") + (
        "import sys\nfrom keras_alexnet.commands.app import main\n"
        "sys.argv[0] = 'keras-alexnet'\nmain()"
    )
    options = ("--preset", "digits-lenet5", "--epochs", 1, "--train-limit", 200, "--flip", 0.5)
    folder = tmp_path / "run"
    run_python(code, "train", *options, "--output", folder, KERAS_BACKEND="torch")
    assert (folder / "report.html").is_file()
    refused = run_python(
        code,
        *("train", *options, "--augment-on", "host", "--output", tmp_path / "host"),
        KERAS_BACKEND="torch",
        check=False,
    )
    assert refused.returncode == 2
    assert "tensorflow is needed here and is not installed" in refused.stderr
    assert not (tmp_path / "host").exists()


@pytest.mark.parametrize(
    "module", ["keras_alexnet.data.augmentation.record", "porting", "porting.tolerances"]
)
def test_records_are_lean(module: str, run_python: RunPython) -> None:
    code = f"import sys, {module}\n"
    code += "print(*({'typer', 'click', 'rich', 'requests', 'numpy'} & sys.modules.keys()))"
    assert set(run_python(code).stdout.split()) <= {"numpy"}
