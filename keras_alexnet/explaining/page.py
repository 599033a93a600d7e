"""What explains a model's guesses about photos, as one self-contained HTML page."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from keras_alexnet.core.files import readable
from keras_alexnet.core.pages import data_url, write_page
from keras_alexnet.errors import counted
from keras_alexnet.explaining import pictures
from keras_alexnet.explaining.methods import ExplanationDetail, chosen_methods
from keras_alexnet.explaining.neighbours import nearest

if TYPE_CHECKING:
    from keras_alexnet.explaining.explainer import Explainer

_MAPS = 32
_GUESSES = 5
_WIDTH = 640  # pixels of a sheet of tiles, at least


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    source: str  # data URL
    caption: str


@dataclass(frozen=True)
class Row:
    """What a method shows."""

    title: str
    note: str
    pictures: tuple[Picture, ...]
    sheet: bool = False  # whether it is one large picture of many small ones


@dataclass(frozen=True)
class _Subject:
    """A photo and the classes that it is explained for."""

    file: Path
    photo: np.ndarray  # (h, w, C)
    classes: tuple[int, ...]


class _Rows:
    """Makes the rows of a page."""

    def __init__(
        self, explainer: "Explainer", layer: str | None, detail: ExplanationDetail
    ) -> None:
        self.explainer, self.layer, self.detail = explainer, layer, detail
        self.among: tuple[np.ndarray, list[Path]] | None = None

    def grad_cam(self, about: _Subject) -> Row:
        """Heat over the photo for each class."""
        (maps,) = self.explainer.grad_cam(about.photo[None], [about.classes], self.layer)
        layer = self.layer or self.explainer.map_layer
        return Row(
            "Grad-CAM",
            f"Where the maps of {layer} ({maps.shape[1]} x {maps.shape[2]}) speak for the class: "
            "red is the most, blue nothing.",
            tuple(
                Picture(
                    picture_url(pictures.heat_overlay(about.photo, heat)),
                    self._name(label) + ("" if heat.any() else ": nothing speaks for it"),
                )
                for heat, label in zip(maps, about.classes, strict=True)
            ),
        )

    def integrated_gradients(self, about: _Subject) -> Row:
        """Signed pixels for each class."""
        steps = self.detail.steps
        (parts,) = self.explainer.integrated_gradients(
            about.photo[None], [about.classes], steps=steps
        )
        ends = self.explainer.scores(np.stack([about.photo, np.zeros_like(about.photo)]))
        shown = []
        for part, label in zip(parts, about.classes, strict=True):
            rise = ends[0, label] - ends[1, label]
            caption = f"{self._name(label)}: the pixels add {part.sum():.2f} of {rise:.2f}"
            overlay = pictures.signed_overlay(about.photo, part.sum(axis=-1))
            shown.append(Picture(picture_url(overlay), caption))
        return Row(
            "Integrated gradients",
            f"What each pixel adds (red) to the {self.explainer.explained} of the class or takes "
            f"from it (blue), on the way from a black photo in {steps} steps. All pixels together "
            "add what the photo has more than black, but for the error of the steps.",
            tuple(shown),
        )

    def occlusion(self, about: _Subject) -> Row:
        """Signed squares for each class."""
        photo, window, stride = about.photo[None], self.detail.window, self.detail.stride
        (maps,) = self.explainer.occlusion(photo, [about.classes], window=window, stride=stride)
        square = self.explainer.occluder(photo.shape[1:3], window, stride)
        return Row(
            "Occlusion",
            f"How far the {self.explainer.explained} drops where a square of "
            f"{square['window']} x {square['window']} pixels hides the photo, which moves on by "
            f"{square['stride']}: red, it drops; blue, it rises.",
            tuple(
                Picture(
                    picture_url(pictures.signed_overlay(about.photo, drop)),
                    f"{self._name(label)}: from {drop.min():.2f} to {drop.max():.2f}",
                )
                for drop, label in zip(maps, about.classes, strict=True)
            ),
        )

    def maps(self, about: _Subject) -> Row:
        """The strongest maps of a layer as tiles."""
        layer = self.layer or self.explainer.first_convolution
        maps = self.explainer.feature_maps(about.photo[None], layer)
        maps = maps[0].transpose(2, 0, 1)  # (C, rows, columns)
        order = np.argsort(-np.abs(maps).mean(axis=(1, 2)), kind="stable")[:_MAPS]
        sheet = pictures.tiles(pictures.contrasted(maps[order]), width=_WIDTH)
        return Row(
            f"Maps of {layer}",
            f"{len(order)} of {counted(len(maps), 'channel')}, those of the largest mean magnitude "
            "first, each from its least number (black) to its most (white).",
            (Picture(picture_url(sheet), f"channels {', '.join(map(str, order))}"),),
            sheet=True,
        )

    def neighbours(self, about: _Subject) -> Row:
        """The photo and those that are nearest to it."""
        assert self.among is not None
        features, files = self.among
        features_here = self.explainer.features(about.photo[None])
        others = nearest(features_here, features, self.detail.neighbours + 1)
        # The photo itself, which may lie in the folder, tells nothing.
        own = about.file.resolve()
        best = [
            (files[index], distance)
            for index, distance in zip(*(each[0] for each in others), strict=True)
            if files[index].resolve() != own
        ][: self.detail.neighbours]
        photos = self.explainer.load([file for file, _ in best]) if best else ()
        return Row(
            "Nearest photos",
            f"Of {counted(len(files), 'photo')}, by the Euclidean distance of what the classifier "
            f"reads ({features.shape[1]:,} numbers), without the photo itself.",
            tuple(
                Picture(picture_url(photo), f"{readable(file.name)}: {distance:.2f}")
                for photo, (file, distance) in zip(photos, best, strict=True)
            ),
        )

    def filters(self) -> Row:
        """The first convolution's kernels as tiles."""
        kernels = self.explainer.filters()
        sheet = pictures.tiles(kernels, width=_WIDTH)
        return Row(
            f"Filters of {self.explainer.first_convolution}",
            "Grey is 0; each has its full contrast.",
            (
                Picture(
                    picture_url(sheet),
                    f"{len(kernels)} kernels of {kernels.shape[1]} x {kernels.shape[2]} pixels",
                ),
            ),
            sheet=True,
        )

    def _name(self, label: int) -> str:
        return self.explainer.class_name(label)


