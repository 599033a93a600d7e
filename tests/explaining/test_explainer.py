"""What an explainer computes of models: Captum's numbers, in every data format and backend."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from helpers.classifiers import GREY, PLAIN, linear, record_of
from helpers.project import RunPython
from helpers.residual import LABELS, PREPROCESSING, SIDE, arrays, in_keras, in_torch, photos

from keras_alexnet import Explainer, Predictor, Preprocessing, normalize, save_model
from keras_alexnet.core.backend import installed
from keras_alexnet.errors import ConfigurationError, UnknownModelError

PHOTOS = photos()
TARGETS = [0, 3, 2]
LIMIT = 1e-5  # of the largest number


def explainer_of(
    model: Any, preprocessing: Preprocessing = PREPROCESSING, **more: Any
) -> Explainer:
    return Explainer(Predictor(model, preprocessing, **{"normalized": False, **more}), batch_size=8)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return explainer_of(in_keras(), labels=LABELS)


@pytest.fixture(scope="module")
def planes() -> torch.Tensor:
    """What the torch network takes of the photos."""
    return torch.from_numpy(np.ascontiguousarray(normalize(PHOTOS).transpose(0, 3, 1, 2)))


def agree(got: np.ndarray, wanted: Any, limit: float = LIMIT) -> None:
    wanted = wanted.detach().numpy() if isinstance(wanted, torch.Tensor) else wanted
    assert got.shape == wanted.shape
    assert np.abs(wanted).max() > 0.01  # a live network
    assert np.abs(got - wanted).max() <= limit * np.abs(wanted).max()


# Against Captum


@pytest.mark.parametrize("layer", ["relu2", "conv2", "relu1"])
def test_grad_cam_is_captums(layer: str, explainer: Explainer, planes: torch.Tensor) -> None:
    """A way around `conv2` and `relu1` is part of the gradient where it depends on the layer."""
    net = in_torch()
    wanted = LayerGradCam(net, getattr(net, layer)).attribute(
        planes, target=TARGETS, relu_attributions=True
    )
    agree(explainer.grad_cam(PHOTOS, TARGETS, layer), wanted[:, 0])


def test_integrated_gradients_are_captums(explainer: Explainer, planes: torch.Tensor) -> None:
    black = torch.from_numpy(normalize(np.zeros((1, SIDE, SIDE, 3)))).permute(0, 3, 1, 2)
    wanted = IntegratedGradients(in_torch()).attribute(
        planes, baselines=black.contiguous(), target=TARGETS, n_steps=20, method="gausslegendre"
    )
    got = explainer.integrated_gradients(PHOTOS, TARGETS, steps=20)
    agree(got, wanted.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (5, 3), (16, 16)])
def test_occlusion_is_captums(
    window: int, stride: int, explainer: Explainer, planes: torch.Tensor
) -> None:
    wanted = Occlusion(in_torch()).attribute(
        planes,
        target=TARGETS,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        baselines=0,
    )
    agree(explainer.occlusion(PHOTOS, TARGETS, window=window, stride=stride), wanted[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("alexnet", "features.11"),
        ("googlenet", "inception5a.branch2"),
        ("googlenet", "inception5b"),
    ],
)
def test_the_networks_as_captum_has_them(
    name: str, module: str, live: dict[str, Any], nets: Callable[[str], Any]
) -> None:
    """By the names of torch's modules, which become layers; also within a branch.

    Further down in float32 a ReLU or a maximum decides otherwise in one of the two now and then.
    """
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    explainer = explainer_of(live[name], Preprocessing(96, (96, 96)))
    net = nets(name)
    inputs = torch.from_numpy(np.ascontiguousarray(normalize(images).transpose(0, 3, 1, 2)))
    inputs.requires_grad_()
    (first, second) = explainer.guesses(images)
    wanted = LayerGradCam(net, net.get_submodule(module)).attribute(
        inputs, target=[int(first), int(second)], relu_attributions=True
    )
    agree(explainer.grad_cam(images, [first, second], module), wanted[:, 0])


# Whatever the model is like


def _everything(explainer: Explainer) -> dict[str, np.ndarray]:
    return {
        "scores": explainer.scores(PHOTOS),
        "grad-cam": explainer.grad_cam(PHOTOS, TARGETS),
        "integrated-gradients": explainer.integrated_gradients(PHOTOS, TARGETS, steps=5),
        "occlusion": explainer.occlusion(PHOTOS, TARGETS),
        "maps": explainer.feature_maps(PHOTOS, "conv2"),
        "features": np.sort(explainer.features(PHOTOS)),
        "filters": explainer.filters(),
    }


@pytest.fixture(scope="module")
def everything(explainer: Explainer) -> dict[str, np.ndarray]:
    return _everything(explainer)


def _with_layer(layer: Any) -> Callable[[], Any]:
    def build() -> Any:
        model = in_keras()
        return keras.Model(model.input, layer(model.output))

    return build


def _with_another_output() -> Any:
    model = in_keras()
    outputs = {"aux": model.get_layer("pool").output, "logits": model.output}
    return keras.Model(model.inputs, outputs, name="residual")


@pytest.mark.parametrize(
    "build",
    [
        lambda: in_keras(first=True),
        lambda: in_keras(activation="softmax"),
        _with_layer(keras.layers.Softmax()),
        _with_layer(keras.layers.Activation("softmax")),
        _with_another_output,
    ],
    ids=["channels_first", "softmax in the dense layer", "Softmax", "Activation", "two outputs"],
)
def test_the_same_of_other_forms(
    build: Callable[[], Any], everything: dict[str, np.ndarray]
) -> None:
    other = explainer_of(build())
    assert other.explained == "logit"
    for name, value in _everything(other).items():
        agree(value, everything[name])


TURNED = Preprocessing(
    SIDE,
    (SIDE, SIDE),
    mean=PREPROCESSING.mean[::-1],
    std=PREPROCESSING.std[::-1],
    channels="BGR",
)


@pytest.mark.parametrize("inside", [False, True], ids=["before the model", "in the model"])
def test_colours_in_another_order(inside: bool, everything: dict[str, np.ndarray]) -> None:
    """A model of B, G, R with its kernels turned round computes the same of the same photos.

    So does one that normalises pixels itself, whose input is R, G, B.
    """
    model, weights = in_keras(own=TURNED if inside else None), arrays()
    model.get_layer("conv1").set_weights([weights["conv1"][:, :, ::-1], weights["conv1_bias"]])
    for name, value in _everything(explainer_of(model, TURNED, normalized=inside)).items():
        agree(value, everything[name])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_other_backends_agree(
    backend: str, everything: dict[str, np.ndarray], tmp_path: Path, run_python: RunPython
) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    model = in_keras()
    save_model(model, tmp_path / "x.keras", record_of(model, PREPROCESSING, included=False))
    np.savez(tmp_path / "photos.npz", photos=PHOTOS)
    code = """
