"""Every private part of Keras is there today, and each may go: results stay right without it."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.backends import EACH_BACKEND
from helpers.project import RunPython

from keras_alexnet.core import keras_internals
from keras_alexnet.core.backend import BACKENDS, installed

# What users do with a model, in a process in which parts are gone from the start. Prints the
# warnings, writes the numbers.
SCENARIO = """
import json, sys, warnings
import numpy as np
from keras_alexnet.core import keras_internals
gone, folder = sys.argv[1:]
def missing():
    raise keras_internals.MissingPartError(gone)
for part in filter(None, gone.split(",")):
    assert part in keras_internals.PARTS
    keras_internals.PARTS[part] = missing
caught = []
warnings.showwarning = lambda message, kind, *_: caught.append(f"{kind.__name__}: {message}")
warnings.simplefilter("always", RuntimeWarning)

import keras_alexnet as ka
from keras_alexnet.layers import keras
from keras_alexnet.training.optim.losses import CrossEntropy
from keras_alexnet.training.optim.optimizers import SGD

keras.utils.set_random_seed(0) if keras.backend.backend() == "tensorflow" else None
model = ka.create_model("lenet5", classifier_activation="softmax", include_preprocessing=True)
rng = np.random.default_rng(0)
model.set_weights([rng.normal(0, .2, w.shape) for w in model.weights])
images = rng.integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
found = {"predicted": model.predict(images, verbose=0)}
record = {"model": {"include_preprocessing": True}, "preprocessing": {
    "crop_size": [28, 28], "resize_size": 28, "mean": [0.0], "std": [1.0], "channels": "L"}}
ka.save_model(model, f"{folder}/model.keras", record)
loaded = ka.load_model(f"{folder}/model.keras")
found["loaded"] = loaded.predict(images, verbose=0)
predictor = ka.Predictor.from_file(f"{folder}/model.keras")
found["probabilities"] = predictor.probabilities(images[:, None])
found["optimized"] = ka.optimize(loaded).predict(images)
trained = ka.create_model("lenet5", include_preprocessing=True)
trained.set_weights([rng.normal(0, .05, w.shape) for w in trained.weights])
optimizer = SGD(0.01, momentum=0.9, l2=1e-3, use_ema=True, ema_momentum=0.5)
trained.compile(optimizer=optimizer, loss=CrossEntropy(), jit_compile=False)
for _ in range(3):
    trained.train_on_batch(images, np.arange(8) % 10)
optimizer.swap_averages(trained.trainable_variables)
found |= {f"averaged/{i}": w for i, w in enumerate(trained.get_weights())}
np.savez(f"{folder}/found.npz", **found)
print(json.dumps([text for text in caught if "keras-alexnet" in text]))
"""
# Parts whose lack is said, as it costs time; without the others the same is done by public means.
SAID = {
    "history of a tensor",
    "nodes of an operation",
    "autocast scope",
    "current autocast scope",
    "nodes of a model",
    "inputs of a model",
}


@pytest.mark.parametrize("part", keras_internals.PARTS)
def test_the_part_is_there(part: str) -> None:
    """If this fails, Keras has moved it: name its new place in `PARTS`."""
    assert keras_internals.PARTS[part]() is not None


HAS_HOOKS = """
import sys
from keras_alexnet.core.keras_internals import HOOKS
from keras_alexnet.layers import keras
owners = {"keras.optimizers.SGD": keras.optimizers.SGD, "keras.Model": keras.Model}
for name, (owner, backends) in HOOKS.items():
    print(name, hasattr(owners[owner], name) or keras.backend.backend() not in backends)
"""


@EACH_BACKEND
def test_the_hooks_are_there(backend: str, run_python: RunPython) -> None:
    lines = run_python(HAS_HOOKS, KERAS_BACKEND=backend).stdout.splitlines()
    assert lines[-len(keras_internals.HOOKS) :] == [f"{n} True" for n in keras_internals.HOOKS]


def test_keras_asks_the_hook_of_the_update() -> None:
    asked: list[str] = []

    class Asked(keras_internals.OptimizerHooks, keras.optimizers.SGD):  # type: ignore[misc]
        def update_together(self, *arguments: Any) -> bool:
            asked.append("update")
            return False

    variable = keras.Variable(np.ones(3, "f"))
    optimizer = Asked(0.1)
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones(3)])
    assert asked == ["update"]
    assert optimizer.index_of(variable) == 0
    np.testing.assert_allclose(variable.numpy(), 0.9, rtol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, run_python: RunPython) -> Any:
    """Backend -> what is computed with every part in its place."""
    known: dict[str, dict[str, np.ndarray]] = {}

    def get(backend: str) -> dict[str, np.ndarray]:
        if backend not in known:
            folder = tmp_path_factory.mktemp(backend)
            done = run_python(SCENARIO, "", folder, KERAS_BACKEND=backend)
            assert done.stdout.splitlines()[-1] == "[]", done.stdout
            known[backend] = dict(np.load(folder / "found.npz"))
        return known[backend]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("part", keras_internals.PARTS)
def test_results_are_the_same_without_a_part(
    part: str, backend: str, whole: Any, run_python: RunPython, tmp_path: Path
) -> None:
    said = compute_without(part, backend, whole, run_python, tmp_path)
    on_torch = {"autocast scope", "current autocast scope", "nodes of a model", "inputs of a model"}
    expected = part in SAID and (backend == "torch" or part not in on_torch)
    assert said.count("RuntimeWarning: Keras ") == expected, said


@pytest.mark.slow
@EACH_BACKEND
def test_results_are_the_same_without_any_part(
    backend: str, whole: Any, run_python: RunPython, tmp_path: Path
) -> None:
    gone = ",".join(keras_internals.PARTS)
    said = compute_without(gone, backend, whole, run_python, tmp_path)
    # Of the graph and of the history: not more.
    assert said.count("RuntimeWarning: Keras ") == (2 if backend == "torch" else 1), said


def compute_without(
    gone: str, backend: str, whole: Any, run_python: RunPython, folder: Path
) -> str:
    """Compute without parts, compare with what is computed with them; return the warnings."""
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    wanted = whole(backend)
    done = run_python(SCENARIO, gone, folder, KERAS_BACKEND=backend)
    found = dict(np.load(folder / "found.npz"))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6, err_msg=name)
    return done.stdout.splitlines()[-1]


def test_float64_cannot_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing public keeps Keras from computing in float32, which the error says."""
    monkeypatch.setattr(keras_internals, "_part", lambda name: None)
    block = keras_internals.float64_kept()
    with pytest.raises(keras_internals.MissingPartError, match="no table of float64's promotions"):
        block.__enter__()


def test_a_lack_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_internals, "_part", lambda name: None)
    keras_internals._warn.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert keras_internals.graph_parts() is None
        assert keras_internals.graph_parts() is None
    assert len(caught) == 1
    assert f"Keras {keras.__version__} has no graph of a functional model" in str(caught[0].message)
    keras_internals._warn.cache_clear()