# Those of `METHODS` that are about a photo.
_BY_PHOTO: Mapping[str, Callable[[_Rows, _Subject], Row]] = {
    "grad-cam": _Rows.grad_cam,
    "integrated-gradients": _Rows.integrated_gradients,
    "occlusion": _Rows.occlusion,
    "maps": _Rows.maps,
    "neighbours": _Rows.neighbours,
}


def write_explanation(
    model: "str | Path | Explainer",
    photos: Sequence[str | Path],
    output: str | Path,
    *,
    methods: Sequence[str] = (),
    classes: Sequence[str] = (),
    layer: str | None = None,
    among: Sequence[str | Path] = (),
    detail: ExplanationDetail | None = None,
    on_photo: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write a page that shows what a model's guesses about photos rest on; return where it is.

    Args:
        model: A `.keras` file, or an `Explainer`.
        photos: Image files.
        output: The page, completely written or not at all.
        methods: Names among grad-cam, integrated-gradients, occlusion, maps, neighbours and
            filters; by default all, neighbours where there is `among`.
        classes: Names or indices of the classes that each photo is explained for; by default the
            most probable one of each.
        layer: Of grad-cam and maps; by default the last one with maps, and the first convolution.
        among: Image files in which neighbours are searched.
        detail: How closely the methods look; by default as `ExplanationDetail()` says.
        on_photo: Is called with the number of photos that are done.

    Raises:
        UnknownModelError: A method or a class is unknown.
        ConfigurationError: The layer is unknown, the model has nothing that a method shows, or the
            square of occlusion does not fit the photos.
        ModelFileError: The model's file cannot be used.
        ImageFileError: A photo cannot be read.
        MissingDependencyError: Jinja2 or matplotlib is not installed.
    """
    from keras_alexnet.explaining.explainer import Explainer  # which loads Keras

    wanted = chosen_methods(methods, among=bool(among))
    explainer = model if isinstance(model, Explainer) else Explainer.from_file(model)
    labels = tuple(map(explainer.class_index, classes))
    loaded = explainer.load(photos)
    rows = _Rows(explainer, layer, detail or ExplanationDetail())
    if "occlusion" in wanted:  # what does not fit is told before anything is computed
        explainer.occluder(loaded.shape[1:3], rows.detail.window, rows.detail.stride)
    if among:
        rows.among = explainer.features_of([*map(Path, among)])
    last = (rows.filters(),) if "filters" in wanted else ()
    sections = []
    by_photo = [_BY_PHOTO[name] for name in wanted if name in _BY_PHOTO]
    for file, photo, guess in zip(photos, loaded, explainer.guesses(loaded), strict=True):
        about = _Subject(Path(file), photo, labels or (int(guess),))
        shown = [row(rows, about) for row in by_photo]
        sections.append(section_of(explainer, file, photo, shown))
        on_photo(len(sections))
    return write_sections(output, explainer, sections, last)


def section_of(
    explainer: "Explainer", file: str | Path, photo: np.ndarray, rows: Sequence[Row]
) -> dict[str, Any]:
    """Return what the page says of a photo, uint8 (h, w, C), beside its rows: its guesses."""
    (shares,) = explainer.probabilities(photo[None])
    best = np.argsort(-shares, kind="stable")[:_GUESSES]
    return {
        "file": readable(str(file)),
        "name": readable(Path(file).name),
        "photo": picture_url(photo),
        "guesses": [(explainer.class_name(index), shares[index]) for index in best],
        "rows": rows,
    }


def write_sections(
    output: str | Path,
    explainer: "Explainer",
    sections: Sequence[dict[str, Any]],
    last: Sequence[Row] = (),
) -> Path:
    """Write the page of sections, and of rows about the model itself; return where it is."""
    return write_page(
        Path(__file__).with_name("page.html.j2"),
        output,
        name=explainer.predictor.model.name,
        sections=sections,
        last=last,
    )


def picture_url(picture: np.ndarray) -> str:
    """Return a picture, uint8 (h, w, C), as a PNG within a page."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, "PNG")
    return data_url(buffer.getvalue(), "png")
