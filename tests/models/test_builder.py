"""Heads, inputs, outputs and new weights of the models, as their arguments choose them."""

from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.models import (
    BOTH,
    assert_close,
    call,
    placed_shape,
    random_images,
    random_pixels,
    share_weights,
    variant,
)
from helpers.small import SMALL

from keras_alexnet import (
    AlexNet,
    GoogLeNet,
    feature_extractor,
    normalize,
)
from keras_alexnet.models.initialization import weights_will_follow

# Without top, other inputs, other outputs


@pytest.mark.parametrize(
    ("name", "size", "features"), [("alexnet", 95, (2, 2, 256)), ("googlenet", 97, (3, 3, 1024))]
)
def test_without_top(name: str, size: int, features: tuple[int, ...], live: dict[str, Any]) -> None:
    images = random_images(size, size)
    last = {"alexnet": "features_12", "googlenet": "inception5b"}[name]
    wanted = call(feature_extractor(live[name], [last]), images)[last]
    outputs = {}
    for pooling in (None, "avg", "max"):
        model = variant(live[name], name, include_top=False, pooling=pooling)
        assert model.input_shape == (None, None, None, 3)
        outputs[pooling] = call(model, images)
    assert outputs[None].shape == (2, *features)
    assert_close(wanted, outputs[None], "layer")
    assert_close(wanted.mean(axis=(1, 2)), outputs["avg"], "layer")
    assert_close(wanted.max(axis=(1, 2)), outputs["max"], "layer")


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_in_channels_first(pooling: str, live: dict[str, Any]) -> None:
    images = random_images(40, 33)
    options = {"include_top": False, "pooling": pooling}
    outputs = [
        call(
            variant(live["googlenet"], "googlenet", **options, data_format=data_format),
            images,
            data_format,
        )
        for data_format in ("channels_last", "channels_first")
    ]
    assert outputs[0].shape == (2, 1024)
    assert_close(outputs[0], outputs[1], "layer")


def test_input_tensor(small: Any) -> None:
    images = random_images(32, 32)
    wanted = call(small, images)
    given = keras.Input((32, 32, 3), name="mine")
    model = share_weights(GoogLeNet(input_tensor=given, classes=5), small)
    assert model.inputs[0] is given
    np.testing.assert_allclose(call(model, images), wanted, rtol=0, atol=1e-6)


def test_input_tensor_from_a_layer(small: Any) -> None:
    """The model then begins at the layer's own input."""
    images = random_images(32, 32)
    given = keras.Input((32, 32, 3), name="mine")
    doubled = keras.layers.Rescaling(2.0)(given)
    model = GoogLeNet(input_tensor=doubled, input_shape=(32, 32, 3), classes=5)
    assert model.inputs[0] is given
    share_weights(model, small)
    np.testing.assert_allclose(call(model, images), call(small, images * 2), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("error::UserWarning")
def test_calls_with_a_plain_array_give_no_warning(small: Any) -> None:
    images = random_images(32, 32)
    given = keras.Input((32, 32, 3))
    call(small, images)
    call(GoogLeNet(input_tensor=given, classes=5), images)
    call(feature_extractor(small, ["stage1", "stage2"]), images)


def test_classifier_activation(small: Any) -> None:
    images = random_images(32, 32)
    logits = torch.from_numpy(call(small, images))
    model = variant(small, "googlenet", **SMALL, classifier_activation="softmax")
    got = call(model, images)
    np.testing.assert_allclose(got, torch.softmax(logits, dim=1).numpy(), rtol=1e-5, atol=1e-6)
    assert model.layers[-1].name == "predictions"


def test_classifier_activation_of_every_head(live: dict[str, Any]) -> None:
    images = random_images(64, 64)
    options = {"aux_heads": True, "classifier_activation": "softmax"}
    model = variant(live["googlenet"], "googlenet", input_shape=(64, 64, 3), **options)
    got = call(model, images)
    assert set(got) == {"logits", "aux1", "aux2"}
    for output, logits in call(live["googlenet"], images).items():
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
    pixels = random_pixels(48, 40)
    options = {"input_shape": placed_shape(48, 40, data_format), "data_format": data_format}
    plain = variant(live["googlenet"], "googlenet", **options)
    options |= {"include_preprocessing": True, "transform_input": transform_input}
    whole = variant(live["googlenet"], "googlenet", **options)
    wanted = call(plain, normalize(pixels, transform_input=transform_input), data_format)
    for dtype in (np.uint8, np.float32):
        assert_close(wanted, call(whole, pixels.astype(dtype), data_format), "logits")


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
    pixels = random_pixels(32, 32)
    nodes = feature_extractor(model, ["transform_input"])
    got = call(nodes, pixels)["transform_input"]
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
