"""The two networks: structure, arguments, and values against torchvision's own."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.models import (
    BOTH,
    EACH,
    assert_close,
    call,
    placed_shape,
    random_images,
    variant,
)

from keras_alexnet import (
    GoogLeNet,
    create_model,
)
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.googlenet import GOOGLENET
from keras_alexnet.specs.schema import BatchNorm, Conv, Dense
from keras_alexnet.specs.shapes import min_size, trace
from porting.checkpoints.files import as_tensors
from porting.checks.compare import difference
from porting.torch_side import torchvision_zoo
from porting.weights.spec_tables import outputs_of

# Structure


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("alexnet", {}, 61_100_840),
        ("alexnet", {"classes": 10}, 57_044_810),
        ("googlenet", {}, 6_624_904),
        ("googlenet", {"aux_heads": True}, 13_004_888),
        ("googlenet", {"classes": 10}, 5_610_154),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], count: int) -> None:
    with weights_will_follow():  # numbers that nobody reads need not be drawn
        model = create_model(name, **options)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == count
    with torch.device("meta"):
        net = torchvision_zoo.build(
            name,
            classes=options.get("classes", 1000),
            aux_heads=options.get("aux_heads", False),
            transform_input=False,
        )
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@EACH
def test_layers_are_named_after_torchs_modules(
    name: str, live: dict[str, Any], nets: Callable[[str], Any]
) -> None:
    modules = [
        module_name
        for module_name, module in nets(name).named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    weighted = {layer.name for layer in live[name].layers if layer.weights}
    assert weighted == {module.replace(".", "_") for module in modules}
    assert not [layer.name for layer in live[name].layers if "." in layer.name]


@EACH
def test_only_kerass_own_layers(name: str, live: dict[str, Any]) -> None:
    foreign = [
        layer.name for layer in live[name].layers if not type(layer).__module__.startswith("keras.")
    ]
    assert not foreign


@pytest.mark.parametrize("size", [(64, 64), (95, 127), (224, 224)])
@EACH
def test_traced_shapes_are_the_models(name: str, size: tuple[int, int]) -> None:
    """The arithmetic that weight maps rely on, against what Keras works out for every layer."""
    spec = SPECS[name]
    options = {"aux_heads": True} if spec.aux else {}
    with weights_will_follow():
        model = create_model(name, classes=7, input_shape=(*size, 3), **options)
    for row, _, after in trace(spec, classes=7, size=size):
        shape = model.get_layer(row.name.replace(".", "_")).output.shape[1:]
        squeezed = shape if len(shape) == 1 else (shape[2], *shape[:2])
        assert squeezed == after, row.name


@EACH
def test_trace_refuses_what_the_model_refuses(name: str) -> None:
    spec = SPECS[name]
    least = min_size(spec)
    list(trace(spec, size=(least, least)))
    for size in [(least - 1, 224), (224, least - 1)]:
        with pytest.raises(ValueError, match="the feature map vanishes at"):
            list(trace(spec, size=size))


@EACH
def test_every_torch_module_of_the_spec_exists(name: str, nets: Callable[[str], Any]) -> None:
    modules = dict(nets(name).named_modules())
    rows = [traced.row for traced in trace(SPECS[name])]
    assert {row.torch_module for row in rows if row.torch_module} <= set(modules)
    kinds = {Conv: torch.nn.Conv2d, Dense: torch.nn.Linear, BatchNorm: torch.nn.BatchNorm2d}
    for kind, torch_kind in kinds.items():
        wanted = {n for n, module in modules.items() if isinstance(module, torch_kind)}
        assert {row.name for row in rows if isinstance(row, kind)} == wanted


@EACH
def test_batch_norm_and_dropout_have_torchs_constants(
    name: str, live: dict[str, Any], nets: Callable[[str], Any]
) -> None:
    compared = 0
    for module_name, module in nets(name).named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            layer = live[name].get_layer(module_name.replace(".", "_"))
            assert layer.epsilon == module.eps
            assert layer.momentum == pytest.approx(1 - module.momentum)
        elif isinstance(module, torch.nn.Dropout):
            layer = live[name].get_layer(module_name.replace(".", "_"))
            assert layer.rate == pytest.approx(module.p)
        else:
            continue
        compared += 1
    assert compared == {"alexnet": 2, "googlenet": 59 + 3}[name]


# Values against torchvision


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("alexnet", (63, 63)),
        ("alexnet", (95, 127)),
        ("googlenet", (15, 15)),
        ("googlenet", (97, 131)),
        ("googlenet", (224, 224)),
    ],
)
@BOTH
def test_logits_equal_torchvisions(
    name: str,
    size: tuple[int, int],
    data_format: str,
    live: dict[str, Any],
    nets: Callable[[str], Any],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    images = random_images(*size)
    wanted = torch_outputs(nets(name), images)["logits"]
    shape = placed_shape(*size, data_format)
    model = variant(live[name], name, input_shape=shape, data_format=data_format)
    got = call(model, images, data_format)
    assert got.shape == (2, 1000)
    assert_close(wanted, got, "logits")
    # The comparison means something only where the images can be told apart.
    assert np.ptp(wanted, axis=0).max() > 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("size", [(63, 96), (64, 64), (127, 70), (224, 224)])
@EACH
def test_one_model_serves_every_size(
    name: str,
    size: tuple[int, int],
    live: dict[str, Any],
    nets: Callable[[str], Any],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    images = random_images(*size, seed=1)
    outputs = call(live[name], images)
    got = outputs["logits"] if isinstance(outputs, dict) else outputs
    assert_close(torch_outputs(nets(name), images)["logits"], got, "logits")


@BOTH
@pytest.mark.parametrize("size", [(97, 131), (64, 64)])
def test_auxiliary_logits_equal_torchvisions(
    size: tuple[int, int],
    data_format: str,
    live: dict[str, Any],
    nets: Callable[[str], Any],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    images = random_images(*size, seed=2)
    wanted = torch_outputs(nets("googlenet"), images, outputs_of(GOOGLENET, aux_heads=True))
    shape = placed_shape(*size, data_format)
    options = {"aux_heads": True, "input_shape": shape, "data_format": data_format}
    model = variant(live["googlenet"], "googlenet", **options)
    assert list(model.output) == ["logits", "aux1", "aux2"]
    got = call(model, images, data_format)
    assert set(got) == set(wanted)
    for output, value in got.items():
        assert_close(wanted[output], value, "logits")


def test_transform_input_equals_torchvisions(
    live: dict[str, Any],
    state_dicts: Callable[[str], dict[str, np.ndarray]],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    images = random_images(97, 131, seed=3)
    net = torchvision_zoo.build("googlenet", classes=1000, aux_heads=False, transform_input=True)
    options = {"input_shape": (97, 131, 3), "transform_input": True}
    model = variant(live["googlenet"], "googlenet", **options)
    arrays = state_dicts("googlenet").items()
    net.load_state_dict(as_tensors({k: v for k, v in arrays if not k.startswith("aux")}))
    wanted = torch_outputs(net, images)["logits"]
    assert_close(wanted, call(model, images), "logits")
    plain = call(live["googlenet"], images)["logits"]
    assert difference(wanted, plain).relative > 1e-2  # the option does something


@BOTH
def test_transform_input_in_both_formats(data_format: str, live: dict[str, Any]) -> None:
    images = random_images(32, 40, seed=4)
    shape = placed_shape(32, 40, data_format)
    options = {"include_top": False, "data_format": data_format, "input_shape": shape}
    plain = variant(live["googlenet"], "googlenet", **options)
    transformed = variant(live["googlenet"], "googlenet", **options, transform_input=True)
    by_hand = images * (np.array([0.229, 0.224, 0.225]) / 0.5) + (
        (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
    )
    wanted = call(plain, by_hand.astype(np.float32), data_format)
    assert_close(wanted, call(transformed, images, data_format), "logits")


@EACH
def test_global_data_format_is_the_default(name: str) -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        model = create_model(name, include_top=False)
        assert model.input_shape == (None, 3, None, None)
        assert model.get_layer(model.layers[2].name).data_format == "channels_first"
        explicit = create_model(name, include_top=False, data_format="channels_last")
    finally:
        keras.config.set_image_data_format("channels_last")
    assert explicit.input_shape == (None, None, None, 3)


def test_other_numbers_of_channels(torch_outputs: Callable[..., dict[str, np.ndarray]]) -> None:
    model = GoogLeNet(include_top=False, input_shape=(32, 32, 1))
    assert model.get_layer("conv1_conv").kernel.shape == (7, 7, 1, 64)
    assert call(model, random_images(32, 32)[..., :1]).shape == (2, 1, 1, 1024)


# Sizes


@EACH
@pytest.mark.parametrize("side", ["height", "width"])
@BOTH
def test_below_the_smallest_size(name: str, side: str, data_format: str) -> None:
    least = min_size(SPECS[name])
    size = (least - 1, 224) if side == "height" else (224, least - 1)
    text = (
        f"{name} needs images of at least {least} x {least} pixels, as its feature map vanishes "
        f"below; got {size[0]} x {size[1]} .*Resize the images or pass a larger input_shape"
    )
    with pytest.raises(ConfigurationError, match=text):
        create_model(name, input_shape=placed_shape(*size, data_format), data_format=data_format)


@EACH
def test_torch_refuses_below_the_smallest_size_too(name: str, nets: Callable[[str], Any]) -> None:
    """So the limit is the network's and not ours."""
    least = min_size(SPECS[name])
    assert least == {"alexnet": 63, "googlenet": 15}[name]
    with torch.no_grad():
        nets(name)(torch.zeros(1, 3, least, least))
        with pytest.raises(RuntimeError, match="too small"):
            nets(name)(torch.zeros(1, 3, least - 1, least - 1))
