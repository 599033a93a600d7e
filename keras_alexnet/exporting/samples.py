"""What a model takes, and images of that kind: seeded noise, real photos, files."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import installed, require
from keras_alexnet.data.preprocessing import load_images, normalize, resize_and_crop
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.record import use_of
from keras_alexnet.specs.preprocessing import Preprocessing

COUNT = 3  # images of a set, and the larger of the batches that are compared


@dataclass(frozen=True)
class ModelInput:
    """What a model takes.

    Attributes:
        shape: One image as the model takes it, (h, w, C) or (C, h, w); no number is missing.
        channels_first: Which of the two it is.
        pixels: Whether the model takes 0..255 and normalises itself.
        preprocessing: What happens to photos before, or None where that is not known.
    """

    shape: tuple[int, int, int]
    channels_first: bool
    pixels: bool
    preprocessing: Preprocessing | None

    @classmethod
    def of_model(cls, model: Any, record: Mapping[str, Any] | None) -> Self:
        """Find out from a Keras model and the record of its file.

        Raises:
            ModelFileError: It takes no single image, or images of a size that nothing fixes; or its
                record is damaged.
        """
        inputs = getattr(model, "inputs", None) or []
        shape = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else ()
        if len(shape) != 3:
            raise ModelFileError(f"{model.name} is no model of one image (h, w, C) or (C, h, w)")
        preprocessing = None
        if record is None:
            pixels = any(layer.name.startswith("preprocessing_") for layer in model.layers)
            channels_first = shape[-1] not in (1, 3) and shape[0] in (1, 3)
        else:
            use = use_of(record)
            preprocessing, pixels = use.preprocessing, use.normalized
            channels_first = shape[-1] != len(preprocessing.channels)
        size = shape[1:] if channels_first else shape[:2]
        if None in size:
            if preprocessing is None:
                raise ModelFileError(
                    f"{model.name} takes images of any size, and its file has no record that says "
                    "which to export for; save it with a fixed input_shape"
                )
            size = preprocessing.crop_size
        elif preprocessing is not None and size != preprocessing.crop_size:
            preprocessing = preprocessing.at_size(*size)
        channels = shape[0] if channels_first else shape[2]
        placed = (channels, *size) if channels_first else (*size, channels)
        return cls(placed, channels_first, pixels, preprocessing)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `to_json` made into JSON."""
        known = fields["preprocessing"]
        return cls(
            tuple(fields["shape"]),
            fields["channels_first"],
            fields["pixels"],
            None if known is None else Preprocessing.from_record(known),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)

    def of_images(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 (N, h, w, C), R, G, B or grey, into the model's float32 input."""
        assert self.preprocessing is not None
        x = images if self.pixels else normalize(images, self.preprocessing)
        x = x.transpose(0, 3, 1, 2) if self.channels_first else x
        return np.ascontiguousarray(x, np.float32)

    def load(self, paths: Iterable[str | Path]) -> np.ndarray:
        """Read image files as the model's float32 input.

        Raises:
            ImageFileError: A file cannot be decoded.
            ModelFileError: The preprocessing is not known.
        """
        if self.preprocessing is None:
            raise ModelFileError(
                "the model file has no record of its preprocessing, so image files cannot be made "
                "into its input; save it with keras_alexnet.models.record.save_model"
            )
        return self.of_images(load_images(paths, self.preprocessing))

    def samples(self) -> dict[str, np.ndarray]:
        """Return `COUNT` images of seeded noise, and of photos where scikit-learn has them here."""
        rng = np.random.default_rng(0)
        size = (COUNT, *self.shape)
        noise = rng.integers(0, 256, size) if self.pixels else rng.standard_normal(size)
        sets = {"noise": noise.astype(np.float32)}
        if self.preprocessing is not None and installed("sklearn"):
            photos = require("sklearn.datasets").load_sample_images().images
            images = [*photos, np.ascontiguousarray(photos[0][:, ::-1])][:COUNT]
            cut = [resize_and_crop(image, self.preprocessing) for image in images]
            sets["photos"] = self.of_images(np.stack(cut))
        return sets
