"""Child process: some steps of `torch.optim.SGD` with a torch network.

Writes a `history.History`. The running variances in it are those that Keras must have; torch's own
are beside them under `torch/KEY`.
"""

from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child, report_progress
from porting.checkpoints.files import to_numpy
from porting.checks.precision import full_precision
from porting.torch_side.reference_nets import (
    Reference,
    batch_norms,
    exact_gradients,
    forward,
    load_weights,
    switch_dropout_off,
    training_loss,
)
from porting.training_checks.history import History, read_batches, sample
from porting.weights.counterpart import Counterpart


def main(job: dict[str, Any]) -> None:
    """Run torch's part of a training check."""
    require("torchvision")  # before anything that might load another LLVM
    torch = require("torch")
    full_precision("torch")
    dtype = getattr(torch, job["precision"])
    counterpart = Counterpart.from_json(job["counterpart"])
    net = Reference.from_json(job["reference"]).build()
    load_weights(net, job["weights"], counterpart.ignored)
    net.to(dtype).train()
    switch_dropout_off(net)
    variances = _keras_variances(net)
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=job["learning_rate"],
        momentum=job["momentum"],
        weight_decay=job["weight_decay"],
    )

    def weights() -> dict[str, np.ndarray]:
        state = net.state_dict() | variances
        return {key: to_numpy(value) for key, value in state.items() if value.is_floating_point()}

    history = History()
    arrays, labels = read_batches(job["batches"])
    inputs = [torch.from_numpy(array).to(dtype) for array in arrays]
    for *batch, classes in zip(*inputs, torch.from_numpy(labels), strict=True):
        report_progress("step")
        optimizer.zero_grad()
        with exact_gradients():
            loss = training_loss(forward(net, counterpart.outputs, *batch), classes)
            loss.backward()
        optimizer.step()
        history.record(loss.item(), {key: sample(array) for key, array in weights().items()})
    own = {f"torch/{key}": to_numpy(net.get_buffer(key)) for key in variances}
    history.save(job["output"], weights(), ("torch", "torchvision"), **own)


def _keras_variances(net: Any) -> dict[str, Any]:
    """Return key -> running variance by Keras' convention, which from here on follows `net`.

    Both frameworks normalise with a batch's biased variance. Keras averages that one; torch
    averages the unbiased variance, n / (n - 1) times as large for n values of a channel.
    """
    variances: dict[str, Any] = {}

    def follow(key: str, module: Any, inputs: tuple[Any]) -> None:
        (x,) = inputs
        batch = x.detach().var(dim=(0, *range(2, x.ndim)), correction=0)
        variances[key] = (1 - module.momentum) * variances[key] + module.momentum * batch

    for name, module in batch_norms(net).items():
        variances[f"{name}.running_var"] = module.running_var.clone()
        module.register_forward_pre_hook(partial(follow, f"{name}.running_var"))
    return variances


if __name__ == "__main__":
    enter_child(main)
