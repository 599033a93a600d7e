"""Time a grouped convolution as one operation and as one for each group, on every backend.

    python benchmarks/grouped_conv.py [--batch 32] [--rounds 5]

The layers are AlexNet's second and fourth. The ratio is torch's own time, measured in the same run,
divided by the alternative's. At the default batch size the table goes into `benchmarks/RESULTS.md`
too.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from results import publish
from timing import compiled, in_child, interleaved, with_gradient

BACKENDS = ("torch", "tensorflow", "jax")
FORMATS = ("channels_last", "channels_first")
# Height and width, input channels, filters, kernel
LAYERS = {"conv2": (27, 96, 256, 5), "conv4": (13, 384, 384, 3)}
GROUPS = 2
BATCH = 32


def measure(data_format: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return `layer/alternative` -> milliseconds forward, and forward and backward."""
    backend = os.environ["KERAS_BACKEND"]
    from keras import ops

    axis = -1 if data_format == "channels_last" else 1
    rng = np.random.default_rng(0)
    steps: dict[str, Callable[[], Any]] = {}

    def grouped(x: Any, kernel: Any) -> Any:
        return ops.conv(x, kernel, padding="same", data_format=data_format)

    def split(x: Any, kernel: Any) -> Any:
        pairs = zip(
            ops.split(x, GROUPS, axis=axis), ops.split(kernel, GROUPS, axis=-1), strict=True
        )
        return ops.concatenate([grouped(*pair) for pair in pairs], axis=axis)

    for layer, (size, channels, filters, window) in LAYERS.items():
        shape = (size, size, channels) if axis == -1 else (channels, size, size)
        outputs = (size, size, filters) if axis == -1 else (filters, size, size)
        x, kernel, upstream = (
            ops.convert_to_tensor(rng.normal(0, 0.05, shape).astype(np.float32))
            for shape in (
                (batch, *shape),
                (window, window, channels // GROUPS, filters),
                (batch, *outputs),
            )
        )
        for name, function in (("grouped", grouped), ("split", split)):
            forward, both = compiled(backend, function), with_gradient(backend, function)
            steps[f"{layer}/{name}/forward"] = lambda f=forward, x=x, k=kernel: f(x, k)
            steps[f"{layer}/{name}/both"] = lambda f=both, x=x, k=kernel, u=upstream: f(u, x, k)
    times = interleaved(steps, rounds)
    names = dict.fromkeys(name.rpartition("/")[0] for name in steps)
    return {name: [times[f"{name}/forward"], times[f"{name}/both"]] for name in names}


def main() -> None:
    """Measure every backend in both formats and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.batch, arguments.rounds)))
        return
    options = ["--batch", str(arguments.batch), "--rounds", str(arguments.rounds)]
    results = {
        (backend, data_format): in_child(__file__, [*options, "--child", data_format], backend)
        for backend in BACKENDS
        for data_format in FORMATS
    }
    table = [
        "| layer | backend | data format | as | forward, ms | ratio | both, ms | ratio |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for (backend, data_format), times in results.items():
        for name, (forward, both) in times.items():
            layer, _, alternative = name.partition("/")
            peer = results["torch", "channels_first"][f"{layer}/grouped"]
            table.append(
                f"| {layer} | {backend} | {data_format} | {alternative} | {forward:.1f} "
                f"| {peer[0] / forward:.2f} | {both:.1f} | {peer[1] / both:.2f} |"
            )
    print(*table, sep="\n")
    if arguments.batch == BATCH:
        method = f"Medians of {arguments.rounds} rounds in turns within a process."
        publish("grouped convolutions", table, method)


if __name__ == "__main__":
    main()
