"""The parity matrix: model x backend x data format, real photos and noise, even and odd sizes.

Each network is checked once, every backend in a process of its own; the tests read the result.
torchvision's networks are checked on photos and noise at an odd size, the others against the twins
of `twins.py` on noise at a small odd size. `make test` takes a selection that covers nearly every
kind of layer; `make test-all` takes all models, here and on photos at their own sizes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT, TWINS
from helpers.sizes import ODD_SIZES

from keras_alexnet.core.children import Workers
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import DATA_FORMATS, BatchNorm, Conv, Dense
from keras_alexnet.specs.shapes import trace
from porting.checkpoints.files import write_checkpoint
from porting.checks.check import check, default_sizes
from porting.checks.compare import worst
from porting.checks.inputs import sample_photos
from porting.checks.request import CheckRequest
from porting.checks.results import Cell, ParityResult, to_json
from porting.tolerances import LIVELY, TOLERANCES
from porting.torch_side.seeded import seeded_state_dict

BACKENDS = ("tensorflow", "torch", "jax")
SIZES = ((131, 163),)
TORCHVISION = ("alexnet", "googlenet")
# Pooling, a flatten, grey and sigmoids, on every backend; a twentieth of the time of all. The two
# networks of torchvision are in `tests/models/test_torchvision_parity.py` on torch, and `make demo`
# checks them layer by layer on all backends; the others have tests of their own.
QUICK = {"lenet5": BACKENDS}
Results = Callable[..., ParityResult]


def _case(name: str, *values: str) -> Any:
    quick = name in QUICK and (not values or values[0] in QUICK[name])
    marks = [] if quick else [pytest.mark.slow]
    return pytest.param(name, *values, marks=marks, id="-".join((name, *values)))


models = pytest.mark.parametrize("name", [_case(name) for name in SPECS])
matrix = pytest.mark.parametrize(
    ("name", "backend", "data_format"),
    [
        _case(name, backend, data_format)
        for name in SPECS
        for backend in BACKENDS
        for data_format in DATA_FORMATS
    ],
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Name -> result of its check with seeded weights, computed once.

    It has the quick backends, or with one of the others as second argument, these.
    """
    known: dict[tuple[str, bool], ParityResult] = {}
    with Workers() as workers:

        def get(name: str, backend: str | None = None) -> ParityResult:
            together = QUICK.get(name, BACKENDS)
            quick = backend is None or backend in together
            if (name, quick) not in known:
                folder = tmp_path_factory.mktemp(name)
                request = CheckRequest(
                    name, backends=[b for b in BACKENDS if (b in together) is quick]
                )
                if name in TORCHVISION:
                    request = replace(request, sizes=SIZES)
                else:
                    request = replace(request, images=[], sizes=[ODD_SIZES[name]], reference=TWINS)
                told: list[Sequence[Cell]] = []
                known[name, quick] = check(request, folder, workers=workers, found=told.append)
                # The first backend's result comes first, and each once.
                assert [cells[0].backend for cells in told][:1] == list(request.backends or ())[:1]
                told.sort(key=lambda cells: BACKENDS.index(cells[0].backend))
                assert tuple(cell for cells in told for cell in cells) == known[name, quick].cells
                for file in folder.iterdir():
                    file.unlink()  # hundreds of megabytes each
            return known[name, quick]

        yield get


def cell_of(result: ParityResult, backend: str, data_format: str) -> Cell:
    (cell,) = [c for c in result.cells if (c.backend, c.data_format) == (backend, data_format)]
    assert not cell.error, cell.error
    return cell


@matrix
def test_logits_layers_and_classes_agree(
    results: Results, name: str, backend: str, data_format: str
) -> None:
    result = results(name, backend)
    cell = cell_of(result, backend, data_format)
    if name in TORCHVISION:
        assert [s.inputs for s in cell.sets] == [f"{kind} 131x163" for kind in ("photos", "noise")]
    else:
        height, width = ODD_SIZES[name]
        assert [s.inputs for s in cell.sets] == [f"noise {height}x{width}"]
    expected = {"input"} | {p.layer for p in result.check.counterpart.pairs}
    for images in cell.sets:
        assert images.pixel_steps == 0
        assert images.agreement.top1 == 1
        assert {layer.name for layer in images.layers} == expected
        outputs = {"logits", *(aux.name for aux in SPECS[name].aux)}
        assert {output.name for output in images.logits} == outputs
        for compared in (*images.logits, *images.layers):
            assert compared.passed, (images.inputs, compared)
    assert cell.divergence is None
    assert cell.passed


