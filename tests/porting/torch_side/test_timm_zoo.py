"""timm's networks: names, records of weights, folders and repositories of the hub."""

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from keras_alexnet import read_record
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checkpoints.download import fetch_from_hub, promised_digest
from porting.checkpoints.files import read_checkpoint, to_numpy
from porting.commands.app import app
from porting.errors import DownloadError, UsageError
from porting.torch_side import timm_zoo
from porting.torch_side.targets import Target
from porting.torch_side.timm_families import FAMILIES

timm = pytest.importorskip("timm")


def folder_of(net: Any, folder: Path, **config: Any) -> Path:
    """A folder as timm writes it for the hub."""
    timm.models.save_for_hf(net, folder, model_config=config, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3).eval()


@pytest.fixture(scope="module")
def folder(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf") / "mine"
    return folder_of(net, path, num_classes=3, label_names=["a", "b", "c"])


def test_every_family_has_a_network() -> None:
    known = timm.list_modules()
    for module, name in FAMILIES.items():
        if module in known:  # of this version of timm's
            assert name in timm.list_models(module=module)
    assert len(timm_zoo.names("*")) == len(known)
    assert timm_zoo.names("resnet1?") == ["resnet18"]


def test_a_record_is_timms_own_transform() -> None:
    """Sizes and pixels, for what a `Preprocessing` can say; None for the rest."""
    from PIL import Image

    from keras_alexnet.data.preprocessing import normalize, resize_and_crop

    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (300, 411, 3), np.uint8))
    squashed = "convnext_base.fb_in22k_ft_in1k_384"
    assert timm.get_pretrained_cfg(squashed).crop_mode == "squash"
    for name in ("resnet18.a1_in1k", "convnext_nano.r384_in12k_ft_in1k", "mixer_b16_224", squashed):
        found = timm_zoo.info(name, "DEFAULT")
        preprocessing = Preprocessing.from_record(found.preprocessing)
        config = timm.data.resolve_data_config(
            {}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
        )
        wanted = timm.data.create_transform(**config, is_training=False)(photo)
        got = normalize(resize_and_crop(photo, preprocessing), preprocessing)
        assert found.shape == tuple(wanted.shape)
        np.testing.assert_allclose(got.transpose(2, 0, 1), wanted.numpy(), atol=2e-6)
    bordered = next(
        name
        for name in timm.list_pretrained()
        if timm.get_pretrained_cfg(name).crop_mode == "border"
    )
    assert timm_zoo.info(bordered, "DEFAULT").preprocessing is None


def test_what_timm_says_of_weights() -> None:
    found = timm_zoo.info("resnet18", "tv_in1k")
    assert (found.name, found.repository) == ("tv_in1k", "timm/resnet18.tv_in1k")
    assert found.file == "model.safetensors"
    assert promised_digest(found.url or "") == "f37072fd"
    assert found.labels is not None
    assert (len(found.labels), found.labels[0]) == (1000, "tench, Tinca tinca")
    assert timm_zoo.info("resnet18", "resnet18.tv_in1k") == found
    assert timm_zoo.info("resnet18.tv_in1k", "DEFAULT") == found


@pytest.mark.parametrize(
    ("name", "weights", "text"),
    [
        ("resnet19", "DEFAULT", r"timm has no network 'resnet19'. Did you mean 'resnet"),
        ("resnet18.mine", "DEFAULT", r"no weights 'mine' of resnet18.*Known names: a1_in1k, a2"),
        ("resnet18", "IMAGENET1K_V1", r"no weights 'IMAGENET1K_V1' of resnet18, and there is no"),
    ],
)
def test_unknown_names(name: str, weights: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        timm_zoo.info(name, weights)


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone: no folder with a config.json of timm's"):
        Target.parse(f"timm:local-dir:{tmp_path / 'gone'}")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"none of model.safetensors, pytorch_model.bin in it"):
        Target.parse(f"timm:local-dir:{copy}")
    for text in ('{"model_type": "vit"}', "{"):
        (copy / "config.json").write_text(text)
        with pytest.raises(UsageError, match=r"not timm's, which names|no configuration of timm's"):
            timm_zoo.info(f"local-dir:{copy}", "DEFAULT")


def test_other_sizes_for_networks_that_depend_on_it() -> None:
    net = timm_zoo.build_network("test_vit", classes=2, size=(96, 96))
    assert net(torch.zeros(1, 3, 96, 96)).shape == (1, 2)
    assert timm_zoo.build_network("test_resnet", size=(64, 64)).num_classes == 1000


