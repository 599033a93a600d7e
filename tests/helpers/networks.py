"""Networks with live weights, and their torch counterparts, for the tests of several folders."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.project import TWINS

from keras_alexnet import AlexNet, GoogLeNet
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.specs import SPECS
from porting import load_state_dict
from porting.checkpoints.files import as_tensors
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import Reference, forward
from porting.torch_side.seeded import seeded_state_dict
from porting.weights.counterpart import Output

StateDict = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def state_dicts() -> Callable[[str], StateDict]:
    """Name -> live seeded state_dict, that of a GoogLeNet with auxiliary heads.

    The arrays are read-only, because all tests share them.
    """

    @functools.cache
    def get(name: str) -> StateDict:
        arrays = seeded_state_dict(name, seed=0, aux_heads=bool(SPECS[name].aux))
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    return get


@pytest.fixture(scope="session")
def nets(state_dicts: Callable[[str], StateDict]) -> Callable[[str], Any]:
    """Name -> torch network with the weights of `state_dicts`, in inference mode.

    It is torchvision's own, or the twin that the tests hold.
    """

    @functools.cache
    def get(name: str) -> Any:
        spec = SPECS[name]
        own = None if name in torchvision_zoo.NETWORKS else TWINS
        net = Reference(name, spec.classes, aux_heads=bool(spec.aux), function=own).build()
        net.load_state_dict(as_tensors(state_dicts(name)), strict=True)
        return net.requires_grad_(False)

    return get


@pytest.fixture(scope="session")
def torch_outputs() -> Callable[..., dict[str, np.ndarray]]:
    """Outputs of a torch network on images (N, H, W, C): `torch_outputs(net, images, outputs)`.

    Module names in `modules` add those modules' outputs, feature maps as (N, H, W, C).
    """

    def run(
        net: Any,
        images: np.ndarray,
        wanted: tuple[Output, ...] = (Output("logits"),),
        modules: tuple[str, ...] = (),
    ) -> dict[str, np.ndarray]:
        outputs: dict[str, Any] = {}
        hooks = [
            net.get_submodule(name).register_forward_hook(
                # A copy, since the ReLU that follows may work in place.
                lambda _module, _inputs, output, name=name: outputs.__setitem__(
                    name, output.clone()
                )
            )
            for name in modules
        ]
        planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        with torch.no_grad():
            outputs |= forward(net, wanted, planes)
        for hook in hooks:
            hook.remove()
        return {
            name: (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).numpy()
            for name, value in outputs.items()
        }

    return run


@pytest.fixture(scope="session")
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