@matrix
def test_gradients_agree_in_float64(
    results: Results, name: str, backend: str, data_format: str
) -> None:
    cell = cell_of(results(name, backend), backend, data_format)
    if cell.gradients_error:
        # TensorFlow convolves float64 in NHWC only on a CPU, before Keras 3.16.
        assert (backend, data_format) == ("tensorflow", "channels_first")
        assert cell.gradients_declared, cell.gradients_error
        return
    rows = [row for row, *_ in trace(SPECS[name])]
    parameters = sum(
        1 + row.bias if isinstance(row, Conv) else 2 * isinstance(row, Dense | BatchNorm)
        for row in rows
    )
    assert len(cell.gradients) == parameters
    farthest = worst(cell.gradients)
    assert farthest is not None
    assert farthest.passed, farthest


@models
def test_seeded_weights_are_live(results: Results, name: str) -> None:
    assert results(name).spread >= LIVELY


@pytest.mark.parametrize("name", [_case(name) for name in TORCHVISION])
def test_each_photo_has_the_same_classes_everywhere(results: Results, name: str) -> None:
    result = results(name)
    assert [Path(photo.path).name for photo in result.photos] == ["china.jpg", "flower.jpg"]
    for photo in result.photos:
        assert len(photo.top) == 1 + len(result.cells)
        names = {tuple(label for label, _ in top) for top in photo.top.values()}
        assert len(names) == 1
        # Names of classes would say nothing: the weights are seeded.
        assert all(label.startswith("class ") for label in names.pop())


@models
def test_json_holds_every_cell_and_no_nan(results: Results, name: str) -> None:
    content = json.loads(json.dumps(to_json(results(name)), allow_nan=False))
    assert content["passed"] is True
    assert len(content["cells"]) == 2 * len(QUICK.get(name, BACKENDS))
    assert {"torch", "torchvision"} <= set(content["reference_versions"])
    for cell in content["cells"]:
        assert cell["backend"] in cell["versions"]


@models
def test_the_reference_is_named(results: Results, name: str) -> None:
    wanted = "torchvision" if name in TORCHVISION else "twins.py"
    assert results(name).check.reference.title == wanted


def test_gradients_can_be_left_out(tmp_path: Path) -> None:
    request = CheckRequest(
        "lenet5", backends=["torch"], images=[], sizes=[(28, 28)], reference=TWINS, gradients=False
    )
    result = check(request, tmp_path)
    assert result.passed
    for cell in result.cells:
        assert (cell.gradients, cell.gradients_error) == ((), "")
        assert cell.sets[0].layers


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    """`make demo` behind the installation, where torch has no weights and no network gives any."""
    environment = os.environ | {"TORCH_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("alexnet: all 6 cells agree", "googlenet: all 6 cells agree", "report.html"):
        assert line in done.stdout
    for name in ("alexnet", "googlenet"):
        for backend in BACKENDS:
            passed = f"{name} on {backend}: channels_last passed, channels_first passed (logits "
            assert passed in done.stdout.partition(f"{name}: Keras against torchvision")[0]
    assert "Seeded weights stand in" in done.stdout
    assert "china.jpg" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_photos_at_the_models_own_sizes(name: str, tmp_path: Path) -> None:
    """What `python -m porting check MODEL` runs, against torchvision and the twins."""
    own = None if name in TORCHVISION else TWINS
    result = check(CheckRequest(name, reference=own), tmp_path)
    assert [s.inputs for s in result.cells[0].sets if s.inputs.startswith("photos")] == [
        f"photos {height}x{width}" for height, width in default_sizes(SPECS[name])
    ]
    assert result.spread >= LIVELY
    for cell in result.cells:
        assert cell.passed, (cell.error, cell.divergence, cell.gradients_error)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_300_photos_at_every_size(name: str, shared_data: Path, tmp_path: Path) -> None:
    """The check of the README's table, on the statistics of the pretrained weights."""
    moments = None
    if name == "googlenet":
        file = shared_data / "torchvision_stats" / "weight_stats.json"
        moments = json.loads(file.read_text())[name]
    weights = tmp_path / "weights.safetensors"
    write_checkpoint(weights, seeded_state_dict(name, seed=0, statistics=moments))
    photos = [shared_data / "imagenet_val300" / "images", *sample_photos()]
    result = check(CheckRequest(name, weights, images=photos), tmp_path)
    assert result.spread >= LIVELY
    assert len(result.photos) == 302
    for cell in result.cells:
        assert cell.passed, (cell.error, cell.divergence, cell.worst_logits)
        compared = worst([logits for s in cell.sets for logits in s.logits])
        assert compared is not None
        assert compared.difference is not None
        assert compared.difference.relative <= TOLERANCES["logits"].limit


def test_a_cell_without_a_result_fails(results: Results) -> None:
    passing = results("lenet5").cells[0]
    died = replace(passing, error="it died")
    assert not died.passed
    assert (died.verdict, died.disagrees) == ("could not run", False)
    half = replace(passing, gradients=(), gradients_error="NHWC")
    assert (half.passed, half.verdict) == (False, "could not run")
    declared = replace(
        passing, data_format="channels_first", gradients_error="only supports the NHWC format"
    )
    assert declared.passed == (passing.backend == "tensorflow")
