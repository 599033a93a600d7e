"""Time formulations of max pooling on JAX's CPU against torch's, forward and with its gradient.

    python benchmarks/max_pool.py [--batch 32] [--rounds 9]

The ratio is torch's time on channels_last, measured in the same run, divided by the formulation's;
"layer" is keras_alexnet's. "index in the window" keeps each window's first maximum and spreads the
gradient over all its places at once; the layer does so along one axis, then along the other.
At the default batch size the table goes into `benchmarks/RESULTS.md` too.
"""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from results import publish
from timing import compiled, in_child, interleaved, with_gradient

BATCH = 32
# (H = W, C, window, stride, padding) of AlexNet and GoogLeNet
POOLS = {
    "alexnet features.2": (55, 64, 3, 2, "valid"),
    "googlenet maxpool1": (113, 64, 3, 2, "valid"),
    "googlenet maxpool2": (57, 192, 3, 2, "valid"),
    "googlenet inception3a.branch4": (28, 192, 3, 1, "same"),
    "googlenet inception4a.branch4": (14, 480, 3, 1, "same"),
    "googlenet maxpool4": (14, 832, 2, 2, "valid"),
}


def slices(x: Any, window: int, stride: int, padding: str) -> list[Any]:
    """Return each window's values at its first place, at its second place, and so on."""
    import jax.numpy as jnp

    if padding == "same":
        ends = (window // 2, (window - 1) // 2)
        x = jnp.pad(x, ((0, 0), ends, ends, (0, 0)), constant_values=-jnp.inf)
    last = (x.shape[1] - window) // stride * stride + 1
    return [
        x[:, row : row + last : stride, column : column + last : stride]
        for row in range(window)
        for column in range(window)
    ]


def window_index(window: int, stride: int, padding: str) -> Callable[[Any], Any]:
    """Return pooling that keeps where in its window each maximum is."""
    import jax
    import jax.numpy as jnp

    def maximum(x: Any) -> Any:
        return jax.tree.reduce(jnp.maximum, slices(x, window, stride, padding))

    def forward(x: Any) -> Any:
        parts = slices(x, window, stride, padding)
        best, first = parts[0], jnp.zeros(parts[0].shape, jnp.uint8)
        for place, part in enumerate(parts[1:], start=1):
            first = jnp.where(part > best, jnp.uint8(place), first)
            best = jnp.maximum(best, part)
        return best, (first, jnp.zeros((x.shape[1], 0)))

    def backward(residuals: Any, gradient: Any) -> Any:
        first, rows = residuals
        shape = (gradient.shape[0], len(rows), len(rows), gradient.shape[3])
        # The slices' own transposes put the parts where they came from.
        spread = jax.linear_transpose(
            partial(slices_of_zero_border, window=window, stride=stride, padding=padding),
            jax.ShapeDtypeStruct(shape, gradient.dtype),
        )
        zero = jnp.zeros((), gradient.dtype)
        return spread([jnp.where(first == place, gradient, zero) for place in range(window**2)])

    pool = jax.custom_vjp(maximum)
    pool.defvjp(forward, backward)
    return pool


def slices_of_zero_border(x: Any, window: int, stride: int, padding: str) -> list[Any]:
    """Return `slices` of a map with a border of zeros, which is linear in the map."""
    import jax.numpy as jnp

    if padding == "same":
        ends = (window // 2, (window - 1) // 2)
        x = jnp.pad(x, ((0, 0), ends, ends, (0, 0)))
    return slices(x, window, stride, "valid")


def formulations(window: int, stride: int, padding: str) -> dict[str, Callable[[Any], Any]]:
    """Return name -> function of a batch."""
    import jax
    import jax.numpy as jnp
    import keras

    from keras_alexnet.models.fast.jax_layers import quicken_jax

    layer = keras.layers.MaxPooling2D(window, stride, padding, data_format="channels_last")
    stock = keras.layers.MaxPooling2D(window, stride, padding, data_format="channels_last")
    quicken_jax(layer)
    return {
        "stock": stock,
        # Its automatic gradient shares ties out in halves: faster than stock, but not the same.
        "maximum of slices (ties shared)": lambda x: jax.tree.reduce(
            jnp.maximum, slices(x, window, stride, padding)
        ),
        "index in the window": window_index(window, stride, padding),
        "layer": layer,
    }


def measure(framework: str, name: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return name -> milliseconds forward, and forward and backward; the child's side."""
    import torch

    height, channels, window, stride, padding = POOLS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, height, channels)).clip(0).astype(np.float32)
    pool = partial(
        torch.nn.functional.max_pool2d,
        kernel_size=window,
        stride=stride,
        padding=window // 2 if padding == "same" else 0,
    )
    planes = torch.from_numpy(x).permute(0, 3, 1, 2)
    upstream = torch.rand_like(pool(planes))
    steps: dict[str, Callable[[], Any]] = {}
    functions: dict[str, Callable[[Any], Any]] = {"torch": pool}
    both = with_gradient("torch", pool)
    steps["torch/forward"] = lambda: pool(planes)
    steps["torch/both"] = lambda: both(upstream, planes)
    import jax.numpy as jnp

    batch_of_maps = jnp.asarray(x)
    given = jnp.asarray(upstream.permute(0, 2, 3, 1).numpy())
    for key, function in formulations(window, stride, padding).items():
        functions[key] = function
        ahead, back = compiled(framework, function), with_gradient(framework, function)
        steps[f"{key}/forward"] = lambda run=ahead: run(batch_of_maps)
        steps[f"{key}/both"] = lambda run=back: run(given, batch_of_maps)
    times = interleaved(steps, rounds)
    return {key: [times[f"{key}/forward"], times[f"{key}/both"]] for key in functions}


def main() -> None:
    """Measure every pool and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        framework = os.environ["KERAS_BACKEND"]
        print(json.dumps(measure(framework, arguments.child, arguments.batch, arguments.rounds)))
        return
    options = ["--batch", str(arguments.batch), "--rounds", str(arguments.rounds)]
    table = [
        "| pool | formulation | forward, ms | ratio | both, ms | ratio |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name in POOLS:
        times = in_child(__file__, [*options, "--child", name], "jax")
        peer = times["torch"]
        for key, (forward, both) in sorted(times.items(), key=lambda item: item[1][1]):
            table.append(
                f"| {name} | {key} | {forward:.1f} | {peer[0] / forward:.2f} "
                f"| {both:.1f} | {peer[1] / both:.2f} |"
            )
    print(*table, sep="\n")
    if arguments.batch == BATCH:
        method = f"Medians of {arguments.rounds} rounds in turns within a process."
        publish("max pools", table, method, packages=("jax", "torch"))


if __name__ == "__main__":
    main()
