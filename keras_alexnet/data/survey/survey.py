"""The pass over a data set."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.data.examples import Arrays, DataSet, Examples, Files, Stored
from keras_alexnet.data.statistics import moments
from keras_alexnet.data.survey.looking import Look, looks
from keras_alexnet.data.survey.results import DataSurvey, PartSurvey
from keras_alexnet.data.survey.twins import Place, find_copies, near_leaks

Advance = Callable[[int], None]  # is told how many images are done
# What a survey takes some seconds for.
_FEW_IMAGES, _FEW_BYTES = 2_000, 64 << 20


def is_quick(data: DataSet) -> bool:
    """Return whether a survey takes some seconds: of few images, and small files of them.

    Packed data may lie far away.
    """
    parts = data.parts().values()
    near = all(isinstance(part, Arrays | Files) for part in parts)
    if not near or sum(map(len, parts)) > _FEW_IMAGES:
        return False
    files = [path for part in parts if isinstance(part, Files) for path in part.paths]
    return sum(path.stat().st_size for path in files if path.is_file()) <= _FEW_BYTES


def count_data(data: DataSet) -> DataSurvey:
    """Count the images of a data set by part and class, without a look at any."""
    nothing = np.full(3, np.nan)
    parts = {
        part: PartSurvey(
            len(examples), _by_class(data, examples), Counter(), Counter(), nothing, nothing, {}
        )
        for part, examples in data.parts().items()
    }
    return DataSurvey(data.name, data.classes, parts, data.left_out, [], [], looked=False)


def survey_data(data: DataSet, advance: Advance = lambda done: None) -> DataSurvey:
    """Look at every image of a data set once.

    Images show the same where their pixels are equal, or nearly: their perceptual hashes (`phash`
    of the package ImageHash, 64 bits of a cosine transform) differ in eight bits at most, and their
    thumbnails, grey and of 32 x 32 pixels, correlate by .9 at least; of smaller images only equal
    ones count. (199 pairs of CIFAR-10's images do, all of them of one class, and none of 300 photos
    of ImageNet.)

    Args:
        data: Its parts are looked at one after the other.
        advance: Is told how many images of all parts are done.

    Raises:
        MissingDependencyError: ImageHash is not installed.
    """
    require("imagehash")
    parts: dict[str, PartSurvey] = {}
    seen: dict[Place, Look] = {}
    before = 0
    for part, examples in data.parts().items():
        unreadable: dict[Path, str] = {}
        sizes, modes = Counter[tuple[int, int]](), Counter[str]()
        histogram = np.zeros((3, 256), np.int64)
        for index, found in enumerate(looks(examples)):
            path = examples.place(index) if isinstance(examples, Stored) else None
            if isinstance(found, str):
                assert path is not None
                unreadable[path] = found
            else:
                sizes[found.size] += 1
                modes[found.mode] += 1
                histogram += found.histogram
                seen[Place(part, index, int(examples.labels[index]), path)] = found
            advance(before + index + 1)
        before += len(examples)
        by_class = _by_class(data, examples)
        mean, std = moments(histogram)
        parts[part] = PartSurvey(len(examples), by_class, sizes, modes, mean, std, unreadable)
    copies, originals = find_copies(seen)
    leaks = [pair for pair in copies if pair.first.part != pair.second.part]
    leaks += near_leaks(data, originals)
    within = [pair for pair in copies if pair.first.part == pair.second.part]
    return DataSurvey(data.name, data.classes, parts, data.left_out, leaks, within)


def _by_class(data: DataSet, examples: Examples) -> np.ndarray:
    return np.bincount(examples.labels, minlength=len(data.classes))
