"""Weights by name: described by torchvision, downloaded, checked, recognised, recorded."""

import dataclasses
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import porting
from keras_alexnet import read_record
from keras_alexnet.data.preprocessing import IMAGENET, Preprocessing
from porting.checkpoints.files import sha256
from porting.conversion import sources
from porting.errors import UsageError
from porting.torch_side import torchvision_zoo, zoos
from porting.torch_side.seeded import seeded_state_dict
from porting.torch_side.weights_info import WeightsInfo

CLASSES = 5


@pytest.fixture(scope="module")
def alexnet_info() -> WeightsInfo:
    return zoos.describe("torchvision", "alexnet", "AlexNet_Weights.DEFAULT")


def test_torchvision_describes_its_weights(alexnet_info: WeightsInfo) -> None:
    assert alexnet_info.name == "IMAGENET1K_V1"
    assert alexnet_info.url.endswith("/alexnet-owt-7be5be79.pth")
    assert alexnet_info.metrics == {"acc@1": 56.522, "acc@5": 79.066}
    assert len(alexnet_info.labels) == 1000
    assert alexnet_info.labels[0] == "tench"
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in alexnet_info.preprocessing.items()
    }
    assert Preprocessing(**fields) == IMAGENET


def test_weights_that_torchvision_does_not_have() -> None:
    with pytest.raises(
        UsageError, match=r"no weights 'IMAGENET1K_V9' for googlenet.*IMAGENET1K_V1"
    ):
        zoos.describe("torchvision", "googlenet", "IMAGENET1K_V9")


@pytest.fixture
def published(tmp_path: Path, alexnet_info: WeightsInfo) -> Iterator[WeightsInfo]:
    """A small GoogLeNet on a server of its own, named after its hash as torchvision's files are."""
    folder = tmp_path / "server"
    folder.mkdir()
    file = folder / "googlenet.pth"
    state = seeded_state_dict("googlenet", seed=8, classes=CLASSES, aux_heads=True)
    porting.write_checkpoint(file, state)
    named = file.rename(folder / f"googlenet-{sha256(file)[:8]}.pth")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield dataclasses.replace(
            alexnet_info,
            url=f"http://127.0.0.1:{server.server_port}/{named.name}",
            labels=tuple("abcde"),
        )
        server.shutdown()


@pytest.fixture
def torchvision_knows(
    published: WeightsInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> WeightsInfo:
    """Let torchvision's description be that of the published file, and the cache be empty."""
    monkeypatch.setattr(sources, "describe", lambda *_, **__: published)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return published


def test_from_torchvision_downloads_once_and_switches_transform_input_on(
    torchvision_knows: WeightsInfo, tmp_path: Path
) -> None:
    model = porting.from_torchvision("googlenet", "IMAGENET1K_V1", aux_heads=True)
    assert model.get_layer("transform_input")
    cached = tmp_path / "cache" / "hub" / "checkpoints" / torchvision_knows.url.rpartition("/")[2]
    assert cached.is_file()
    shutil.rmtree(tmp_path / "server")  # a second use needs no server
    again = porting.from_torchvision("googlenet", "DEFAULT")
    state = porting.to_state_dict(again, framework="numpy")
    original = porting.read_checkpoint(cached).arrays
    assert all(np.array_equal(state[key], original[key]) for key in state)


def test_a_converted_file_quotes_torchvision(
    torchvision_knows: WeightsInfo, tmp_path: Path
) -> None:
    output = tmp_path / "m.keras"
    porting.convert("googlenet", "IMAGENET1K_V1", output)
    record = read_record(output)
    assert record is not None
    assert record["source"]["weights"] == "IMAGENET1K_V1"
    assert record["source"]["metrics"] == {"acc@1": 56.522, "acc@5": 79.066}
    assert record["source"]["url"] == torchvision_knows.url
    assert record["source"]["sha256"].startswith(torchvision_knows.url[-12:-4])
    assert record["labels"] == list("abcde")
    assert record["model"]["transform_input"] is True


def test_a_downloaded_file_is_recognised_by_its_hash(
    torchvision_knows: WeightsInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (tmp_path / "server").iterdir()
    renamed = file.rename(tmp_path / "renamed.pth")
    assert sources.open_source("googlenet", renamed).transform_input is False
    monkeypatch.setitem(
        torchvision_zoo.OFFICIAL_HASHES["googlenet"], sha256(renamed)[:8], "IMAGENET1K_V1"
    )
    opened = sources.open_source("googlenet", renamed)
    assert opened.info == torchvision_knows
    assert opened.transform_input is True
    assert sources.open_source("googlenet", renamed, transform_input=False).transform_input is False
