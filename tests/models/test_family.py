"""Every model that torchvision does not have, against a twin written in PyTorch from its source.

Here on Keras' torch backend, layer names, tables, files and options included; `test_parity.py` runs
the same twins on every backend.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers import twins
from helpers.models import BOTH, StateDict, assert_close, call, placed_shape, share_weights
from helpers.sizes import ODD_SIZES

import keras_alexnet
from keras_alexnet import create_model, feature_extractor, load_images, normalize
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import LRN, ModelSpec
from keras_alexnet.specs.shapes import min_size, trace
from keras_alexnet.summary.profile import profile
from porting import convert, load_state_dict, to_state_dict, write_checkpoint
from porting.checkpoints.files import as_tensors
from porting.errors import TransferError, UsageError
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import forward
from porting.torch_side.seeded import seeded_state_dict
from porting.torch_side.torch_model import build_torch
from porting.weights.recognition import architecture_of
from porting.weights.spec_tables import counterpart, fit, identify, outputs_of, weight_map
from porting.weights.table import Put


@dataclass
class Member:
    """One model at a small odd size, with live weights, and its twin."""

    spec: ModelSpec
    size: tuple[int, int]
    arrays: StateDict
    model: Any
    twin: Any

    @property
    def images(self) -> np.ndarray:
        """Three images (N, H, W, C) of noise, normalised as the model wants them."""
        return normalize(self.pixels, self.spec.preprocessing)

    @property
    def pixels(self) -> np.ndarray:
        rng = np.random.default_rng(3)
        shape = (3, *self.size, self.spec.channels)
        return rng.integers(0, 256, shape, dtype=np.uint8)

    def options(self, data_format: str = "channels_last") -> dict[str, Any]:
        """Arguments that build the model again."""
        shape: tuple[Any, ...] = placed_shape(*self.size, data_format)
        if self.spec.channels == 1:
            shape = tuple(1 if n == 3 else n for n in shape)
        heads = {"aux_heads": True} if self.spec.aux else {}
        return {"input_shape": shape, "data_format": data_format, **heads}

    def wanted(self, net: Any = None) -> dict[str, np.ndarray]:
        """The twin's outputs."""
        planes = torch.from_numpy(np.ascontiguousarray(self.images.transpose(0, 3, 1, 2)))
        with torch.no_grad():
            outputs = forward(net or self.twin, outputs_of(self.spec, aux_heads=True), planes)
        return {name: value.numpy() for name, value in outputs.items()}


def model_outputs(model: Any, images: np.ndarray, data_format: str = "channels_last") -> Any:
    got = call(model, images, data_format)
    return got if isinstance(got, dict) else {"logits": got}


# Each of them has the layers of another one here, in another order or under other names.
ALIKE = ("caffenet", "alexnet_wide", "googlenet_caffe")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in ODD_SIZES
    ],
)
def member(request: pytest.FixtureRequest) -> Iterator[Member]:
    """Each model in turn; one at a time is in memory."""
    spec, size = SPECS[request.param], ODD_SIZES[request.param]
    arrays = seeded_state_dict(spec.name, seed=1, aux_heads=bool(spec.aux), size=size)
    twin = twins.build(spec.name, classes=spec.classes, aux_heads=bool(spec.aux), size=size)
    twin.load_state_dict(as_tensors(arrays), strict=True)
    member = Member(spec, size, arrays, None, twin.requires_grad_(False))
    with weights_will_follow():
        member.model = create_model(spec.name, **member.options())
    load_state_dict(member.model, arrays)
    yield member
    keras.backend.clear_session()


def test_every_model_is_tested_here_or_against_torchvision() -> None:
    assert set(ODD_SIZES) == set(SPECS) - set(torchvision_zoo.NETWORKS) == set(twins.NAMES)


# Values


@BOTH
def test_outputs_equal_the_twins(member: Member, data_format: str) -> None:
    model = member.model
    if data_format == "channels_first":
        with weights_will_follow():
            model = create_model(member.spec.name, **member.options(data_format))
        share_weights(model, member.model)
    wanted = member.wanted()
    got = model_outputs(model, member.images, data_format)
    assert set(got) == {"logits", *(aux.name for aux in member.spec.aux)}
    for output, value in got.items():
        assert value.shape == (3, member.spec.classes)
        assert_close(wanted[output], value, "logits")
    # The comparison means something only where the images can be told apart.
    logits = wanted["logits"]
    assert np.ptp(logits, axis=0).max() > 0.01 * np.abs(logits).max()


