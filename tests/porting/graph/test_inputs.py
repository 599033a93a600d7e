"""Networks of several inputs: images, and what is known beside them."""

from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.graphs import Function, converted, filled, images
from helpers.models import BOTH
from torch import nn

import porting
from porting.checkpoints.files import to_numpy
from porting.conversion.networks import largest_gap, outputs_of
from porting.errors import GraphError
from porting.graph.reader import read
from porting.tolerances import TOLERANCES
from porting.torch_side.reference_nets import named_results


class Siamese(nn.Module):
    """One body for two images, and how far apart they are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(24, 5),
        )  # fmt: skip

    def forward(self, image: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the distance, and what the first image is."""
        a, b = self.body(image), self.body(other)
        return {"distance": (a - b).square().sum(1), "logits": a}


class Beside(nn.Module):
    """An image, and numbers about it, scaled by a table that the batch's length makes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(3, 8, 3)
        self.table: nn.Module = nn.Linear(7, 8)
        self.token = nn.Parameter(images(1, 1, 8))

    def forward(self, table: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The image is the second one."""
        maps = self.conv(image) + self.table(table)[:, :, None, None]
        tokens = torch.cat([self.token.expand(table.shape[0], -1, -1), maps.flatten(2).mT], 1)
        return tokens.mean(1)


class Resized(nn.Module):
    """Two images of sizes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Scores of each pixel of the first."""
        return self.conv(x) + nn.functional.interpolate(self.conv(y), x.shape[-2:], mode="bilinear")


def wanted(module: nn.Module, *inputs: torch.Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {k: to_numpy(v) for k, v in named_results(module.eval()(*inputs)).items()}


def gap(module: nn.Module, built: Any, *inputs: torch.Tensor) -> float:
    return largest_gap(outputs_of(built, *map(to_numpy, inputs)), wanted(module, *inputs))


@BOTH
def test_two_images_through_one_body(data_format: str) -> None:
    module = Siamese().eval()
    plan = read(module, images(2, 3, 12, 16), images(2, 3, 12, 16, seed=1))
    assert list(plan.inputs) == ["image", "other"]
    assert plan.notes == (
        "1 batch norms are computed several times, body.1.running_mean first: in training, Keras "
        "averages what they see in a step in an order of its own",
    )
    built = filled(module, plan, data_format)
    assert [each.name for each in built.model.inputs] == ["image", "other"]
    x, y = images(3, 3, 12, 16, seed=2), images(3, 3, 12, 16, seed=3)
    assert gap(module, built, x, y) <= TOLERANCES["logits"].limit
    # Negative control: neither image may stand for the other.
    assert largest_gap(outputs_of(built, to_numpy(y), to_numpy(x)), wanted(module, x, y)) > 0.1


@BOTH
def test_numbers_beside_an_image_and_before_it(data_format: str) -> None:
    module = Beside().eval()
    plan = read(module, images(2, 7), images(2, 3, 9, 10))
    built = filled(module, plan, data_format)
    for count in (1, 2, 5):
        inputs = images(count, 7, seed=count), images(count, 3, 9, 10, seed=-count)
        assert gap(module, built, *inputs) <= TOLERANCES["logits"].limit


def test_images_of_any_two_sizes() -> None:
    module = Resized().eval()
    plan = read(module, images(2, 3, 12, 16), images(2, 3, 6, 10), any_size=True)
    built = filled(module, plan)
    assert [each.shape[1:] for each in built.model.inputs] == [(None, None, 3)] * 2
    for x, y in (((13, 17), (5, 21)), ((8, 8), (8, 9))):
        assert (
            gap(module, built, images(3, 3, *x), images(3, 3, *y, seed=1))
            <= TOLERANCES["logits"].limit
        )


@BOTH
def test_from_torch_takes_what_the_module_is_called_with(data_format: str) -> None:
    module = Siamese().eval()
    zeros = torch.zeros(1, 3, 12, 16)
    model = porting.from_torch(module, zeros, zeros, data_format=data_format)
    x, y = images(3, 3, 12, 16, seed=2), images(3, 3, 12, 16, seed=3)
    order = (0, 2, 3, 1) if data_format == "channels_last" else (0, 1, 2, 3)
    found = model.predict_on_batch([each.permute(order).numpy() for each in (x, y)])
    assert largest_gap(found, wanted(module, x, y)) <= TOLERANCES["logits"].limit
    back = porting.to_state_dict(model, framework="torch")
    assert all(torch.equal(back[key], value) for key, value in module.state_dict().items())


def test_a_network_of_numbers_alone() -> None:
    module = nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 2)).eval()
    built = converted(module, images(2, 7))
    assert built.model.input_shape == (None, 7)
    assert gap(module, built, images(4, 7, seed=1)) <= TOLERANCES["logits"].limit


def test_a_module_may_be_called_as_an_input() -> None:
    class Image(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Conv2d(3, 4, 1)

        def forward(self, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return self.image(image).mean((2, 3)) + other

    module = Image().eval()
    built = filled(module, read(module, images(2, 3, 4, 4), images(2, 4)))
    names = [layer.name for layer in built.model.layers]
    assert len(set(names)) == len(names)
    assert isinstance(built.model.get_layer("image_1"), keras.layers.Conv2D)
    assert gap(module, built, images(3, 3, 4, 4), images(3, 4)) <= TOLERANCES["logits"].limit


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            (images(2, 7).long(), images(2, 3, 9, 10)),
            "input 'table' of Beside is no tensor of float",
        ),
        (
            (images(3, 7), images(3, 3, 9, 10)),
            "Beside works for batches of 3 images only: its code",
        ),
        ((images(2, 7),), "missing a required argument: 'image'"),
    ],
)
def test_inputs_that_do_not_fit(inputs: tuple[torch.Tensor, ...], text: str) -> None:
    module = Beside().eval()
    module.table = Function(lambda x: x[: len(x), :1].float())
    with pytest.raises(GraphError, match=text):
        read(module, *inputs)
