"""The two networks: structure, arguments, and values against torchvision's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from keras_alexnet import (
    AlexNet,
    GoogLeNet,
    create_model,
    feature_extractor,
    list_models,
    load_model,
    normalize,
)
from keras_alexnet.errors import ConfigurationError, ModelFileError, UnknownModelError
from keras_alexnet.layers import weights_will_follow
from keras_alexnet.specs import GOOGLENET, SPECS, BatchNorm, Conv, Dense
from keras_alexnet.trace import trace
from keras_alexnet.weights import load_weights
from porting import load_state_dict, torchvision_zoo
from porting.checkpoints import as_tensors
from porting.compare import difference
from porting.layouts import nhwc_to_nchw
from porting.tolerances import TOLERANCES

SMALL = {"input_shape": (32, 32, 3), "classes": 5}
BOTH = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
EACH = pytest.mark.parametrize("name", ["alexnet", "googlenet"])


def _images(height: int, width: int, *, count: int = 2, seed: int = 0) -> np.ndarray:
    """Images (N, H, W, 3) that differ at more scales than one pixel."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, -(-height // 8), -(-width // 8), 3))
    coarse = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (coarse + rng.normal(size=(count, height, width, 3))).astype(np.float32)


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def _call(model: Any, images: np.ndarray, data_format: str = "channels_last") -> Any:
    """Outputs of a model as arrays, for images (N, H, W, C)."""
    if data_format == "channels_first":
        images = np.ascontiguousarray(nhwc_to_nchw(images))
    with torch.no_grad():
        outputs = model(images, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _shape(height: int | None, width: int | None, data_format: str) -> tuple[int | None, ...]:
    return (height, width, 3) if data_format == "channels_last" else (3, height, width)


def _share_weights(model: Any, source: Any) -> Any:
    """Give `model` the weights of the layers of `source` that are called the same."""
    for layer in model.layers:
        if layer.weights and not layer.name.startswith("preprocessing"):
            layer.set_weights(source.get_layer(layer.name).get_weights())
    return model


def _variant(source: Any, name: str, **options: Any) -> Any:
    """Build a network anew with the weights of another."""
    with weights_will_follow():
        model = create_model(name, **options)
    return _share_weights(model, source)


def _assert_close(reference: np.ndarray, got: np.ndarray, tolerance: str) -> None:
    assert got.shape == reference.shape
    gap = difference(reference, got).relative
    assert gap <= TOLERANCES[tolerance].limit, f"{gap:.2e} relative"


@pytest.fixture(scope="module")
def live(state_dicts: Callable[[str], dict[str, np.ndarray]]) -> dict[str, Any]:
    """Name -> channels-last model for images of any size, with live weights and all heads."""
    with weights_will_follow():
        models = {
            "alexnet": AlexNet(input_shape=(None, None, 3)),
            "googlenet": GoogLeNet(input_shape=(None, None, 3), aux_heads=True),
        }
    for name, model in models.items():
        load_state_dict(model, state_dicts(name))
    return models


@pytest.fixture(scope="module")
def small() -> Any:
    """GoogLeNet for 32 x 32 pixels and 5 classes, with new weights."""
    keras.utils.set_random_seed(0)
    return GoogLeNet(**SMALL)


@pytest.fixture(scope="module")
def small_files(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `small` as `small.keras` and `small.weights.h5`."""
    folder = tmp_path_factory.mktemp("small")
    small.save(folder / "small.keras")
    small.save_weights(folder / "small.weights.h5")
    return folder


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
    list(trace(spec, size=(spec.min_size, spec.min_size)))
    for size in [(spec.min_size - 1, 224), (224, spec.min_size - 1)]:
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
    images = _images(*size)
    wanted = torch_outputs(nets(name), images)["logits"]
    shape = _shape(*size, data_format)
    model = _variant(live[name], name, input_shape=shape, data_format=data_format)
    got = _call(model, images, data_format)
    assert got.shape == (2, 1000)
    _assert_close(wanted, got, "logits")
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
    images = _images(*size, seed=1)
    outputs = _call(live[name], images)
    got = outputs["logits"] if isinstance(outputs, dict) else outputs
    _assert_close(torch_outputs(nets(name), images)["logits"], got, "logits")


@BOTH
@pytest.mark.parametrize("size", [(97, 131), (64, 64)])
def test_auxiliary_logits_equal_torchvisions(
    size: tuple[int, int],
    data_format: str,
    live: dict[str, Any],
    nets: Callable[[str], Any],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    images = _images(*size, seed=2)
    wanted = torch_outputs(nets("googlenet"), images, GOOGLENET.aux)
    shape = _shape(*size, data_format)
    options = {"aux_heads": True, "input_shape": shape, "data_format": data_format}
    model = _variant(live["googlenet"], "googlenet", **options)
    assert list(model.output) == ["logits", "aux1", "aux2"]
    got = _call(model, images, data_format)
    assert set(got) == set(wanted)
    for output, value in got.items():
        _assert_close(wanted[output], value, "logits")


def test_transform_input_equals_torchvisions(
    live: dict[str, Any],
    state_dicts: Callable[[str], dict[str, np.ndarray]],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    images = _images(97, 131, seed=3)
    net = torchvision_zoo.build("googlenet", classes=1000, aux_heads=False, transform_input=True)
    options = {"input_shape": (97, 131, 3), "transform_input": True}
    model = _variant(live["googlenet"], "googlenet", **options)
    arrays = state_dicts("googlenet").items()
    net.load_state_dict(as_tensors({k: v for k, v in arrays if not k.startswith("aux")}))
    wanted = torch_outputs(net, images)["logits"]
    _assert_close(wanted, _call(model, images), "logits")
    plain = _call(live["googlenet"], images)["logits"]
    assert difference(wanted, plain).relative > 1e-2  # the option does something


@BOTH
def test_transform_input_in_both_formats(data_format: str, live: dict[str, Any]) -> None:
    images = _images(32, 40, seed=4)
    shape = _shape(32, 40, data_format)
    options = {"include_top": False, "data_format": data_format, "input_shape": shape}
    plain = _variant(live["googlenet"], "googlenet", **options)
    transformed = _variant(live["googlenet"], "googlenet", **options, transform_input=True)
    by_hand = images * (np.array([0.229, 0.224, 0.225]) / 0.5) + (
        (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
    )
    wanted = _call(plain, by_hand.astype(np.float32), data_format)
    _assert_close(wanted, _call(transformed, images, data_format), "logits")


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
    assert _call(model, _images(32, 32)[..., :1]).shape == (2, 1, 1, 1024)


# Sizes


@EACH
@pytest.mark.parametrize("side", ["height", "width"])
@BOTH
def test_below_the_smallest_size(name: str, side: str, data_format: str) -> None:
    least = SPECS[name].min_size
    size = (least - 1, 224) if side == "height" else (224, least - 1)
    text = (
        f"{name} needs images of at least {least} x {least} pixels, as its feature map vanishes "
        f"below; got {size[0]} x {size[1]} .*Resize the images or pass a larger input_shape"
    )
    with pytest.raises(ConfigurationError, match=text):
        create_model(name, input_shape=_shape(*size, data_format), data_format=data_format)


@EACH
def test_torch_refuses_below_the_smallest_size_too(name: str, nets: Callable[[str], Any]) -> None:
    """So the limit is the network's and not ours."""
    least = SPECS[name].min_size
    assert least == {"alexnet": 63, "googlenet": 15}[name]
    with torch.no_grad():
        nets(name)(torch.zeros(1, 3, least, least))
        with pytest.raises(RuntimeError, match="too small"):
            nets(name)(torch.zeros(1, 3, least - 1, least - 1))


# Without top, other inputs, other outputs


@pytest.mark.parametrize(
    ("name", "size", "features"), [("alexnet", 95, (2, 2, 256)), ("googlenet", 97, (3, 3, 1024))]
)
def test_without_top(name: str, size: int, features: tuple[int, ...], live: dict[str, Any]) -> None:
    images = _images(size, size)
    last = {"alexnet": "features_12", "googlenet": "inception5b"}[name]
    wanted = _call(feature_extractor(live[name], [last]), images)[last]
    outputs = {}
    for pooling in (None, "avg", "max"):
        model = _variant(live[name], name, include_top=False, pooling=pooling)
        assert model.input_shape == (None, None, None, 3)
        outputs[pooling] = _call(model, images)
    assert outputs[None].shape == (2, *features)
    _assert_close(wanted, outputs[None], "layer")
    _assert_close(wanted.mean(axis=(1, 2)), outputs["avg"], "layer")
    _assert_close(wanted.max(axis=(1, 2)), outputs["max"], "layer")


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_in_channels_first(pooling: str, live: dict[str, Any]) -> None:
    images = _images(40, 33)
    options = {"include_top": False, "pooling": pooling}
    outputs = [
        _call(
            _variant(live["googlenet"], "googlenet", **options, data_format=data_format),
            images,
            data_format,
        )
        for data_format in ("channels_last", "channels_first")
    ]
    assert outputs[0].shape == (2, 1024)
    _assert_close(outputs[0], outputs[1], "layer")


def test_input_tensor(small: Any) -> None:
    images = _images(32, 32)
    wanted = _call(small, images)
    given = keras.Input((32, 32, 3), name="mine")
    model = _share_weights(GoogLeNet(input_tensor=given, classes=5), small)
    assert model.inputs[0] is given
    np.testing.assert_allclose(_call(model, images), wanted, rtol=0, atol=1e-6)


def test_input_tensor_from_a_layer(small: Any) -> None:
    """The model then begins at the layer's own input."""
    images = _images(32, 32)
    given = keras.Input((32, 32, 3), name="mine")
    doubled = keras.layers.Rescaling(2.0)(given)
    model = GoogLeNet(input_tensor=doubled, input_shape=(32, 32, 3), classes=5)
    assert model.inputs[0] is given
    _share_weights(model, small)
    np.testing.assert_allclose(_call(model, images), _call(small, images * 2), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("error::UserWarning")
def test_calls_with_a_plain_array_give_no_warning(small: Any) -> None:
    images = _images(32, 32)
    given = keras.Input((32, 32, 3))
    _call(small, images)
    _call(GoogLeNet(input_tensor=given, classes=5), images)
    _call(feature_extractor(small, ["stage1", "stage2"]), images)


def test_classifier_activation(small: Any) -> None:
    images = _images(32, 32)
    logits = torch.from_numpy(_call(small, images))
    model = _variant(small, "googlenet", **SMALL, classifier_activation="softmax")
    got = _call(model, images)
    np.testing.assert_allclose(got, torch.softmax(logits, dim=1).numpy(), rtol=1e-5, atol=1e-6)
    assert model.layers[-1].name == "predictions"


def test_classifier_activation_of_every_head(live: dict[str, Any]) -> None:
    images = _images(64, 64)
    options = {"aux_heads": True, "classifier_activation": "softmax"}
    model = _variant(live["googlenet"], "googlenet", input_shape=(64, 64, 3), **options)
    got = _call(model, images)
    assert set(got) == {"logits", "aux1", "aux2"}
    for output, logits in _call(live["googlenet"], images).items():
        wanted = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
        np.testing.assert_allclose(got[output], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", [None, "linear", keras.activations.linear])
def test_linear_activation_adds_no_layer(activation: Any) -> None:
    model = GoogLeNet(**SMALL, classifier_activation=activation)
    assert model.layers[-1].name == "fc"


@pytest.mark.parametrize("transform_input", [False, True])
@BOTH
def test_included_preprocessing(
    transform_input: bool, data_format: str, live: dict[str, Any]
) -> None:
    pixels = _pixels(48, 40)
    options = {"input_shape": _shape(48, 40, data_format), "data_format": data_format}
    plain = _variant(live["googlenet"], "googlenet", **options)
    options |= {"include_preprocessing": True, "transform_input": transform_input}
    whole = _variant(live["googlenet"], "googlenet", **options)
    wanted = _call(plain, normalize(pixels, transform_input=transform_input), data_format)
    for dtype in (np.uint8, np.float32):
        _assert_close(wanted, _call(whole, pixels.astype(dtype), data_format), "logits")


def test_preprocessing_holds_no_trainable_weights() -> None:
    plain = GoogLeNet(**SMALL)
    whole = GoogLeNet(**SMALL, include_preprocessing=True, transform_input=True)
    assert whole.count_params() == plain.count_params()


def test_mixed_precision() -> None:
    """Pixels are normalised in float32 whatever the policy, weights stay float32."""
    model = GoogLeNet(
        **SMALL, dtype="mixed_bfloat16", include_preprocessing=True, transform_input=True
    )
    computed = {layer.name: layer.compute_dtype for layer in model.layers}
    names = ["preprocessing_scale", "preprocessing_normalize", "transform_input"]
    assert [computed[name] for name in names] == ["float32"] * 3
    assert computed["conv1_conv"] == computed["fc"] == "bfloat16"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    pixels = _pixels(32, 32)
    nodes = feature_extractor(model, ["transform_input"])
    got = _call(nodes, pixels)["transform_input"]
    np.testing.assert_array_equal(got, normalize(pixels, transform_input=True))
    with torch.no_grad():
        logits = model(pixels)
    assert logits.dtype == torch.bfloat16
    assert torch.isfinite(logits).all()


# New weights


def test_alexnet_draws_like_pytorch() -> None:
    """Uniform within 1/sqrt(fan-in), kernels and biases alike."""
    keras.utils.set_random_seed(1)
    model = AlexNet(input_shape=(63, 63, 3), classes=10)
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        bound = np.prod(kernel.shape[:-1]) ** -0.5
        for values in (kernel, bias):
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert np.abs(values).max() > bound * (0.7 if values.size < 20 else 0.9)
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.02), layer.name
        assert abs(kernel.mean()) < 5 * kernel.std() / kernel.size**0.5, layer.name
        # PyTorch's own default, drawn for a layer of this shape.
        module = torch.nn.Linear(int(np.prod(kernel.shape[:-1])), min(kernel.shape[-1], 512))
        assert kernel.std() == pytest.approx(module.weight.std().item(), rel=0.02), layer.name


def test_googlenet_draws_like_torchvision(small: Any) -> None:
    """Kernels normal with deviation .01; batch norm begins as the identity."""
    everything = []
    for layer in small.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            kernel = layer.get_weights()[0]
            everything.append(kernel.ravel())
            if kernel.size > 5000:
                assert kernel.std() == pytest.approx(0.01, rel=0.06), layer.name
                assert abs(kernel.mean()) < 6 * 0.01 / kernel.size**0.5, layer.name
        elif isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            assert (gamma == 1).all()
            assert (variance == 1).all()
            assert not beta.any()
            assert not mean.any()
    values = np.concatenate(everything)
    assert values.std() == pytest.approx(0.01, rel=0.005)
    assert 0.04 < np.abs(values).max() < 0.07  # normal, and not uniform or cut off
    bias = small.get_layer("fc").get_weights()[1]
    assert 0 < np.abs(bias).max() <= 1024**-0.5


def test_weights_that_will_follow_are_not_drawn(small: Any) -> None:
    """The layers keep their initialisers, for the saved file and for copies."""
    with weights_will_follow():
        model = GoogLeNet(**SMALL)
    assert not any(model.get_layer("conv1_conv").get_weights()[0].ravel())
    assert not any(model.get_layer("fc").get_weights()[1])
    assert model.get_config() == small.get_config()
    drawn = GoogLeNet(**SMALL).get_layer("fc").get_weights()
    assert all(values.all() for values in drawn)


def test_seeds_decide_new_weights() -> None:
    def draw(seed: int) -> np.ndarray:
        keras.utils.set_random_seed(seed)
        return GoogLeNet(**SMALL).get_layer("inception4a_branch1_conv").get_weights()[0]

    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))


# Names


def test_models_by_name() -> None:
    assert list_models() == ["alexnet", "googlenet"]
    assert list_models("goo*") == ["googlenet"]
    assert list_models("vgg*") == []
    assert create_model("googlenet", **SMALL).name == "googlenet"


def test_models_by_name_can_be_named() -> None:
    """`name` is an argument of the constructors as well."""
    options = {**SMALL, "name": "mine"}
    assert GoogLeNet(**options).name == "mine"
    assert create_model("googlenet", **options).name == "mine"


def test_unknown_model_names_the_nearest() -> None:
    text = "unknown model 'googlnet'. Did you mean 'googlenet'\\? Known: alexnet, googlenet"
    with pytest.raises(UnknownModelError, match=text):
        create_model("googlnet")
    with pytest.raises(UnknownModelError, match=r"unknown model 'resnet50'\. Known: alexnet"):
        create_model("resnet50")


def test_constructors_refuse_unknown_arguments() -> None:
    with pytest.raises(TypeError, match="transform_input"):
        AlexNet(transform_input=True)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("inception4a", "inception4a"),
        ("inception4a_branch2_0_bn", "inception4a_branch2_0_bn"),
        ("inception4a.branch2.0.bn", "inception4a_branch2_0_bn"),
        ("maxpool3", "maxpool3"),
        ("stage1", "conv1_relu"),
        ("stage3", "inception3b"),
        ("stage5", "inception5b"),
    ],
)
def test_feature_extractor(node: str, layer: str, live: dict[str, Any]) -> None:
    images = _images(40, 48)
    model = live["googlenet"]
    extractor = feature_extractor(model, [node])
    assert extractor.weights[0] is model.weights[0]  # shared, not copied
    wanted = keras.Model(model.inputs[0], model.get_layer(layer).output)
    got = _call(extractor, images)
    assert list(got) == [node]
    np.testing.assert_array_equal(got[node], _call(wanted, images))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("alexnet", ("features.1", "features.5", "features.12", "classifier.4")),
        ("googlenet", ("conv1.bn", "inception3a", "inception4a.branch4.1.conv", "maxpool4")),
        # Modules whose output is that of the ReLU inside them, which is a call in torchvision.
        ("googlenet", ("conv1", "inception4a.branch1", "inception4a.branch2.1")),
    ],
)
def test_features_by_torch_module_equal_torchvisions(
    name: str,
    modules: tuple[str, ...],
    live: dict[str, Any],
    nets: Callable[[str], Any],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    # torchvision's ReLUs work in place, on what the module before them has put out.
    images = _images(80, 95)
    wanted = torch_outputs(nets(name), images, modules=modules)
    got = _call(feature_extractor(live[name], list(modules)), images)
    for module in modules:
        _assert_close(wanted[module], got[module], "layer")


def test_feature_extractor_renames(live: dict[str, Any]) -> None:
    nodes = {"stage2": "low", "features.12": "high", "classifier_6": "out"}
    extractor = feature_extractor(live["alexnet"], nodes)
    got = _call(extractor, _images(63, 63))
    assert {name: value.shape for name, value in got.items()} == {
        "low": (2, 7, 7, 192),
        "high": (2, 1, 1, 256),
        "out": (2, 1000),
    }


@EACH
def test_stages_end_before_the_resolution_drops(name: str, live: dict[str, Any]) -> None:
    """Each stage is the last map of its resolution, and the strides double in between."""
    spec = SPECS[name]
    last = {}
    for row, _, after in trace(spec, aux_heads=False, include_top=False):
        if row in spec.body:
            last[after[1]] = row.name
    assert list(spec.stages.values()) == [last[n] for n in sorted(last, reverse=True)]
    extracted = _call(feature_extractor(live[name], list(spec.stages)), _images(224, 224, count=1))
    heights = [extracted[stage].shape[1] for stage in spec.stages]
    assert heights == {"alexnet": [55, 27, 13, 6], "googlenet": [112, 56, 28, 14, 7]}[name]


def test_feature_extractor_of_a_foreign_model() -> None:
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2, name="d")(image), name="foreign")
    assert _call(feature_extractor(model, ["d"]), np.zeros((3, 4)))["d"].shape == (3, 2)
    text = "foreign has no layer or stage 'stage1'. Stages: none. Layers: .*, d"
    with pytest.raises(ConfigurationError, match=text):
        feature_extractor(model, ["stage1"])


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (["inception9z"], "googlenet has no layer or stage 'inception9z'. Stages: stage1, .*conv1"),
        ({"stage7": "x"}, "googlenet has no layer or stage 'stage7'"),
        ("stage1", "nodes must be a list of names or a dict, got the string 'stage1'"),
        ([], "nodes is empty: name at least one layer or stage"),
        ({}, "nodes is empty: name at least one layer or stage"),
    ],
)
def test_feature_extractor_errors(nodes: Any, text: str, small: Any) -> None:
    with pytest.raises(ConfigurationError, match=text):
        feature_extractor(small, nodes)


