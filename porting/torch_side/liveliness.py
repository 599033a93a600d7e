"""Weights of any torch network that let errors show: every layer is alive, and images differ.

Fresh weights hide errors: norms that change nothing, scales of a millionth, heads of zeros.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_alexnet.core.backend import require
from porting.torch_side.reference_nets import batch_norms

# Scales of a residual branch start at 1e-6 or so.
_FAINT = 0.02


def liven(net: Any, *inputs: Any, seed: int) -> None:
    """Change the weights that hide errors, in place.

    Tensors of one number get different ones, zeros and faint scales among them. The running
    statistics of batch norm become those of the images, and are then moved, so that they matter.

    Args:
        net: A `torch.nn.Module` in inference mode.
        *inputs: What it reads: a few images (N, C, H, W) as it takes them, N > 1, and what else.
        seed: Of the numbers.
    """
    torch = require("torch")
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Any) -> Any:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for parameter in net.parameters():
            value = parameter.flatten()[0]
            if parameter.numel() > 1 and (parameter == value).all():
                scale = 1.0 if abs(value) > _FAINT else 0.3
                moved = scale + 0.1 * normal(parameter) if value else 0.02 * normal(parameter)
                parameter.copy_(moved)
        norms = [norm for norm in batch_norms(net).values() if norm.running_mean is not None]
        with _measuring(norms):
            net(*inputs)
        for norm in norms:
            # Divided by what it varies in a few images alone, a channel would magnify rounding from
            # layer to layer: torch's own logits of a fresh GoogLeNet are then 3e-5 of their scale
            # from what they are in float64. With the layer's mean square it is below 2e-6.
            variance = (norm.running_var + norm.running_var.mean()) / 2
            variance += norm.running_mean.square().mean()
            norm.running_mean.add_(0.1 * variance.sqrt() * normal(variance))
            uniform = torch.rand(variance.shape, generator=generator)
            norm.running_var.copy_(variance * (0.8 + 0.4 * uniform))


@contextlib.contextmanager
def _measuring(norms: Sequence[Any]) -> Iterator[None]:
    """Within this block, batch norms take the statistics of a batch as theirs."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
