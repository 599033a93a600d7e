"""ImageNet's challenges of 2010 and 2012, as their archives unpack, with their development kits."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.data.examples import DataSet, Files
from keras_alexnet.data.sources.folders import class_folder_files, find_images, subfolders
from keras_alexnet.errors import DataError


@dataclass(frozen=True)
class _Edition:
    """How one year's data are laid out.

    Attributes:
        name: Prefix of its files and of the field with its ids.
        train: Names that the folder of training images may have.
        devkits: Names that the development kit's folder may have.
        by_wnid: Whether classes are indexed in the order of their WordNet ids, not of the year's
            own ids.
    """

    name: str
    train: tuple[str, ...]
    devkits: tuple[str, ...]
    by_wnid: bool


_2010 = _Edition(
    "ILSVRC2010",
    train=("train_cache", "train"),
    devkits=("devkit", "devkit-1.0", "ILSVRC2010_devkit-1.0"),
    by_wnid=False,
)

# Caffe, Keras and torchvision sort the WordNet ids, and so do all weights that are published; the
# year's own ids have another order.
_2012 = _Edition(
    "ILSVRC2012",
    train=("train",),
    devkits=("ILSVRC2012_devkit_t12", "devkit"),
    by_wnid=True,
)


# Prints id, WordNet id and names of the synsets without children, in the order of their ids.
_READER = """
import json, sys
import numpy, scipy.io
table = scipy.io.loadmat(sys.argv[1], squeeze_me=True, variable_names=["synsets"])["synsets"]
print(json.dumps(sorted(
    (int(synset[sys.argv[2]]), str(synset["WNID"]), str(synset["words"]))
    for synset in numpy.atleast_1d(table)
    if int(synset["num_children"]) == 0
)))
"""


@dataclass(frozen=True)
class _Synsets:
    """The classes of a year: their names in their order, and their indices.

    Folders are called by WordNet ids; ground truth files hold the year's own ids.
    """

    words: tuple[str, ...]
    by_wnid: dict[str, int]
    by_id: dict[int, int]


def read_ilsvrc2010(path: Path) -> DataSet:
    """Find the images of ILSVRC2010; a class's index is its ILSVRC2010_ID - 1.

    `path` holds `train_cache/WNID/*.JPEG` (or `train/WNID`), `val/*.JPEG`, `devkit/data/meta.mat`
    and `devkit/data/ILSVRC2010_validation_ground_truth.txt`; `test/*.JPEG` counts if
    `ILSVRC2010_test_ground_truth.txt` lies beside the latter or in `path`.

    Raises:
        DataError: Something is missing, damaged, or does not fit the rest.
    """
    return _read(path, _2010)


def read_ilsvrc2012(path: Path) -> DataSet:
    """Find the images of ILSVRC2012; classes are indexed in the order of their WordNet ids.

    `path` holds `train/WNID/*.JPEG`, `val/*.JPEG` or `val/WNID/*.JPEG`, and
    `ILSVRC2012_devkit_t12/data` (or `devkit/data`) with `meta.mat` and
    `ILSVRC2012_validation_ground_truth.txt`.

    Raises:
        DataError: Something is missing, damaged, or does not fit the rest.
    """
    return _read(path, _2012)


def _read(path: Path, edition: _Edition) -> DataSet:
    names = subfolders(path)
    kit = next((path / name / "data" for name in edition.devkits if name in names), None)
    if kit is None:
        raise DataError(
            f"{path}: no development kit of {edition.name}; its folder must be called "
            f"{' or '.join(edition.devkits)}. (Images in class folders can do without one, as "
            "data of the kind `folder`.)"
        )
    synsets = _read_synsets(kit / "meta.mat", edition)
    train = next((path / name for name in edition.train if name in names), None)
    val, test = names.get("val"), names.get("test")
    if train is None and val is None:
        raise DataError(f"{path}: neither a folder {' or '.join(edition.train)} nor a folder val")
    truth = kit / f"{edition.name}_validation_ground_truth.txt"
    # Published after the challenge, apart from the development kit.
    test_truths = [folder / f"{edition.name}_test_ground_truth.txt" for folder in (kit, path)]
    test_truth = next((file for file in test_truths if file.is_file()), None)
    parts = {}
    if train:
        parts["train"] = class_folder_files(train, synsets.by_wnid, kit / "meta.mat")
    if val:
        parts["val"] = _numbered_files(val, truth, synsets, kit)
    if test and test_truth:
        parts["test"] = _numbered_files(test, test_truth, synsets, kit)
    return DataSet.of_files(edition.name, synsets.words, parts)


def _read_synsets(path: Path, edition: _Edition) -> _Synsets:
    """Read the classes out of a development kit's `meta.mat`.

    They are the low-level synsets, those without children, with the ids 1, 2 and so on. The others
    are their ancestors in WordNet.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; the development kit of {edition.name} has it")
    require("scipy")
    # In a child, as SciPy's reader does not raise on all damaged files: some kill its process.
    child = subprocess.run(
        [sys.executable, "-P", "-c", _READER, path, f"{edition.name}_ID"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["the reader died"])[-1]
        raise DataError(
            f"{path}: not the synsets of {edition.name} ({reason}); unpack the development kit "
            "again"
        )
    found = [tuple(synset) for synset in json.loads(child.stdout)]
    ids, wnids, _ = zip(*found, strict=True) if found else ((), (), ())
    if not found or ids != tuple(range(1, len(ids) + 1)) or len(set(wnids)) < len(wnids):
        raise DataError(
            f"{path}: the ids of its {len(ids)} low-level synsets are not 1, 2 and so on, or their "
            "WordNet ids are not distinct; unpack the development kit again"
        )
    if edition.by_wnid:
        found.sort(key=lambda synset: synset[1])
    return _Synsets(
        tuple(words for _, _, words in found),
        {wnid: index for index, (_, wnid, _) in enumerate(found)},
        {id_: index for index, (id_, _, _) in enumerate(found)},
    )


def _numbered_files(folder: Path, truth: Path, synsets: _Synsets, kit: Path) -> Files:
    """Return the images of a part that a ground truth file labels, unless class folders do."""
    if subfolders(folder):
        files = class_folder_files(folder, synsets.by_wnid, kit / "meta.mat")
        if loose := sorted(set(find_images(folder)) - set(files.paths)):
            raise DataError(
                f"{folder}: {len(loose)} images lie beside its class folders, such as "
                f"{loose[0].name}; put all of them into class folders, or none"
            )
        return files
    images = find_images(folder)
    ids = _read_truth(truth, len(synsets.words))
    if len(images) != len(ids):
        raise DataError(
            f"{folder}: {len(images)} images, but {truth} has {len(ids)} lines; they must be as "
            "many. Unpack the archive of the images again"
        )
    # One image too few and a stranger among them would shift all labels between the two.
    for number, image in enumerate(images, 1):
        match = re.search(r"_(\d+)$", image.stem)
        if match is None or int(match[1]) != number:
            raise DataError(
                f"{folder}: the image of line {number} of {truth.name} must have a name that ends "
                f"in _{number:08}.JPEG; {image.name} is found in its place"
            )
    return Files(tuple(images), np.array([synsets.by_id[id_] for id_ in ids]))


def _read_truth(path: Path, count: int) -> Sequence[int]:
    """Read a ground truth file: the year's id of an image's class on each line, 1..count."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; it labels the images") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text of numbers; unpack it again") from error
    while lines and not lines[-1].strip():
        lines.pop()
    ids = []
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"\s*\d{1,9}\s*", line) or not 1 <= int(line) <= count:
            raise DataError(
                f"{path}: line {number} is {line[:40]!r}; it must be the id of a class, 1..{count}"
            )
        ids.append(int(line))
    return ids
