"""Intermediate outputs of a model by layer, torch module or stage."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_alexnet.errors import ConfigurationError, similar
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import spec_of
from keras_alexnet.specs.schema import keras_name
from keras_alexnet.specs.shapes import trace


def feature_extractor(model: Any, nodes: Sequence[str] | dict[str, str]) -> Any:
    """Return a model that computes named intermediate outputs of another, sharing its weights.

    Args:
        model: A functional Keras model.
        nodes: Layer names (`"inception4a"`), torch module names (`"features.12"`) or stage names
            of its architecture (`"stage3"`); or a dict from such a name to the wanted output name.
            Of a model that was converted from a torch network, a module that holds others
            (`"layer3"`) stands for the last operation in it.

    Returns:
        A `keras.Model` whose output is a dict from name to feature map.

    Raises:
        ConfigurationError: A name is neither a layer nor a stage of the model, or `nodes` is empty.

    Example:
        >>> from keras_alexnet import create_model
        >>> features = feature_extractor(create_model("lenet5"), {"stage1": "edges"})
        >>> features.output["edges"].shape
        (None, 28, 28, 6)
    """
    if isinstance(nodes, str):
        raise ConfigurationError(
            f"nodes must be a list of names or a dict, got the string {nodes!r}"
        )
    wanted = dict(nodes) if isinstance(nodes, dict) else {node: node for node in nodes}
    if not wanted:
        raise ConfigurationError("nodes is empty: name at least one layer or stage")
    known = {operation.name: operation for operation in model.operations}
    stages, modules = _names_of(model)
    outputs = {}
    for node, output in wanted.items():
        layer = keras_name(stages.get(node) or modules.get(node, node))
        inside = names_in(layer, known)
        if not inside:
            hint = similar(node, [*known, *stages, *modules]) or (
                f" Stages: {', '.join(stages) or 'none'}. "
                f"Layers: {', '.join(layer.name for layer in model.layers)}"
            )
            raise ConfigurationError(f"{model.name} has no layer or stage {node!r}.{hint}")
        outputs[output] = known[layer if layer in known else inside[-1]].output
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def names_in(module: str, names: Iterable[str]) -> list[str]:
    """Return which names of layers are a torch module's, or of what lies in it.

    `module` may have dots, as torch has them.
    """
    own = keras_name(module)
    return [name for name in names if name == own or name.startswith(f"{own}_")]


def _names_of(model: Any) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return stage -> row and torch module -> row of a model's architecture."""
    spec = spec_of(model)
    if spec is None:
        return {}, {}
    rows = [traced.row for traced in trace(spec)]
    return spec.stages, {row.torch_module: row.name for row in rows if row.torch_module}
