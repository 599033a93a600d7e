"""The record that a `.keras` file carries: where its weights come from and how to use them.

It is one JSON member of the archive, which Keras ignores when it loads the model.
"""

import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import load_keras
from keras_alexnet.core.files import atomic_output
from keras_alexnet.core.keras_internals import reading_variables_by, without_tensorflow
from keras_alexnet.core.memory import as_array
from keras_alexnet.data.preprocessing import normalize
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.archives import check_expansion
from keras_alexnet.specs.preprocessing import Preprocessing, damaged

MEMBER = "keras_alexnet.json"
# Arrays that belong to a record.
ARRAYS = "keras_alexnet.npz"
FORMAT = 1
# A record holds a thousand labels and a few hundred counters, about 40 kB.
_MAX_BYTES = 4_000_000
_CHUNK = 1 << 20  # bytes
# Suffixes of weights files that `porting` converts.
_OF_OTHERS = (".pth", ".pt", ".safetensors", ".npz", ".npy", ".caffemodel")


def save_model(
    model: Any,
    path: str | Path,
    record: dict[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a Keras model and its record into one `.keras` file, completely or not at all.

    Args:
        model: The Keras model.
        path: File to write, ending in `.keras`; an existing one is replaced.
        record: JSON-serialisable content.
        arrays: What belongs to it and is too large for JSON, by name.

    Raises:
        ModelFileError: The name does not end in `.keras`.
        ConfigurationError: The folder is missing or not writable.
    """
    if Path(path).suffix != ".keras":
        raise ModelFileError(f"{path}: a Keras model file must be named *.keras")
    text = json.dumps({"format": FORMAT, **record}, indent=1)
    with (
        atomic_output(path) as temporary,
        tempfile.TemporaryDirectory(prefix=".", dir=temporary.parent) as name,
    ):
        # Into files instead of an archive, which Keras builds in memory, weights and all.
        members = Path(name, "model")
        with without_tensorflow(), reading_variables_by(as_array):
            load_keras().saving.save_model(model, members, zipped=False)
        with zipfile.ZipFile(temporary, "w") as archive:
            for member in sorted(p for p in members.rglob("*") if p.is_file()):
                info = zipfile.ZipInfo.from_file(member, member.relative_to(members))
                with member.open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
                member.unlink()
            # A fixed date: the same weights give the same record bytes.
            info = zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, text, zipfile.ZIP_DEFLATED)
            if arrays:
                with archive.open(zipfile.ZipInfo(ARRAYS, info.date_time), "w") as target:
                    np.savez(target, **arrays)  # type: ignore[arg-type]


def read_record(path: str | Path) -> dict[str, Any] | None:
    """Return the record of a `.keras` file, or None where it was saved without one.

    Raises:
        ModelFileError: The file is missing, no `.keras` archive, or its record is damaged.
    """
    if Path(path).suffix.lower() in _OF_OTHERS and Path(path).is_file():
        raise ModelFileError(
            f"{path}: not a .keras file. Make one of it with: python -m porting convert MODEL "
            f"--source {path} --output {Path(path).stem}.keras"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                return None
            if archive.getinfo(MEMBER).file_size > _MAX_BYTES:
                raise ModelFileError(f"{path}: its {MEMBER} is larger than {_MAX_BYTES} bytes")
            record = json.loads(archive.read(MEMBER))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, RecursionError, RuntimeError) as error:
        raise ModelFileError(f"{path}: not a .keras archive, or truncated ({error})") from error
    except IsADirectoryError as error:
        raise ModelFileError(f"{path}: a folder, not a .keras file") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelFileError(
            f"{path}: its record has another format than {FORMAT}; update keras-alexnet"
        )
    return record


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays that belong to the record of a `.keras` file, whose record was read before.

    Raises:
        ModelFileError: They are damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if ARRAYS not in archive.namelist():
                return {}
            with archive.open(ARRAYS) as member, np.load(member, allow_pickle=False) as arrays:
                check_expansion(Path(path), sum(i.file_size for i in arrays.zip.infolist()), ARRAYS)
                return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise ModelFileError(f"{path}: its {ARRAYS} is damaged ({error})") from error


def use_of(
    record: Mapping[str, Any],
) -> tuple[Preprocessing | None, bool, tuple[str, ...] | None]:
    """Return how a record says to use its model: preprocessing, own normalisation, labels.

    With its own normalisation a model takes 0..255. The labels are the names of the classes by
    index; they and the preprocessing are None where nobody knows them.

    Raises:
        ModelFileError: The record is damaged; the message names the entry.
    """
    unknown = "preprocessing" in record and record["preprocessing"] is None
    preprocessing = None if unknown else Preprocessing.from_record(record.get("preprocessing"))
    model, labels = record.get("model"), record.get("labels")
    normalized = model.get("include_preprocessing") if isinstance(model, Mapping) else None
    if not isinstance(normalized, bool):
        raise damaged("model.include_preprocessing", normalized, "true or false")
    if not isinstance(labels, list | tuple | None):
        raise damaged("labels", labels, "a list of names, or null")
    return preprocessing, normalized, tuple(map(str, labels or ())) or None


@dataclass(frozen=True)
class ModelInput:
    """What a model takes, see `interface.input_of`; None stands for what is not known."""

    shape: tuple[int | None, ...]  # of one image, (h, w, C) or (C, h, w), None where it may vary
    channels_first: bool  # which of the two it is
    pixels: bool  # whether the model takes 0..255 and normalises itself
    preprocessing: Preprocessing | None  # what happens to photos before, at the model's size
    labels: tuple[str, ...] | None = None  # names of the classes by index

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape, where no number of it varies."""
        assert None not in self.shape
        return tuple(map(int, filter(None, self.shape)))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` made into JSON, without the labels."""
        known = fields["preprocessing"]
        return cls(
            tuple(fields["shape"]),
            fields["channels_first"],
            fields["pixels"],
            None if known is None else Preprocessing.from_record(known),
        )

    def of_images(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 (N, h, w, C), R, G, B or grey, into the model's float32 input."""
        assert self.preprocessing is not None
        x = images if self.pixels else normalize(images, self.preprocessing)
        x = x.transpose(0, 3, 1, 2) if self.channels_first else x
        return np.ascontiguousarray(x, np.float32)
