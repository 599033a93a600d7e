"""Fixtures shared by all tests. Everything in this process runs on Keras' torch backend."""

import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip
import torchvision  # isort: skip  # noqa: F401  (both before anything that may import TensorFlow)

import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from model_helpers import SMALL

from keras_alexnet import AlexNet, GoogLeNet
from keras_alexnet.initialization import weights_will_follow
from keras_alexnet.specs import SPECS
from porting import load_state_dict, reference_nets, torchvision_zoo
from porting.checkpoints import as_tensors
from porting.seeded import seeded_state_dict

# Background jobs of a shell ignore it, and so would the children that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Maps are small here: a second thread costs more than it gives, tenfold on a busy machine.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
TWINS = f"{ROOT / 'tests' / 'twins.py'}:build"

# Reproducible and without a deadline, as the time of a first call says nothing about the code.
settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

StateDict = dict[str, np.ndarray]
RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data, or a skip where there is none."""
    configured = os.environ.get("KERAS_ALEXNET_DATA")
    folder = Path(configured) if configured else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set KERAS_ALEXNET_DATA to its place)")
    return folder


@pytest.fixture(scope="session")
def state_dicts() -> Callable[[str], StateDict]:
    """Name -> live seeded state_dict, that of a GoogLeNet with auxiliary heads.

    The arrays are read-only, because all tests share them.
    """

    @functools.cache
    def get(name: str) -> StateDict:
        arrays = seeded_state_dict(name, seed=0, aux_heads=bool(SPECS[name].aux))
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    return get


@pytest.fixture(scope="session")
def nets(state_dicts: Callable[[str], StateDict]) -> Callable[[str], Any]:
    """Name -> torch network with the weights of `state_dicts`, in inference mode.

    It is torchvision's own, or the twin that the tests hold.
    """

    @functools.cache
    def get(name: str) -> Any:
        spec = SPECS[name]
        reference = None if name in torchvision_zoo.NETWORKS else TWINS
        net = reference_nets.build(
            name, classes=spec.classes, aux_heads=bool(spec.aux), reference=reference
        )
        net.load_state_dict(as_tensors(state_dicts(name)), strict=True)
        return net.requires_grad_(False)

    return get


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Run Python code in a child process: `run_python(code, *arguments, **environment)`.

    An environment variable set to None is removed. `on_path=False` leaves this project out of the
    import path; `check=False` accepts a failing child.
    """

    def run(
        code: str,
        *arguments: object,
        cwd: Path | None = None,
        on_path: bool = True,
        check: bool = True,
        **environment: str | None,
    ) -> subprocess.CompletedProcess[str]:
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        variables |= {"PYTHONPATH": str(ROOT)} if on_path else {}
        for key, value in environment.items():
            if value is None:
                variables.pop(key, None)
            elif key == "PYTHONPATH" and on_path:
                variables[key] = os.pathsep.join([value, str(ROOT)])
            else:
                variables[key] = value
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `keras-alexnet` in this process, in an empty folder: (exit code, stdout, stderr)."""
    from keras_alexnet import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["keras-alexnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def torch_outputs() -> Callable[..., dict[str, np.ndarray]]:
    """Outputs of a torchvision network on images (N, H, W, 3): `torch_outputs(net, images, aux)`.

    Module names in `modules` add those modules' outputs, feature maps as (N, H, W, C).
    """

    def run(
        net: Any, images: np.ndarray, aux: tuple[Any, ...] = (), modules: tuple[str, ...] = ()
    ) -> dict[str, np.ndarray]:
        outputs: dict[str, Any] = {}
        hooks = [
            net.get_submodule(name).register_forward_hook(
                # A copy, since the ReLU that follows may work in place.
                lambda _module, _inputs, output, name=name: outputs.__setitem__(
                    name, output.clone()
                )
            )
            for name in modules
        ]
        planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        with torch.no_grad():
            outputs |= reference_nets.forward(net, planes, aux)
        for hook in hooks:
            hook.remove()
        return {
            name: (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).numpy()
            for name, value in outputs.items()
        }

    return run


@pytest.fixture(scope="session")
def live(state_dicts: Callable[[str], dict[str, np.ndarray]]) -> dict[str, Any]:
    """Name -> channels-last model for images of any size, with live weights and all heads."""
    with weights_will_follow():
        models = {
            "alexnet": AlexNet(input_shape=(None, None, 3)),
            "googlenet": GoogLeNet(input_shape=(None, None, 3), aux_heads=True),
        }
    for name, model in models.items():
        load_state_dict(model, state_dicts(name))
    return models


@pytest.fixture(scope="session")
def small() -> Any:
    """GoogLeNet for 32 x 32 pixels and 5 classes, with new weights."""
    keras.utils.set_random_seed(0)
    return GoogLeNet(**SMALL)


@pytest.fixture(scope="session")
def small_files(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `small` as `small.keras` and `small.weights.h5`."""
    folder = tmp_path_factory.mktemp("small")
    small.save(folder / "small.keras")
    small.save_weights(folder / "small.weights.h5")
    return folder
