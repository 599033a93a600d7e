"""Floating-point precision of a child process, for comparisons that rounding must not decide."""

from keras_alexnet.backend import load_keras, require


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


def allow_float64(backend: str) -> None:
    """Let a float64 model compute in float64, for the rest of the process.

    JAX has 64-bit types switched off. On torch and JAX, Keras computes products and batch norm of
    float64 in float32, by a private table of promotions for which there is no public switch. Should
    that table move, this fails and the gradients' cell says so.
    """
    load_keras()
    if backend == "jax":
        require("jax").config.update("jax_enable_x64", True)
    promotions = require("keras.src.backend.common.dtypes")
    promotions.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