def test_torch_network_of_the_spec_equals_the_twin(member: Member) -> None:
    """Both consist of torch's layers, so they agree to the bit; this compares the tables."""
    spec = member.spec
    net = build_torch(spec.name, classes=spec.classes, aux_heads=bool(spec.aux), size=member.size)
    net.load_state_dict(as_tensors(member.arrays), strict=True)
    wanted = member.wanted()
    for output, value in member.wanted(net).items():
        np.testing.assert_array_equal(value, wanted[output], err_msg=output)


def test_local_response_normalisation_matters(member: Member) -> None:
    """Otherwise the comparisons could not show a wrong one."""
    lrns = [m for m in member.twin.modules() if isinstance(m, torch.nn.LocalResponseNorm)]
    rows = [row for row, *_ in trace(member.spec) if isinstance(row, LRN)]
    assert len(lrns) == len(rows)
    wanted = member.wanted()["logits"]
    for lrn, row in zip(lrns, rows, strict=True):
        assert (lrn.size, lrn.beta, lrn.k) == (row.size, row.beta, row.k)
        assert lrn.alpha == pytest.approx(row.alpha, rel=1e-12)
        for name, other in (("size", row.size + 2), ("alpha", row.alpha / row.size)):
            right = getattr(lrn, name)
            setattr(lrn, name, other)
            changed = member.wanted()["logits"]
            setattr(lrn, name, right)
            # A hundred times the tolerance of the parity checks.
            assert np.abs(changed - wanted).max() > 1e-3 * np.abs(wanted).max(), name


def test_preprocessing_inside_equals_preprocessing_before(member: Member) -> None:
    with weights_will_follow():
        model = create_model(member.spec.name, include_preprocessing=True, **member.options())
    share_weights(model, member.model)
    got = model_outputs(model, member.pixels)
    for output, value in model_outputs(member.model, member.images).items():
        assert_close(value, got[output], "logits")


def test_normalisation_equals_torchvisions_functions(member: Member) -> None:
    record = member.spec.preprocessing.at_size(*member.size)
    transform = torchvision_zoo.transforms(member.spec.name, record)
    transform.resize_size = [min(member.size)]
    wanted = transform(torch.from_numpy(member.pixels.transpose(0, 3, 1, 2).copy()))
    got = normalize(member.pixels, record).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(got, wanted.numpy())


# Tables and names


def test_table_has_the_twins_keys_and_shapes(member: Member) -> None:
    shapes = {key: tuple(value.shape) for key, value in member.twin.state_dict().items()}
    table = weight_map(member.spec, member.spec.classes, size=member.size)
    assert {e.key: e.shape if isinstance(e, Put) else () for e in table} == shapes
    found = fit(member.spec, shapes, size=member.size)
    assert found.problems == 0
    assert found.classes == member.spec.classes
    assert found.aux_heads == bool(member.spec.aux)


# Of the same layers in another order: names and shapes do not tell them apart, a file's own
# description does (tests/porting/weights/test_topology.py).
SAME_NAMES = {"alexnet_caffe", "caffenet"}


def test_files_are_recognised(member: Member) -> None:
    """At the model's own size, which an unknown file is compared at."""
    spec = member.spec
    with torch.device("meta"):
        twin = twins.build(spec.name, classes=7, aux_heads=bool(spec.aux))
    found = identify({k: tuple(v.shape) for k, v in twin.state_dict().items()})
    names = SAME_NAMES if spec.name in SAME_NAMES else {spec.name}
    best = [fit for fit in found if fit.problems <= 1]
    assert {(fit.name, fit.classes, fit.problems) for fit in best} == {(n, 7, 0) for n in names}


def test_models_are_recognised(member: Member) -> None:
    found = architecture_of(member.model)
    assert found.spec is member.spec
    assert (found.size, found.channels) == (member.size, member.spec.channels)
    assert (found.classes, found.aux_heads) == (member.spec.classes, bool(member.spec.aux))
    with weights_will_follow():
        body = create_model(member.spec.name, include_top=False)
    assert architecture_of(body).spec is member.spec
    assert not architecture_of(body).include_top


