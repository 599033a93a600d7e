"""Floating-point precision of a child process, for comparisons that rounding must not decide."""

import contextlib
from collections.abc import Iterator

from keras_alexnet.core.backend import load_keras, require


def full_precision(backend: str) -> None:
    """Switch off TF32 and its like, which break agreement at 1e-5."""
    if backend == "tensorflow":
        require("tensorflow").config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "torch":
        torch = require("torch")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    else:
        require("jax").config.update("jax_default_matmul_precision", "highest")


@contextlib.contextmanager
def computing_in(backend: str, dtype: str) -> Iterator[None]:
    """Let models, losses, metrics and optimisers that are made in this block compute in `dtype`."""
    config = load_keras().config
    floatx, policy = config.floatx(), config.dtype_policy()
    config.set_floatx(dtype)
    config.set_dtype_policy(dtype)
    try:
        with float64_allowed(backend) if dtype == "float64" else contextlib.nullcontext():
            yield
    finally:
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)


@contextlib.contextmanager
def float64_allowed(backend: str) -> Iterator[None]:
    """Let float64 models compute in float64, within this block.

    JAX has 64-bit types switched off. On torch and JAX, Keras computes products and batch norm of
    float64 in float32, by a private table of promotions for which there is no public switch. Should
    that table move, this fails and the gradients' cell says so.
    """
    load_keras()
    promotions = require("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    lowered = promotions["float64"]
    promotions["float64"] = "float64"
    if backend == "jax":
        require("jax").config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        promotions["float64"] = lowered
        if backend == "jax":
            require("jax").config.update("jax_enable_x64", False)
