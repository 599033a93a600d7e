"""Floating-point precision of a child process, for comparisons that rounding must not decide."""

import contextlib
from collections.abc import Iterator

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.keras_internals import float64_kept


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

    JAX has 64-bit types switched off.

    Raises:
        MissingPartError: This Keras cannot be kept from computing in float32; the gradients' cell
            says so.
    """
    if backend == "jax":
        require("jax").config.update("jax_enable_x64", True)
    try:
        with float64_kept():
            yield
    finally:
        if backend == "jax":
            require("jax").config.update("jax_enable_x64", False)
