"""What the specs say of weights: their tables, and which spec a file of unknown keys fits.

One table, derived from the architecture's spec, serves both directions, the checks and the
identification of unknown files.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from keras_alexnet.specs import SPECS, schema
from keras_alexnet.specs.shapes import too_small, trace
from porting.weights.counterpart import Counterpart, LayerPair, Output
from porting.weights.layouts import CHW, Transform
from porting.weights.table import Carried, Put, Shape, Size, Table

VECTOR, CONV, DENSE = (Transform(name) for name in ("vector", "conv", "dense"))

_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def weight_map(
    spec: schema.ModelSpec,
    classes: int,
    *,
    aux_heads: bool = True,
    include_top: bool = True,
    size: Size | None = None,
    channels: int | None = None,
) -> Table:
    """Return the table of an architecture, in the order of torch's state_dict.

    `size` is the height and width of the images in pixels, by default the spec's, as `channels`
    are. It matters where a feature map is flattened that adaptive pooling has not brought to one
    size.

    Raises:
        ValueError: A feature map would vanish at this size.
    """
    table: list[Put | Carried] = []
    flattened: CHW | None = None
    for row, before, after in trace(
        spec,
        classes=classes,
        aux_heads=aux_heads,
        include_top=include_top,
        size=size,
        channels=channels,
    ):
        layer = schema.keras_name(row.name)
        match row:
            case schema.Conv():
                shape: Shape = (row.filters, before[0] // row.groups, row.kernel, row.kernel)
                table.append(Put(f"{layer}/kernel", f"{row.name}.weight", CONV, shape))
                if row.bias:
                    bias = (row.filters,)
                    table.append(Put(f"{layer}/bias", f"{row.name}.bias", VECTOR, bias))
            case schema.Dense():
                shape = (after[0], before[0])
                kind = DENSE if flattened is None else Transform("flat_dense", flattened)
                table.append(Put(f"{layer}/kernel", f"{row.name}.weight", kind, shape))
                table.append(Put(f"{layer}/bias", f"{row.name}.bias", VECTOR, after))
                flattened = None
            case schema.BatchNorm():
                table += [
                    Put(f"{layer}/{variable}", f"{row.name}.{key}", VECTOR, before[:1])
                    for variable, key in _BATCH_NORM.items()
                ]
                table.append(Carried(f"{row.name}.num_batches_tracked"))
            case schema.Flatten():
                flattened = (before[0], before[1], before[2])
    return tuple(table)


def counterpart(
    spec: schema.ModelSpec,
    classes: int,
    *,
    aux_heads: bool = True,
    include_top: bool = True,
    size: Size | None = None,
    channels: int | None = None,
) -> Counterpart:
    """Return what of a Keras model of a spec corresponds to what of the torch network.

    Arguments and errors as for `weight_map`.
    """
    table = weight_map(
        spec, classes, aux_heads=aux_heads, include_top=include_top, size=size, channels=channels
    )
    known = {entry.key for entry in table}
    # The keys are the same at every size, and at the spec's own no head vanishes.
    full = weight_map(spec, classes)
    return Counterpart(
        table,
        _pairs(spec, aux_heads=aux_heads, include_top=include_top),
        outputs_of(spec, aux_heads=aux_heads),
        first_weighted_layer(spec),
        tuple(entry.key for entry in full if entry.key not in known),
    )


def outputs_of(spec: schema.ModelSpec, *, aux_heads: bool) -> tuple[Output, ...]:
    """Return the outputs of a spec's networks."""
    heads = (Output(head.name, head.name, head.reads) for head in spec.aux if aux_heads)
    return (Output("logits"), *heads)


def _pairs(spec: schema.ModelSpec, *, aux_heads: bool, include_top: bool) -> tuple[LayerPair, ...]:
    """Return the layers that both frameworks can show, those of auxiliary heads last.

    Dropout is left out: in inference it passes its input on.
    """
    main = {row.name for row, *_ in trace(spec, aux_heads=False)}
    rows = [row for row, *_ in trace(spec, aux_heads=aux_heads, include_top=include_top)]
    return tuple(
        LayerPair(schema.keras_name(row.name), row.torch_module, type(row).__name__)
        for row in sorted(rows, key=lambda row: row.name not in main)
        if row.torch_module is not None and not isinstance(row, schema.Dropout)
    )


@dataclass(frozen=True)
class Fit:
    """How the keys and shapes of a file compare with one architecture.

    `classes` and `aux_heads` are those of the file; without a head its `classes` are None. The file
    lacks the keys that are `missing`, the architecture the `unexpected` ones. `wrong_shape` holds
    `key: file's shape, wanted shape`.
    """

    name: str
    classes: int | None
    aux_heads: bool
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    @property
    def problems(self) -> int:
        """Number of keys that do not correspond."""
        return len(self.missing) + len(self.unexpected) + len(self.wrong_shape)

    @property
    def title(self) -> str:
        """The architecture with its options, for messages."""
        options = [] if self.classes is None else [f"{self.classes} classes"]
        options += ["with auxiliary heads"] if self.aux_heads else []
        return f"{self.name} ({', '.join(options)})" if options else self.name


def fit(spec: schema.ModelSpec, shapes: Mapping[str, Shape], *, size: Size | None = None) -> Fit:
    """Compare the keys and shapes of a file with an architecture for images of `size`.

    The class count is taken from the file. Auxiliary heads that do not exist at this size are
    compared at the spec's own. Counters of batches may be absent: they exist since
    PyTorch 0.4.1 and do not influence the outputs.
    """
    head = shapes.get(f"{spec.classifier}.weight")
    classes = head[0] if head else None
    aux_heads = any(key.startswith(f"{aux.name}.") for aux in spec.aux for key in shapes)
    if size is not None and too_small(spec, size, aux_heads=aux_heads):
        size = None
    table = weight_map(spec, classes or spec.classes, aux_heads=aux_heads, size=size)
    puts = {entry.key: entry for entry in table if isinstance(entry, Put)}
    known = {entry.key for entry in table}
    return Fit(
        name=spec.name,
        classes=classes,
        aux_heads=aux_heads,
        missing=tuple(key for key in puts if key not in shapes),
        unexpected=tuple(key for key in shapes if key not in known),
        wrong_shape=tuple(
            f"{key}: file {tuple(shapes[key])}, wanted {put.shape}"
            for key, put in puts.items()
            if key in shapes and tuple(shapes[key]) != put.shape
        ),
    )


def identify(shapes: Mapping[str, Shape]) -> list[Fit]:
    """Compare a file with every known architecture, the best fit first."""
    return sorted((fit(spec, shapes) for spec in SPECS.values()), key=lambda fit: fit.problems)


def canonical(name: str) -> str:
    """Return a name without regard to what separates its parts, as in `conv1/7x7_s2`."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name)


def first_weighted_layer(spec: schema.ModelSpec) -> str:
    """Return the Keras layer whose input is the normalised image."""
    row = next(row for row in spec.body if not isinstance(row, schema.Concat))
    padded = isinstance(row, schema.Conv) and row.padding and not row.is_same
    return schema.keras_name(f"{row.name}.pad" if padded else row.name)
