"""What the benchmarks share: alternatives timed in turn, each framework in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from keras_alexnet.benchmarking.environment import ALLOCATOR

Times = dict[str, float]


def interleaved(functions: Mapping[str, Callable[[], Any]], rounds: int) -> Times:
    """Return the median of each function's milliseconds; a call before each timing warms it up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def child_environment(backend: str) -> dict[str, str]:
    """Return the environment of a process with one Keras backend."""
    return os.environ | ALLOCATOR | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}


class ChildFailureError(Exception):
    """A script in a process of its own failed.

    Attributes:
        reason: The last line of its errors.
        errors: All of them.
    """

    def __init__(self, script: str, backend: str, errors: str, code: int) -> None:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        self.reason = lines[-1] if lines else f"exit code {code}"
        self.errors = errors
        super().__init__(f"{script} on {backend} failed: {self.reason}")


def result_of_child(script: str, arguments: Sequence[str], backend: str) -> Any:
    """Run a script in a process with one Keras backend; return the JSON of its last line.

    Raises:
        ChildFailureError: It failed.
    """
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=child_environment(backend),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildFailureError(script, backend, done.stderr, done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def in_child(script: str, arguments: Sequence[str], backend: str) -> Any:
    """Return what `result_of_child` does, and end the program where that fails."""
    try:
        return result_of_child(script, arguments, backend)
    except ChildFailureError as failure:
        sys.exit(f"{script} on {backend} failed:\n{failure.errors}")


def compiled(backend: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of arrays as the backend runs it in a model: compiled, but on torch."""
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        jitted = jax.jit(function)
        return lambda *arrays: jax.block_until_ready(jitted(*arrays))
    return function


def with_gradient(backend: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return forward and backward pass: (upstream, *arrays) -> gradients of the arrays."""
    if backend == "tensorflow":
        import tensorflow as tf

        def both(upstream: Any, *arrays: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(arrays)
                outputs = function(*arrays)
            return tape.gradient(outputs, arrays, upstream)

    elif backend == "torch":
        import torch

        def both(upstream: Any, *arrays: Any) -> Any:
            leaves = [array.detach().requires_grad_() for array in arrays]
            return torch.autograd.grad(function(*leaves), leaves, upstream)

    else:
        import jax

        def both(upstream: Any, *arrays: Any) -> Any:
            return jax.vjp(function, *arrays)[1](upstream)

    return compiled(backend, both)