import sys
import numpy as np
from keras_alexnet import Explainer
explainer = Explainer.from_file(sys.argv[1] + "/x.keras", batch_size=8)
photos = np.load(sys.argv[1] + "/photos.npz")["photos"]
classes = [0, 3, 2]
np.savez(sys.argv[1] + "/got.npz", **{
    "scores": explainer.scores(photos),
    "grad-cam": explainer.grad_cam(photos, classes),
    "integrated-gradients": explainer.integrated_gradients(photos, classes, steps=5),
    "occlusion": explainer.occlusion(photos, classes),
    "maps": explainer.feature_maps(photos, "conv2"),
    "features": np.sort(explainer.features(photos)),
    "filters": explainer.filters(),
})
"""
    run_python(code, tmp_path, KERAS_BACKEND=backend)
    with np.load(tmp_path / "got.npz") as got:
        assert set(got) == set(everything)
        for name, value in everything.items():
            agree(got[name], value)


# What the arrays mean


def test_integrated_gradients_add_up(explainer: Explainer) -> None:
    """To the difference of the scores, the nearer the more steps there are."""
    ends = explainer.scores(PHOTOS) - explainer.scores(np.zeros_like(PHOTOS[:1]))
    rise = ends[np.arange(3), TARGETS]
    explainer = Explainer(explainer.predictor, batch_size=250)
    errors = [
        np.abs(explainer.integrated_gradients(PHOTOS, TARGETS, steps=steps).sum((1, 2, 3)) - rise)
        for steps in (10, 100, 1000)
    ]
    assert errors[0].max() > 4 * errors[1].max() > 16 * errors[2].max()
    assert errors[2].max() < 2e-3 * np.abs(rise).max()


def test_occlusion_finds_the_patch_that_matters() -> None:
    model = linear((14, 14, 1), 2)
    kernel = np.zeros((14, 14, 2), np.float32)
    kernel[4:6, 8:10, 1] = 1
    model.get_layer("classifier").set_weights([kernel.reshape(-1, 2), np.zeros(2)])
    grey = explainer_of(model, Preprocessing(14, (14, 14), **GREY))
    white = np.full((1, 14, 14, 1), 200, np.uint8)
    (got,) = grey.occlusion(white, [1], window=2, stride=2)
    wanted = np.zeros((14, 14))
    wanted[4:6, 8:10] = 4 * 200
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    (got,) = grey.occlusion(white, [1])
    row, column = np.unravel_index(got.argmax(), got.shape)
    assert row in (4, 5)
    assert column in (8, 9)
    assert (got[:, :7] == 0).all()


def test_filters_are_the_kernels_with_full_contrast(explainer: Explainer) -> None:
    kernels = arrays()["conv1"].transpose(3, 0, 1, 2)
    got = explainer.filters()
    assert explainer.first_convolution == "conv1"
    assert got.shape == kernels.shape
    for picture, kernel in zip(got, kernels, strict=True):
        np.testing.assert_allclose(picture, 0.5 + kernel / (2 * np.abs(kernel).max()), rtol=1e-6)
        assert 0 <= picture.min() <= picture.max() <= 1
        assert max(abs(picture.min() - 0.5), picture.max() - 0.5) == pytest.approx(0.5)


def test_maps_and_features_are_the_layers_outputs(explainer: Explainer) -> None:
    model, inputs = in_keras(), normalize(PHOTOS)
    for name in ("conv1", "pool"):
        wanted = keras.Model(model.input, model.get_layer(name).output).predict_on_batch(inputs)
        agree(explainer.feature_maps(PHOTOS, name), wanted)
    np.testing.assert_array_equal(
        explainer.feature_maps(PHOTOS), explainer.feature_maps(PHOTOS, "conv1")
    )
    wanted = keras.Model(model.input, model.get_layer("fc").input).predict_on_batch(inputs)
    agree(explainer.features(PHOTOS), wanted)


def test_grad_cam_takes_the_last_maps(explainer: Explainer) -> None:
    assert explainer.map_layer == "relu2"
    np.testing.assert_array_equal(
        explainer.grad_cam(PHOTOS, TARGETS), explainer.grad_cam(PHOTOS, TARGETS, "relu2")
    )


def test_pooled_maps_are_not_the_last_ones() -> None:
    model = in_keras()
    x = model.get_layer("relu2").output
    for layer in (
        keras.layers.MaxPooling2D(2),
        keras.layers.GlobalAveragePooling2D(keepdims=True),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.Dense(5),
    ):
        x = layer(x)
    assert explainer_of(keras.Model(model.input, x)).map_layer == "relu2"


def test_batches_change_nothing(explainer: Explainer) -> None:
    """Of eight photos at a time, eleven make two batches of six, one filled up."""
    many, classes = photos(11), [n % 5 for n in range(11)]
    one = Explainer(explainer.predictor, batch_size=1)
    agree(explainer.grad_cam(many, classes), one.grad_cam(many, classes))
    agree(explainer.scores(many), one.scores(many))


def test_several_classes_of_each_photo(explainer: Explainer) -> None:
    """They are what each class alone gives, computed together."""
    several = np.array([[0, 3], [3, 1], [2, 2]])
    for method in (explainer.grad_cam, explainer.integrated_gradients, explainer.occlusion):
        got = method(PHOTOS, several)
        for place in range(2):
            agree(got[:, place], method(PHOTOS, several[:, place]), 1e-6)


def test_occlusion_computes_once_for_all_classes(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    scores = explainer.scores

    def counted(images: np.ndarray) -> np.ndarray:
        computed.append(len(images))
        return scores(images)

    monkeypatch.setattr(explainer, "scores", counted)
    explainer.occlusion(PHOTOS[:1], [[0]])
    alone = sum(computed)
    explainer.occlusion(PHOTOS[:1], [range(5)])
    assert sum(computed) == 2 * alone > 0


def test_what_ends_otherwise_is_called_so() -> None:
    inner = in_keras(activation="softmax")
    image = keras.Input((SIDE, SIDE, 3))
    assert explainer_of(keras.Model(image, inner(image))).explained == "probability"
    assert explainer_of(in_keras(activation="relu")).explained == "output of relu"


# Classes by name


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tiger cat", 1),
        ("tabby, tabby cat", 0),
        ("Tabby", 0),
        ("2", 2),
        ("crane", 3),
        ("wading bird", 4),
    ],
)
def test_classes_by_name(name: str, index: int, explainer: Explainer) -> None:
    assert explainer.class_index(name) == index


def test_classes_by_imagenets_other_names() -> None:
    five = explainer_of(
        in_keras(), labels=("n01440764", "n01443537", "n01484850", "n01491361", "n01494475")
    )
    assert five.class_index("goldfish") == 1
    assert five.class_name(1) == "n01443537"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tigr cat", r"residual has no class 'tigr cat'\. Did you mean 'tiger cat'"),
        ("5", r"residual has no class '5'\. A number from 0 to 4 is taken as an index"),
        ("zebra", r"residual has no class 'zebra'\. A number from 0 to 4"),
    ],
)
def test_unknown_classes(name: str, text: str, explainer: Explainer) -> None:
    with pytest.raises(UnknownModelError, match=text):
        explainer.class_index(name)


def test_classes_without_names() -> None:
    plain = explainer_of(in_keras())
    assert (plain.class_index("4"), plain.class_name(4)) == (4, "4")
    with pytest.raises(UnknownModelError, match="'cat': its file has no names of classes"):
        plain.class_index("cat")


# Errors


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("relu3", "residual has no layer or stage 'relu3'. Did you mean 'relu2' or 'relu1'"),
        ("fc", r"fc of residual puts out \(None, 5\), no feature maps \(N, h, w, C\)"),
    ],
)
def test_layers_without_maps(layer: str, text: str, explainer: Explainer) -> None:
    with pytest.raises(ConfigurationError, match=text):
        explainer.grad_cam(PHOTOS, TARGETS, layer)
    with pytest.raises(ConfigurationError, match=text):
        explainer.feature_maps(PHOTOS, layer)


def test_layers_of_other_outputs() -> None:
    model = in_keras()
    aux = keras.layers.Conv2D(2, 3, name="aux1_conv")(model.get_layer("pool").output)
    both = explainer_of(keras.Model(model.input, {"logits": model.output, "aux1": aux}, name="x"))
    assert both.map_layer == "relu2"
    with pytest.raises(ConfigurationError, match="the scores of x do not depend on aux1_conv, a l"):
        both.grad_cam(PHOTOS, TARGETS, "aux1_conv")


def test_models_without_convolutions() -> None:
    plain = explainer_of(linear((8, 8, 3), 4), Preprocessing(8, (8, 8), **PLAIN))
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(
        ConfigurationError, match=r"linear has no feature maps .* explain it by int"
    ):
        plain.grad_cam(images, [0])
    with pytest.raises(ConfigurationError, match="linear has no Conv2D layer"):
        plain.filters()


@pytest.mark.parametrize(
    "classes",
    [[0, 1], [0, 1, 5], [0, 1, -1], [0.0, 1.0, 2.0], 1, [[0], [1], [5]], [[], [], []], [[[0]]] * 3],
)
def test_classes_that_are_none(classes: Any, explainer: Explainer) -> None:
    text = (
        "classes must be 3 whole numbers, one for each photo, from 0 to 4, or as many for each; g"
    )
    for method in (explainer.grad_cam, explainer.integrated_gradients, explainer.occlusion):
        with pytest.raises(ConfigurationError, match=text):
            method(PHOTOS, classes)


def test_windows_that_do_not_fit(explainer: Explainer) -> None:
    for window, stride in ((SIDE + 1, 1), (4, 5), (0, 1), (4, 0)):
        with pytest.raises(ConfigurationError, match=f"a window of {window} pixels and a stride"):
            explainer.occlusion(PHOTOS, TARGETS, window=window, stride=stride)


@pytest.mark.parametrize("steps", [0, 1001])
def test_no_steps_and_too_many(steps: int, explainer: Explainer) -> None:
    text = f"steps must be a whole number from 1 to 1000, got {steps}"
    with pytest.raises(ConfigurationError, match=text):
        explainer.integrated_gradients(PHOTOS, TARGETS, steps=steps)
