"""What guesses rest on, in Keras and in torch side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_alexnet.core.children import Workers
from keras_alexnet.errors import similar
from keras_alexnet.explaining.methods import OF_SCORES, ExplanationDetail
from keras_alexnet.explaining.page import Picture, Row, picture_url, section_of, write_sections
from keras_alexnet.explaining.pictures import heat_overlay, signed_overlay
from keras_alexnet.specs import find_spec
from porting.checks.check import open_weights
from porting.checks.network_check import counterpart_in
from porting.checks.parity import Say
from porting.conversion.network import prepare
from porting.conversion.networks import relative_gap
from porting.errors import UsageError
from porting.torch_side.reference_nets import Reference
from porting.torch_side.targets import Target
from porting.weights.counterpart import Counterpart, LayerPair
from porting.weights.spec_tables import counterpart

if TYPE_CHECKING:
    from keras_alexnet.explaining.explainer import Explainer

_CHILD = "porting.checks.explanations_torch"
_TIMEOUT = 900.0


@dataclass(frozen=True)
class Compared:
    """One explanation by both frameworks.

    Attributes:
        photo: The image file.
        label: The class that is explained.
        method: One of `OF_SCORES`.
        relative: The largest difference, relative to torch's largest number.
    """

    photo: Path
    label: str
    method: str
    relative: float


def compare_explanations(
    model: str,
    candidate: Path,
    photos: Sequence[Path],
    output: Path,
    folder: Path,
    *,
    source: str | Path,
    methods: Sequence[str] = OF_SCORES,
    classes: Sequence[str] = (),
    layer: str | None = None,
    detail: ExplanationDetail | None = None,
    allow_pickle: bool = False,
    which: str | None = None,
    say: Say = lambda step: None,
) -> list[Compared]:
    """Explain a `.keras` file's guesses, and those of the torch network; write both as a page.

    Args:
        model: The torch network, as `check` takes it.
        candidate: The file that was converted from it.
        photos: Image files.
        output: The page to write, completely or not at all.
        folder: An existing folder for temporary files.
        source: Weights of the torch network, those that the file was converted from.
        methods: Some of `OF_SCORES`.
        classes: Names or indices of classes, each explained for each photo; by default the most
            probable one of a photo.
        layer: Of Grad-CAM: a Keras layer that shows a torch module's maps, or that module.
        detail: How closely the methods look; by default as `ExplanationDetail()` says.
        allow_pickle: As in `read_checkpoint`.
        which: As in `read_checkpoint`.
        say: Called with a line of progress before each step.

    Returns:
        A result for each photo, class and method.

    Raises:
        UsageError: A method or the layer is unknown, or the file is not that network's.
        PortingError: The weights cannot be read, or do not fit the network.
        KerasAlexNetError: The file or a photo cannot be read, a class is unknown, or the square
            of occlusion does not fit the photos.
    """
    from keras_alexnet.explaining.explainer import Explainer  # which loads Keras

    for method in methods:
        if method not in OF_SCORES:
            raise UsageError(
                f"unknown method {method!r}.{similar(method, OF_SCORES)} Known: "
                f"{', '.join(OF_SCORES)}"
            )
    explainer = Explainer.from_file(candidate)
    given = explainer.load(photos)
    chosen = [explainer.class_index(name) for name in classes]
    labels = np.array([chosen or [guess] for guess in explainer.guesses(given)])  # (photos, K)
    detail = detail or ExplanationDetail()
    square = {"window": detail.window, "stride": detail.stride}
    if "occlusion" in methods:  # what does not fit is told before anything is computed
        explainer.occluder(given.shape[1:3], **square)
    with Workers() as workers:
        say(f"opening {model}")
        network = _opened(model, candidate, explainer, folder, workers, source, allow_pickle, which)
        pair = _pair(explainer, network.counterpart, layer) if "grad-cam" in methods else None
        np.save(folder / "photos.npy", given)
        job = {
            "reference": asdict(network.reference),
            "counterpart": network.counterpart.to_json(),
            "weights": str(network.weights),
            "preprocessing": asdict(explainer.predictor.preprocessing),
            "pair": pair and asdict(pair),
            "channels_first": explainer.predictor.channels_first,
            "photos": str(folder / "photos.npy"),
            "classes": labels.tolist(),
            "methods": list(methods),
            "detail": asdict(detail),
            "output": str(folder / "torch.npz"),
        }
        say("torch")
        workers.call(_CHILD, job, timeout=_TIMEOUT)
    say("Keras")
    options: dict[str, dict[str, Any]] = {
        "grad-cam": {"layer": pair and pair.layer},
        "integrated-gradients": {"steps": detail.steps},
        "occlusion": square,
    }
    keras: dict[str, np.ndarray] = {}
    for method in methods:
        explain = getattr(explainer, method.replace("-", "_"))
        keras[method] = explain(given, labels, **options[method])  # (photos, K, ...)
    with np.load(folder / "torch.npz", allow_pickle=False) as found:
        torch = {method: found[method] for method in methods}
    results, sections = [], []
    for number, (file, photo) in enumerate(zip(photos, given, strict=True)):
        rows = []
        for place, label in enumerate(labels[number]):
            for method in methods:
                mine, theirs = (each[method][number, place] for each in (keras, torch))
                gap, name = relative_gap(mine, theirs), explainer.class_name(label)
                results.append(Compared(Path(file), name, method, gap))
                note = f"The largest difference is {gap:.1e} of torch's largest number."
                pictures = _pictures(method, photo, mine, theirs)
                rows.append(Row(f"{method} of {name}", note, pictures))
        sections.append(section_of(explainer, file, photo, rows))
    write_sections(output, explainer, sections)
    return results


@dataclass(frozen=True)
class _Network:
    """The torch network of a file."""

    reference: Reference
    counterpart: Counterpart
    weights: Path


def _opened(
    model: str,
    candidate: Path,
    explainer: "Explainer",
    folder: Path,
    workers: Workers,
    source: str | Path,
    allow_pickle: bool,
    which: str | None,
) -> _Network:
    size = explainer.predictor.preprocessing.crop_size
    options: dict[str, Any] = {"allow_pickle": allow_pickle, "which": which}
    if (target := Target.parse(model)) is not None:
        network = prepare(target, source, folder, size=size, workers=workers, **options)
        return _Network(network.reference, counterpart_in(candidate), network.torch_file(folder))
    spec = find_spec(model)
    opened = open_weights(
        spec, source, folder, seed=0, size=size, say=lambda step: None, aux_heads=False, **options
    )
    reference = Reference(spec.name, opened.classes, False, opened.transform_input, size)
    return _Network(
        reference,
        counterpart(spec, opened.classes, aux_heads=False, size=size),
        opened.torch_file(folder),
    )


def _pair(explainer: "Explainer", found: Counterpart, layer: str | None) -> LayerPair:
    """Return the Keras layer and the torch module whose maps Grad-CAM shows."""
    layers = {each.name: each for each in explainer.predictor.model.layers}
    pairs = [
        pair
        for pair in found.pairs
        if pair.layer in layers and len(getattr(layers[pair.layer].output, "shape", ())) == 4
    ]
    if layer is None:
        layer = explainer.map_layer
        if not any(layer == pair.layer for pair in pairs) and pairs:
            layer = pairs[-1].layer
    for pair in reversed(pairs):
        if layer in (pair.layer, pair.module):
            return pair
    known = [name for pair in pairs for name in (pair.layer, pair.module)]
    raise UsageError(f"no maps of both frameworks are called {layer!r}.{similar(layer, known)}")


def _pictures(
    method: str, photo: np.ndarray, mine: np.ndarray, theirs: np.ndarray
) -> tuple[Picture, ...]:
    """Return Keras' map, torch's, and their difference, which has a scale of its own."""
    overlay = heat_overlay if method == "grad-cam" else signed_overlay
    maps = [m.sum(axis=-1) if m.ndim == 3 else m for m in (mine, theirs, mine - theirs)]
    drawn = [overlay(photo, maps[0]), overlay(photo, maps[1]), signed_overlay(photo, maps[2])]
    names = ("Keras", "torch", f"difference, up to {np.abs(maps[2]).max():.1e}")
    return tuple(
        Picture(picture_url(picture), name) for picture, name in zip(drawn, names, strict=True)
    )
