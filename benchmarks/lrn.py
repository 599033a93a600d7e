"""Time formulations of local response normalisation against torch's layer, on every backend.

    python benchmarks/lrn.py [--shape 32,55,55,96] [--rounds 9]

The ratio is torch.nn.LocalResponseNorm's time on channels_first, measured in the same run, divided
by the formulation's; "layer" is keras_alexnet's. "closed" has the gradient in closed form. At the
default shape the table goes into `benchmarks/RESULTS.md` too.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from results import publish
from timing import compiled, in_child, interleaved, with_gradient

SHAPE = "32,55,55,96"
SIZE, ALPHA, BETA, K = 5, 1e-4, 0.75, 2.0
BACKENDS = ("torch", "tensorflow", "jax")
FORMATS = ("channels_last", "channels_first")


def formulations(data_format: str, channels: int) -> dict[str, Callable[[Any], Any]]:
    """Return name -> function of a batch."""
    from keras import ops

    last = data_format == "channels_last"
    axis = 3 if last else 1
    offset = np.arange(channels)[:, None] - np.arange(channels)
    band = ((abs(offset) <= SIZE // 2) * (ALPHA / SIZE)).astype(np.float32)

    def padded(x: Any, before: int) -> Any:
        widths = [(0, 0)] * 4
        widths[axis] = (before, SIZE // 2)
        return ops.pad(x, widths)

    def part(x: Any, start: int) -> Any:
        window = [slice(None)] * 4
        window[axis] = slice(start, start + channels)
        return x[tuple(window)]

    def band_conv(x: Any) -> Any:
        return ops.conv(x, band.reshape(1, 1, channels, channels), data_format=data_format)

    def band_product(x: Any) -> Any:
        if last:
            return ops.matmul(x, band)
        n, c, h, w = x.shape
        return ops.reshape(ops.matmul(band, ops.reshape(x, (n, c, h * w))), x.shape)

    def slices(x: Any) -> Any:
        wide = padded(x, SIZE // 2)
        return (ALPHA / SIZE) * sum(part(wide, start) for start in range(SIZE))

    def pool(x: Any) -> Any:
        wide = padded(x, SIZE // 2)
        n, *rest = wide.shape
        flat = (n, rest[0] * rest[1], rest[2], 1) if last else (n, rest[0], rest[1] * rest[2], 1)
        window = (1, SIZE) if last else (SIZE, 1)
        means = ops.average_pool(ops.reshape(wide, flat), window, 1, data_format="channels_last")
        return ALPHA * ops.reshape(means, x.shape)

    def running_sum(x: Any) -> Any:
        sums = ops.cumsum(padded(x, SIZE // 2 + 1), axis=axis)
        return (ALPHA / SIZE) * (part(sums, SIZE) - part(sums, 0))

    def factor(d: Any) -> Any:
        return ops.rsqrt(d * ops.sqrt(d))  # d ** -.75

    def automatic(window: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: x * factor(K + window(ops.square(x)))

    def closed(window: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @ops.custom_gradient
        def normalize(x: Any) -> Any:
            d = K + window(ops.square(x))
            p = factor(d)
            y = x * p

            def gradient(*args: Any, upstream: Any = None) -> Any:
                if upstream is None:
                    (upstream,) = args
                return upstream * p - (2 * BETA) * x * window(upstream * y / d)

            return y, gradient

        return normalize

    windows = {
        "pool over channels": pool,
        "running sum": running_sum,
        "banded 1x1 conv": band_conv,
        "band product": band_product,
        "shifted slices": slices,
    }
    return (
        {name: automatic(window) for name, window in windows.items()}
        | {f"{name}, closed": closed(window) for name, window in windows.items()}
        | {"band product, power": lambda x: x * ops.power(K + band_product(ops.square(x)), -BETA)}
    )


def measure(data_format: str, shape: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """Return name -> milliseconds forward, and forward and backward; the child's side."""
    backend = os.environ["KERAS_BACKEND"]
    from keras import ops

    from keras_alexnet.layers import LocalResponseNormalization

    n, h, w, c = shape
    placed = shape if data_format == "channels_last" else (n, c, h, w)
    functions = formulations(data_format, c)
    functions["layer"] = LocalResponseNormalization(SIZE, ALPHA, BETA, K, data_format)
    if backend == "torch" and data_format == "channels_first":
        import torch

        functions["torch.nn.LocalResponseNorm"] = torch.nn.LocalResponseNorm(SIZE, ALPHA, BETA, K)
    if backend == "tensorflow" and data_format == "channels_last":
        import tensorflow as tf

        functions["tf.nn.local_response_normalization"] = lambda x: (
            tf.nn.local_response_normalization(x, SIZE // 2, K, ALPHA / SIZE, BETA)
        )
    rng = np.random.default_rng(0)
    x, upstream = (
        ops.convert_to_tensor(rng.normal(0, 100, placed).clip(0).astype(np.float32))
        for _ in range(2)
    )
    steps: dict[str, Callable[[], Any]] = {}
    for name, function in functions.items():
        forward, both = compiled(backend, function), with_gradient(backend, function)
        steps[f"{name}/forward"] = lambda run=forward: run(x)
        steps[f"{name}/both"] = lambda run=both: run(upstream, x)
    times = interleaved(steps, rounds)
    return {name: [times[f"{name}/forward"], times[f"{name}/both"]] for name in functions}


def main() -> None:
    """Measure every backend in both formats and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default=SHAPE, help="N,H,W,C")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        shape = tuple(map(int, arguments.shape.split(",")))
        print(json.dumps(measure(arguments.child, shape, arguments.rounds)))
        return
    options = ["--shape", arguments.shape, "--rounds", str(arguments.rounds)]
    results = {
        (backend, data_format): in_child(__file__, [*options, "--child", data_format], backend)
        for backend in BACKENDS
        for data_format in FORMATS
    }
    peer = results["torch", "channels_first"]["torch.nn.LocalResponseNorm"]
    table = [
        "| backend | data format | formulation | forward, ms | ratio | both, ms | ratio |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for (backend, data_format), times in results.items():
        for name, (forward, both) in sorted(times.items(), key=lambda item: item[1][1]):
            table.append(
                f"| {backend} | {data_format} | {name} | {forward:.1f} | {peer[0] / forward:.2f} "
                f"| {both:.1f} | {peer[1] / both:.2f} |"
            )
    print(*table, sep="\n")
    if arguments.shape == SHAPE:
        publish("lrn", table, f"Medians of {arguments.rounds} rounds in turns within a process.")


if __name__ == "__main__":
    main()
