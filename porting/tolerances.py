"""Every tolerance of the checks and tests, each with its reason, in one table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A limit and why it is what it is."""

    limit: float
    unit: str
    reason: str


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
        1e-5,
        _OF_SCALE,
        "float32 sums of up to 9216 products in another order, through up to 22 layers",
    ),
    "logits": Tolerance(1e-5, _OF_SCALE, "the same, at the last layer"),
    "gradient": Tolerance(
        1e-4,
        _OF_SCALE,
        "sums over up to 12544 positions and the whole network twice; a value at a ReLU's or a "
        "max pool's edge may take the other side",
    ),
}
