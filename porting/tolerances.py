"""Every tolerance of the checks and tests, each with its reason, in one table."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """A limit and why it is what it is."""

    limit: float
    unit: str
    reason: str


# Outputs for different images that differ by less than this share of their scale are too alike to
# prove anything.
LIVELY = 0.01


def spread(outputs: np.ndarray) -> float:
    """Return how much outputs (N, ...) differ between images, relative to the largest number."""
    scale = float(np.abs(outputs).max())
    return float(np.ptp(outputs, axis=0).max()) / scale if scale else 0.0


_OF_SCALE = "largest |difference| / largest |reference|"

TOLERANCES: dict[str, Tolerance] = {
    "weights": Tolerance(0.0, "bits", "a layout change moves values and computes nothing"),
    "pixels": Tolerance(0.0, "uint8 steps", "both sides resize with Pillow on the same pixels"),
    "input": Tolerance(
        1e-6,
        _OF_SCALE,
        "the same float32 operations; XLA replaces divisions by constants with products, a few "
        "units in the last place",
    ),
    "layer": Tolerance(
        5e-5,
        _OF_SCALE,
        "float32 sums of up to 9216 products in another order, through up to 22 layers; batch norm "
        "of a channel that varies little magnifies them (the least wrong of the negative controls "
        "is at 4e-2)",
    ),
    "logits": Tolerance(1e-5, _OF_SCALE, "as for layers; the last one averages what came before"),
    "training": Tolerance(
        1e-9,
        "largest |difference| / largest |change| of the tensor in torch's training",
        "as for gradients: float64 on both sides; ten steps of GoogLeNet leave 3e-12 (the least "
        "wrong of the negative controls is at 1e-4)",
    ),
    "gradient": Tolerance(
        1e-9,
        _OF_SCALE,
        "float64 on both sides, so that no ReLU and no max pool takes another side than torch's; "
        "the images are equal to the last bit of float32",
    ),
}