def test_every_row_has_its_module_in_the_twin(member: Member) -> None:
    modules = dict(member.twin.named_modules())
    for pair in counterpart(member.spec, 7, size=member.size).pairs:
        assert pair.module in modules, pair
        assert member.model.get_layer(pair.layer) is not None


def test_batch_norm_and_dropout_have_the_twins_constants(member: Member) -> None:
    for name, module in member.twin.named_modules():
        layer_name = name.replace(".", "_")
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            layer = member.model.get_layer(layer_name)
            assert layer.epsilon == module.eps
            assert layer.momentum == pytest.approx(1 - module.momentum)
        elif isinstance(module, torch.nn.Dropout):
            assert member.model.get_layer(layer_name).rate == pytest.approx(module.p)


def test_round_trip_is_byte_identical(member: Member) -> None:
    report = load_state_dict(member.model, as_tensors(member.arrays))
    assert report.architecture == member.spec.name
    assert not report.ignored
    back = to_state_dict(member.model)
    assert set(back) == set(member.arrays)
    for key, tensor in back.items():
        assert tensor.numpy().tobytes() == member.arrays[key].tobytes(), key
    member.twin.load_state_dict(back, strict=True)


def test_stages_end_before_the_resolution_drops(member: Member) -> None:
    """Each stage is the last map at its total stride."""
    names = [row.name for row in member.spec.body]
    jumps = {layer.name: layer.jump for layer in profile(member.spec).rows}
    last = {jumps[name.replace(".", "_")]: name for name in names}
    assert list(member.spec.stages.values()) == list(last.values())
    extracted = call(feature_extractor(member.model, list(member.spec.stages)), member.images)
    shapes = {row.name: after for row, _, after in trace(member.spec, size=member.size)}
    for stage, row in member.spec.stages.items():
        channels, height, width = shapes[row]
        assert extracted[stage].shape == (3, height, width, channels)


def test_real_caffe_weights_classify_photos(shared_data: Path) -> None:
    """Axes, padding, LRN, channel order and range are right only if these photos are recognised."""
    folder = shared_data / "imagenet_val300"
    with (folder / "labels.tsv").open() as file:
        photos = list(csv.DictReader(file, delimiter="\t"))[::8]
    with np.load(shared_data / "bvlc_googlenet" / "bvlc_googlenet.npz") as archive:
        arrays = {key.replace("/", "."): archive[key] for key in archive.files}
    spec = SPECS["googlenet_caffe"]
    with weights_will_follow():
        model = create_model(spec.name, include_preprocessing=True)
    load_state_dict(model, arrays)
    # The photos are 227 x 227 already, so that only the crop remains.
    record = replace(spec.preprocessing, resize_size=227)
    pixels = load_images([folder / "images" / photo["file"] for photo in photos], record)
    logits = call(model, pixels)
    best = logits.argmax(axis=1)
    right = [int(photo["class_index"]) == found for photo, found in zip(photos, best, strict=True)]
    assert np.mean(right) > 0.7

    twin = twins.build(spec.name, classes=1000)
    twin.load_state_dict(as_tensors(arrays))
    planes = normalize(pixels[:8], spec.preprocessing).transpose(0, 3, 1, 2).copy()
    with torch.no_grad():
        assert_close(twin(torch.from_numpy(planes)).numpy(), logits[:8], "logits")


# Options and files


