"""Child process: explains scores of the torch network, as `keras_alexnet.Explainer` does Keras'.

The formulas are the same functions of arrays; the scores and gradients are torch's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.data.preprocessing import normalize
from keras_alexnet.explaining import attribution
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checkpoints.files import to_numpy
from porting.checks.precision import full_precision
from porting.torch_side.reference_nets import Reference, forward, load_weights
from porting.weights.counterpart import Counterpart, LayerPair
from porting.weights.layouts import nchw_to_nhwc

_BATCH = 16


class _Explained:
    """A torch network whose main output is explained."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.torch = require("torch")
        counterpart = Counterpart.from_json(job["counterpart"])
        self._outputs = counterpart.outputs
        self.net = Reference.from_json(job["reference"]).build()
        load_weights(self.net, job["weights"], counterpart.ignored)
        self.preprocessing = Preprocessing.from_record(job["preprocessing"])
        self._steps, self._channels_first = job["steps"], job["channels_first"]
        self._pair = job["pair"] and LayerPair.from_json(job["pair"])

    def grad_cam(self, photo: np.ndarray, label: int) -> np.ndarray:
        """Return the heat of the module's maps, (rows, columns)."""
        kept: list[Any] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> Any:
            kept.append(output)
            return output.clone()  # what follows may work in place

        hook = self.net.get_submodule(self._pair.module).register_forward_hook(keep)
        score = self._scores(self._inputs(photo[None]))[0, label]
        hook.remove()
        (slopes,) = self.torch.autograd.grad(score, kept[0])
        maps, slopes = (self._as_keras(to_numpy(x.detach())) for x in (kept[0], slopes))
        return attribution.grad_cam(maps, slopes)[0]

    def _as_keras(self, maps: np.ndarray) -> np.ndarray:
        """Return a module's maps as (N, h, w, C)."""
        if self._pair.transform is None:
            return nchw_to_nhwc(maps)
        maps = self._pair.transform.to_keras(maps)
        return nchw_to_nhwc(maps) if self._channels_first else maps

    def integrated_gradients(self, photo: np.ndarray, label: int) -> np.ndarray:
        """Return what each number of the photo adds, (h, w, C)."""

        def gradient(line: np.ndarray) -> np.ndarray:
            return self._batched(self._slopes(label), line)

        x, black = (self._normal(images[None])[0] for images in (photo, np.zeros_like(photo)))
        parts = attribution.integrated_gradients(gradient, x, black, steps=self._steps)
        return parts[..., ::-1] if self.preprocessing.channels == "BGR" else parts

    def occlusion(self, photo: np.ndarray, label: int) -> np.ndarray:
        """Return how far the score drops, (h, w)."""
        height, width = photo.shape[:2]
        square = attribution.occluder(self.preprocessing, (height, width), None, None)

        def score(images: np.ndarray) -> np.ndarray:
            with self.torch.no_grad():
                return self._batched(
                    lambda part: to_numpy(self._scores(self._inputs(part))[:, label]), images
                )

        return attribution.occlusion(score, photo, **square)

    def _slopes(self, label: int) -> Callable[[np.ndarray], np.ndarray]:
        def slopes(x: np.ndarray) -> np.ndarray:
            given = self.torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
            (found,) = self.torch.autograd.grad(self._scores(given)[:, label].sum(), given)
            return to_numpy(found).transpose(0, 2, 3, 1)

        return slopes

    def _scores(self, x: Any) -> Any:
        return forward(self.net, self._outputs, x)[self._outputs[0].name]

    def _normal(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(normalize(images, self.preprocessing), np.float32)

    def _inputs(self, images: np.ndarray) -> Any:
        return self.torch.from_numpy(self._normal(images).transpose(0, 3, 1, 2).copy())

    @staticmethod
    def _batched(compute: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        parts = range(0, len(x), _BATCH)
        return np.concatenate([compute(x[start : start + _BATCH]) for start in parts])


def main(job: dict[str, Any]) -> None:
    """Explain every photo, `photos` (N, h, w, C), for its class in `classes`, by each method.

    Writes `METHOD/N` into the `.npz` called `output`.
    """
    require("torchvision")  # before anything that might load another LLVM
    full_precision("torch")
    explained = _Explained(job)
    results = {}
    for number, (photo, label) in enumerate(
        zip(np.load(job["photos"]), job["classes"], strict=True)
    ):
        for method in job["methods"]:
            report_progress(f"{method} of photo {number + 1}")
            compute = getattr(explained, method.replace("-", "_"))
            results[f"{method}/{number}"] = compute(photo, label)
    np.savez(job["output"], **results)


if __name__ == "__main__":
    enter_child(main)