# Bad arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data_format": "NHWC"}, "data_format must be 'channels_last', .*got 'NHWC'"),
        ({"pooling": "mean"}, "pooling must be None, 'avg' or 'max', got 'mean'"),
        ({"classes": 0}, "classes must be a positive integer, got 0"),
        ({"classes": -3}, "classes must be a positive integer, got -3"),
        ({"classes": 2.0}, "classes must be a positive integer, got 2.0"),
        ({"classes": "10"}, "classes must be a positive integer, got '10'"),
        ({"classes": None}, "classes must be a positive integer, got None"),
        ({"dropout_rate": 1.0}, r"dropout_rate must lie in \[0, 1\), got 1.0"),
        ({"dropout_rate": -0.1}, r"dropout_rate must lie in \[0, 1\), got -0.1"),
        ({"dropout_rate": float("nan")}, r"dropout_rate must lie in \[0, 1\), got nan"),
        (
            {"input_shape": (64, 64)},
            r"input_shape must be \(height, width, channels\) for channels_last, got \(64, 64\)",
        ),
        (
            {"input_shape": (None, 3, 64, 64), "data_format": "channels_first"},
            r"input_shape must be \(channels, height, width\) for channels_first, got \(None, 3",
        ),
        (
            {"input_shape": (64, 64, 4), "include_preprocessing": True},
            r"needs 3 \(RGB\) channels; input_shape \(64, 64, 4\) is read as \(height, width",
        ),
        (
            {"input_shape": (3, 64, 64), "include_preprocessing": True},
            r"needs 3 \(RGB\) channels; input_shape \(3, 64, 64\) is read as \(height, width, chan",
        ),
        (
            {"input_shape": (64, 64, None)},
            r"needs a fixed number of channels; input_shape \(64, 64, None\)",
        ),
        ({"input_shape": (64, 64, 0)}, "needs a fixed number of channels"),
        (
            {"input_shape": (224, 224, 3), "data_format": "channels_first"},
            r"at least .* got 224 x 3 \(input_shape \(224, 224, 3\), channels_first\)",
        ),
        (
            {"input_tensor": np.zeros((1, 64, 64, 3))},
            "input_tensor must be the output of keras.Input or of a Keras layer, got ndarray",
        ),
        ({"input_shape": 64}, "input_shape must be"),
    ],
)
@EACH
def test_bad_arguments(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        create_model(name, **options)


def test_input_shape_contradicts_input_tensor() -> None:
    text = r"input_shape \(64, 64, 3\) contradicts input_tensor, whose shape is \(32, 32, 3\)"
    with pytest.raises(ConfigurationError, match=text):
        GoogLeNet(input_tensor=keras.Input((32, 32, 3)), input_shape=(64, 64, 3))
    with pytest.raises(ConfigurationError, match="at least 15 x 15 pixels"):
        GoogLeNet(input_tensor=keras.Input((8, 32, 3)))


def test_auxiliary_heads_need_the_top() -> None:
    with pytest.raises(ConfigurationError, match="aux_heads=True needs include_top=True"):
        GoogLeNet(aux_heads=True, include_top=False)


def test_transform_input_needs_three_channels() -> None:
    """It is a scale per colour: one channel would silently become three."""
    with pytest.raises(ConfigurationError, match="channels"):
        GoogLeNet(input_shape=(32, 32, 1), transform_input=True)


# Files


@pytest.mark.parametrize("file", ["small.keras", "small.weights.h5"])
def test_weights_from_a_file(file: str, small: Any, small_files: Path) -> None:
    model = GoogLeNet(**SMALL, weights=small_files / file)
    for got, wanted in zip(model.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    as_text = GoogLeNet(**SMALL, weights=str(small_files / file))
    np.testing.assert_array_equal(as_text.get_weights()[0], small.get_weights()[0])


def test_weights_by_name_allow_other_options(small: Any, small_files: Path) -> None:
    """A `.keras` file may hold a head that the model lacks, or another data format and size."""
    model = GoogLeNet(
        include_top=False, data_format="channels_first", weights=small_files / "small.keras"
    )
    for layer in model.layers:
        for got, wanted in (
            zip(layer.get_weights(), small.get_layer(layer.name).get_weights(), strict=True)
            if layer.weights
            else ()
        ):
            np.testing.assert_array_equal(got, wanted)


def test_weights_of_another_class_count(small_files: Path) -> None:
    with pytest.raises(ModelFileError, match="does not fit googlenet") as caught:
        GoogLeNet(input_shape=(32, 32, 3), classes=7, weights=small_files / "small.keras")
    text = str(caught.value)
    assert "fc/kernel: the file has shape (1024, 5), the model wants (1024, 7)" in text
    assert "fc/bias: the file has shape (5,), the model wants (7,)" in text
    assert "Pass the file's own `classes`" in text
    with pytest.raises(ModelFileError, match=r"small.weights.h5: does not fit googlenet"):
        GoogLeNet(input_shape=(32, 32, 3), classes=7, weights=small_files / "small.weights.h5")


def test_weights_of_another_network(small_files: Path) -> None:
    with pytest.raises(ModelFileError, match="layer features_0 is not in the file"):
        AlexNet(include_top=False, weights=small_files / "small.keras")


def test_many_misfits_are_counted(small: Any, tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "other.keras")
    weighted = sum(bool(layer.weights) for layer in small.layers)
    with pytest.raises(ModelFileError, match="layer conv1_conv is not in the file") as caught:
        load_weights(small, tmp_path / "other.keras")
    assert f"and {weighted - 20} more" in str(caught.value)
    assert str(caught.value).count("is not in the file") == 20


@pytest.mark.parametrize("file", ["small.keras", "small.weights.h5"])
def test_failed_load_leaves_the_model_alone(file: str, small_files: Path) -> None:
    model = GoogLeNet(input_shape=(32, 32, 3), classes=7)
    before = model.get_weights()
    with pytest.raises(ModelFileError, match="does not fit googlenet"):
        load_weights(model, small_files / file)
    changed = [
        weight.path
        for weight, values in zip(model.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), values)
    ]
    assert not changed


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.safetensors", "net.npz"])
def test_torch_checkpoints_are_pointed_to_the_converter(name: str) -> None:
    text = (
        f"weights must be a .keras or .weights.h5 file. For a PyTorch checkpoint run: "
        f"python -m porting convert googlenet --source folder/{name} --output net.keras"
    )
    with pytest.raises(ModelFileError, match=text):
        GoogLeNet(**SMALL, weights=f"folder/{name}")


@pytest.mark.parametrize("name", ["none.keras", "none.weights.h5"])
def test_missing_weights_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"{name}: no such file"):
        GoogLeNet(**SMALL, weights=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [("small.keras", "Keras cannot load it"), ("small.weights.h5", "does not fit .*truncated")],
)
def test_truncated_weights_file(name: str, text: str, small_files: Path, tmp_path: Path) -> None:
    content = (small_files / name).read_bytes()
    damaged = tmp_path / name
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match=f"{name}: .*{text}"):
        GoogLeNet(**SMALL, weights=damaged)


