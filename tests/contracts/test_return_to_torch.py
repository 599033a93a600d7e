"""Fine-tuned in Keras, continued in torch: every model's file becomes a state_dict that fits."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.models import assert_close, call
from helpers.project import TWINS
from helpers.sizes import ODD_SIZES
from typer.testing import CliRunner

from keras_alexnet import create_model, normalize
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.models.interface import named_outputs
from keras_alexnet.models.record import save_model
from keras_alexnet.specs import SPECS
from keras_alexnet.training.optim.losses import CrossEntropy
from keras_alexnet.training.optim.optimizers import SGD
from porting import load_state_dict
from porting.checkpoints.files import as_tensors, read_checkpoint
from porting.commands.app import app
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import Reference, forward
from porting.torch_side.seeded import seeded_state_dict
from porting.weights.spec_tables import outputs_of

SIZES = {**dict.fromkeys(torchvision_zoo.NETWORKS, (95, 79)), **ODD_SIZES}
# Batch norm, auxiliary heads, groups and LRN; the large ones take seconds to write and read.
QUICK = {"lenet5": ".npz", "googlenet": ".pth", "alexnet_paper": ".safetensors"}
CLASSES = 7


def trained_a_little(name: str, images: np.ndarray) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a model after two steps from seeded weights, and those weights."""
    spec, size = SPECS[name], SIZES[name]
    heads = {"aux_heads": True} if spec.aux else {}
    arrays = seeded_state_dict(name, seed=1, classes=CLASSES, size=size, **heads)
    with weights_will_follow():
        model = create_model(
            name, classes=CLASSES, input_shape=(*size, spec.channels), dropout_rate=0.0, **heads
        )
    load_state_dict(model, arrays)
    trainer = keras.Model(model.input, named_outputs(model.output))
    trainer.compile(
        optimizer=SGD(1e-3, momentum=0.9), loss={name: CrossEntropy() for name in trainer.output}
    )
    labels = np.arange(len(images)) % CLASSES
    targets = dict.fromkeys(trainer.output, labels)
    trainer.fit(images, targets, batch_size=len(images), epochs=2, verbose=0)
    return model, arrays


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in SPECS]
)
def test_fine_tuned_weights_go_back(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (4, *SIZES[name], spec.channels), dtype=np.uint8)
    images = normalize(pixels, spec.preprocessing)
    model, before = trained_a_little(name, images)
    file, exported = tmp_path / "tuned.keras", tmp_path / f"tuned{QUICK.get(name, '.pth')}"
    save_model(model, file, {"model": {"name": name}})

    done = CliRunner().invoke(app, ["export", str(file), "--output", str(exported)])
    assert done.exit_code == 0, done.output

    arrays = read_checkpoint(exported).arrays
    moved = [k for k, v in before.items() if v.dtype.kind == "f" and (v != arrays[k]).any()]
    # Biases in front of batch norm stay where they are.
    assert len(moved) > 0.8 * sum(v.dtype.kind == "f" for v in before.values())
    own = None if name in torchvision_zoo.NETWORKS else TWINS
    heads = bool(spec.aux)
    net = Reference(name, CLASSES, aux_heads=heads, size=SIZES[name], function=own).build()
    net.load_state_dict(as_tensors(arrays), strict=True)
    planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        wanted = forward(net, outputs_of(spec, aux_heads=heads), planes)
    got = call(model, images)
    for output, value in named_outputs(got).items():
        assert_close(wanted[output].numpy(), value, "logits")