def test_saved_model_computes_the_same(member: Member, tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    member.model.save(file)
    loaded = keras_alexnet.load_model(file)
    wanted = model_outputs(member.model, member.images)
    for output, value in model_outputs(loaded, member.images).items():
        np.testing.assert_array_equal(value, wanted[output])


def test_smallest_size(member: Member) -> None:
    """The limit is the network's: one pixel less and the twin fails as well."""
    spec = member.spec
    least = min_size(spec, aux_heads=bool(spec.aux))
    options = member.options() | {"input_shape": (least, least, spec.channels)}
    with weights_will_follow():
        model = create_model(spec.name, **options)
        images = np.zeros((1, least, least, spec.channels), np.float32)
        assert model_outputs(model, images)["logits"].shape == (1, spec.classes)
    options["input_shape"] = (least, least - 1, spec.channels)
    text = rf"{spec.name}.* needs images of at least {least} x {least} pixels.*got {least} x "
    with pytest.raises(ConfigurationError, match=text):
        create_model(spec.name, **options)

    def run_twin(size: int) -> None:
        aux_heads = bool(spec.aux)
        twin = twins.build(spec.name, classes=3, aux_heads=aux_heads, size=(size, size))
        images = torch.zeros(1, spec.channels, size, size)
        forward(twin, outputs_of(spec, aux_heads=True), images)

    with torch.no_grad():
        run_twin(least)
        with pytest.raises((RuntimeError, ValueError)):
            run_twin(least - 1)


def test_weights_of_another_size_are_refused(member: Member) -> None:
    spec = member.spec
    height, width = member.size
    options = member.options() | {"input_shape": (2 * height, 2 * width, spec.channels)}
    with weights_will_follow():
        model = create_model(spec.name, **options)
    if spec.name == "alexnet_lrn":  # its adaptive pooling gives one size
        load_state_dict(model, member.arrays)
        return
    with pytest.raises(TransferError, match=f"the weights do not fit {spec.name}.*\n.*wrong shape"):
        load_state_dict(model, member.arrays)


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(name, marks=[] if name == "googlenet_paper" else pytest.mark.slow)
        for name in ODD_SIZES
        if SPECS[name].aux
    ],
    indirect=True,
    scope="module",
)
def test_dropped_heads_need_not_fit_the_size(member: Member, tmp_path: Path) -> None:
    """A network with its auxiliary heads cut off takes images that the heads do not."""
    spec = member.spec
    source, output = tmp_path / "source.npz", tmp_path / "model.keras"
    write_checkpoint(source, member.arrays)
    for size in ((64, 64), (300, 260)):
        convert(spec.name, source, output, input_size=size)
        assert keras_alexnet.load_model(output).input_shape == (None, *size, 3)
        text = "needs images of at least" if size == (64, 64) else "wrong shape: (aux|loss)1.fc"
        with pytest.raises((UsageError, TransferError), match=text):
            convert(spec.name, source, output, input_size=size, aux_heads=True)
    with weights_will_follow():
        model = create_model(spec.name, input_shape=(64, 64, 3))
    arrays = {**member.arrays, "more": np.zeros(1, np.float32)}
    with pytest.raises(TransferError, match="unexpected: more"):
        load_state_dict(model, arrays)


def test_unknown_size(member: Member) -> None:
    spec = member.spec
    options = {"input_shape": (None, None, spec.channels)}
    with weights_will_follow():
        if spec.name == "alexnet_lrn" or spec.aux:
            model = create_model(spec.name, **options)
            got = model_outputs(share_weights(model, member.model), member.images)
            assert_close(member.wanted()["logits"], got["logits"], "logits")
        if spec.name != "alexnet_lrn":
            heads = {"aux_heads": True} if spec.aux else {}
            with pytest.raises(ConfigurationError, match=r"flattens a .* fixed height"):
                create_model(spec.name, **options, **heads)


def test_relu_on_the_logits_is_an_activation() -> None:
    """The CIFAR-100 study's network, whose Adam run that ReLU stopped."""
    options = {"input_shape": (67, 67, 3), "classes": 5}
    keras.utils.set_random_seed(0)
    plain = create_model("alexnet_bn_cifar100", **options)
    with weights_will_follow():
        study = create_model("alexnet_bn_cifar100", classifier_activation="relu", **options)
    share_weights(study, plain)
    images = np.random.default_rng(0).normal(size=(4, 67, 67, 3)).astype(np.float32)
    logits = call(plain, images)
    assert (logits < 0).any()
    np.testing.assert_array_equal(call(study, images), np.maximum(logits, 0))


def test_options_of_other_models_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="lenet5 has no auxiliary heads"):
        create_model("lenet5", aux_heads=True)
    with pytest.raises(ConfigurationError, match="googlenet_lab knows no transform_input"):
        create_model("googlenet_lab", transform_input=True)
    text = r"lenet5 needs 1 \(L\) channels; input_shape \(28, 28, 3\)"
    with pytest.raises(ConfigurationError, match=text):
        create_model("lenet5", include_preprocessing=True, input_shape=(28, 28, 3))