def test_load_model(small: Any, small_files: Path, tmp_path: Path) -> None:
    images = _images(32, 32)
    loaded = load_model(small_files / "small.keras")
    np.testing.assert_array_equal(_call(loaded, images), _call(small, images))
    with pytest.raises(ModelFileError, match=r"none.keras: no such file"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("not a model")
    with pytest.raises(ModelFileError, match=r"text.keras: Keras cannot load it"):
        load_model(tmp_path / "text.keras")


def test_files_load_without_this_package(
    tmp_path: Path, run_python: Callable[..., Any], live: dict[str, Any]
) -> None:
    """Preprocessing, transform_input and all heads included."""
    model = _variant(
        live["googlenet"],
        "googlenet",
        input_shape=(32, 40, 3),
        include_preprocessing=True,
        transform_input=True,
        aux_heads=True,
    )
    pixels = _pixels(32, 40)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "pixels.npy", pixels)
    code = """
import sys
import numpy as np
import keras
model = keras.saving.load_model("model.keras", compile=False)
outputs = model(np.load("pixels.npy"), training=False)
np.savez("outputs.npz", **{k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()})
assert not [name for name in sys.modules if name.partition(".")[0] in ("keras_alexnet", "porting")]
"""
    run_python(code, cwd=tmp_path, on_path=False)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, wanted in _call(model, pixels).items():
            _assert_close(wanted, outputs[name], "logits")
