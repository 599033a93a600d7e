"""Parameters of local response normalisation, from one framework's convention to another's.

Ours is torch's: x / (k + alpha / size * sum of squares over `size` channels) ** beta. TensorFlow
and the paper (Krizhevsky et al. 2012, section 3.3) do not divide alpha by the size; Caffe does.
"""

from typing import TypedDict


class LRNParameters(TypedDict):
    """Arguments of `specs` rows, of the layer and of `torch.nn.LocalResponseNorm`."""

    size: int
    alpha: float
    beta: float
    k: float


class TensorFlowLRN(TypedDict):
    """Arguments of `tf.nn.local_response_normalization`."""

    depth_radius: int
    bias: float
    alpha: float
    beta: float


def lrn_from_tensorflow(
    *, depth_radius: int = 5, bias: float = 1.0, alpha: float = 1.0, beta: float = 0.5
) -> LRNParameters:
    """Translate the arguments of `tf.nn.local_response_normalization`, with its defaults.

    Args:
        depth_radius: Channels on each side of the window's centre.
        bias: Offset of the denominator.
        alpha: Factor of the plain sum of squares.
        beta: Exponent.
    """
    size = 2 * depth_radius + 1
    return {"size": size, "alpha": alpha * size, "beta": beta, "k": bias}


def lrn_to_tensorflow(*, size: int, alpha: float, beta: float, k: float) -> TensorFlowLRN:
    """Translate to the arguments of `tf.nn.local_response_normalization`.

    Raises:
        ValueError: The size is even; TensorFlow's windows are symmetric.
    """
    if size % 2 == 0:
        raise ValueError(f"TensorFlow's window has a centre, so its size is odd; got {size}")
    return {"depth_radius": size // 2, "bias": k, "alpha": alpha / size, "beta": beta}


def lrn_from_caffe(
    *,
    local_size: int = 5,
    alpha: float = 1.0,
    beta: float = 0.75,
    k: float = 1.0,
    norm_region: str = "ACROSS_CHANNELS",
) -> LRNParameters:
    """Translate a Caffe `lrn_param`, with the defaults of caffe.proto.

    Args:
        local_size: Channels in the window.
        alpha: Factor of the mean of squares.
        beta: Exponent.
        k: Offset of the denominator.
        norm_region: Must be across channels.

    Raises:
        ValueError: The region is another, which this normalisation does not cover.
    """
    if norm_region != "ACROSS_CHANNELS":
        raise ValueError(f"norm_region must be ACROSS_CHANNELS, got {norm_region}")
    return {"size": local_size, "alpha": alpha, "beta": beta, "k": k}