def test_features_have_the_weights_of_the_whole() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_efficientnet", num_classes=3).eval()
    target = Target.parse("timm:features:test_efficientnet")
    assert target is not None
    assert (target.features, target.known_as) == (True, "test_efficientnet")
    assert target.whole == Target("timm:test_efficientnet")
    maps = target.features_of(net, None)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, (*_, wanted) = maps(x), net.forward_intermediates(x, intermediates_only=True)
    assert [tuple(each.shape[1:]) for each in found][-1] == tuple(wanted.shape[1:])
    torch.testing.assert_close(found[-1], wanted)


def test_features_of_a_folder(folder: Path) -> None:
    target = Target.parse(f"timm:features:local-dir:{folder}")
    assert target is not None
    assert target.folder == folder.resolve()
    assert target.title == f"timm:features:{folder.name}"
    assert len(target.build(size=(64, 64))(torch.zeros(1, 3, 64, 64))) == 5


def test_weights_under_other_keys(net: Any) -> None:
    state = {key: to_numpy(value) for key, value in net.state_dict().items()}
    assert timm_zoo.adapted(net, state) is state
    features = timm.create_model("test_resnet", num_classes=0)
    assert timm_zoo.adapted(features, state).keys() == features.state_dict().keys()
    # The keys of ConvNeXt's authors, which timm knows.
    convnext = timm.create_model("convnext_atto")
    own = {key: to_numpy(value) for key, value in convnext.state_dict().items()}
    theirs = {key.replace("stem.", "downsample_layers.0."): value for key, value in own.items()}
    theirs = {
        key.replace("head.norm.", "norm.").replace("head.fc.", "head."): value
        for key, value in theirs.items()
    }
    for old, new in (
        (".blocks.", "."),
        (".conv_dw.", ".dwconv."),
        (".mlp.fc1.", ".pwconv1."),
        (".mlp.fc2.", ".pwconv2."),
    ):
        theirs = {key.replace(old, new): value for key, value in theirs.items()}
    for stage in (1, 2, 3):
        theirs = {
            key.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}."): value
            for key, value in theirs.items()
        }
    assert theirs.keys() != own.keys()
    back = timm_zoo.adapted(convnext, theirs)
    assert back.keys() == own.keys()
    assert all(np.array_equal(back[key], own[key]) for key in own)
    wrong = {**own, "x": np.zeros(1, np.float32)}
    assert timm_zoo.adapted(convnext, wrong) is wrong


def test_a_folder_becomes_a_model_and_goes_back(net: Any, folder: Path, tmp_path: Path) -> None:
    """By the commands: its labels, its preprocessing, its weights, byte by byte."""
    output = tmp_path / "m.keras"
    arguments = ["convert", f"timm:local-dir:{folder}", "--output", str(output), "--preprocessing"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    record = read_record(output)
    assert record is not None
    assert record["labels"] == ["a", "b", "c"]
    assert record["model"]["target"] == "timm:mine"
    assert record["preprocessing"]["crop_size"] == [160, 160]
    assert record["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert record["source"]["weights"] == "r160_in1k"
    pixels = np.random.default_rng(1).integers(0, 256, (2, 160, 160, 3)).astype(np.float32)
    found = keras.saving.load_model(output).predict_on_batch(pixels)
    with torch.no_grad():
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        wanted = net((x / 255 - 0.5) / 0.5).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    done = CliRunner().invoke(app, ["export", str(output), "--output", str(tmp_path / "b.pth")])
    assert done.exit_code == 0, done.output
    back = read_checkpoint(tmp_path / "b.pth").arrays
    for key, array in read_checkpoint(folder / "model.safetensors").arrays.items():
        assert back[key].tobytes() == array.tobytes()


def test_a_repository_is_taken_from_the_hubs_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network; what is not there is said in one line."""
    hub = pytest.importorskip("huggingface_hub")
    snapshot = tmp_path / "models--someone--mine" / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    found = fetch_from_hub("someone/mine", ["config.json"])
    assert json.loads(found.read_text())["architecture"] == "test_resnet"
    assert fetch_from_hub("someone/mine", timm_zoo.WEIGHTS_FILES).name == "model.safetensors"
    with pytest.raises(DownloadError, match=r"cannot get config.json of someone/gone from the Hug"):
        fetch_from_hub("someone/gone", ["config.json"])


def test_older_files_of_the_hub_are_torchs(net: Any, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    assert read_checkpoint(tmp_path / "pytorch_model.bin").arrays.keys() == net.state_dict().keys()
