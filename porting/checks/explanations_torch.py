"""Child process: explains scores of the torch network, as `keras_alexnet.Explainer` does Keras'.

The formulas are the same functions of arrays; the scores and gradients are torch's.
"""

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
        self._detail, self._channels_first = job["detail"], job["channels_first"]
        self._pair = job["pair"] and LayerPair.from_json(job["pair"])

    def grad_cam(self, photo: np.ndarray, labels: list[int]) -> np.ndarray:
        """Return the heat of the module's maps, (K, rows, columns)."""
        kept: list[Any] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> Any:
            kept.append(output)
            return output.clone()  # what follows may work in place

        hook = self.net.get_submodule(self._pair.module).register_forward_hook(keep)
        scores = self._scores(self._inputs(photo[None]))
        hook.remove()
        maps = self._as_keras(to_numpy(kept[0].detach()))
        slopes = [self._as_keras(each) for each in self._slopes(scores, kept[0], labels)]
        return attribution.grad_cam(maps, np.concatenate(slopes))

    def _as_keras(self, maps: np.ndarray) -> np.ndarray:
        """Return a module's maps as (N, h, w, C)."""
        if self._pair.transform is None:
            return nchw_to_nhwc(maps)
        maps = self._pair.transform.to_keras(maps)
        return nchw_to_nhwc(maps) if self._channels_first else maps

    def integrated_gradients(self, photo: np.ndarray, labels: list[int]) -> np.ndarray:
        """Return what each number of the photo adds, (K, h, w, C)."""

        def gradient(line: np.ndarray) -> np.ndarray:
            given = self._planes(line).requires_grad_()
            slopes = np.stack(self._slopes(self._scores(given), given, labels), axis=1)
            return np.moveaxis(slopes, -3, -1)  # (B, K, h, w, C)

        x, black = (self._normal(images[None])[0] for images in (photo, np.zeros_like(photo)))
        parts = attribution.integrated_gradients(
            gradient, x, black, steps=self._detail["steps"], batch_size=_BATCH
        )
        return parts[..., ::-1] if self.preprocessing.channels == "BGR" else parts

    def occlusion(self, photo: np.ndarray, labels: list[int]) -> np.ndarray:
        """Return how far the scores drop, (K, h, w)."""
        window, stride = self._detail["window"], self._detail["stride"]
        square = attribution.occluder(self.preprocessing, photo.shape[:2], window, stride)

        def score(images: np.ndarray) -> np.ndarray:
            with self.torch.no_grad():
                return to_numpy(self._scores(self._inputs(images))[:, labels])

        return attribution.occlusion(score, photo, batch_size=_BATCH, **square)

    def _slopes(self, scores: Any, by: Any, labels: list[int]) -> list[np.ndarray]:
        """Return the gradient of each class's scores (B,), in the shape of what they depend on."""
        return [
            to_numpy(self.torch.autograd.grad(scores[:, label].sum(), by, retain_graph=True)[0])
            for label in labels
        ]

    def _scores(self, x: Any) -> Any:
        return forward(self.net, self._outputs, x)[self._outputs[0].name]

    def _normal(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(normalize(images, self.preprocessing), np.float32)

    def _inputs(self, images: np.ndarray) -> Any:
        return self._planes(self._normal(images))

    def _planes(self, x: np.ndarray) -> Any:
        return self.torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def main(job: dict[str, Any]) -> None:
    """Explain every photo, `photos` (N, h, w, C), for its classes (N, K), by each method.

    Writes (N, K, ...) by the methods' names into the `.npz` called `output`.
    """
    require("torchvision")  # before anything that might load another LLVM
    full_precision("torch")
    explained = _Explained(job)
    results: dict[str, list[np.ndarray]] = {method: [] for method in job["methods"]}
    for number, (photo, labels) in enumerate(
        zip(np.load(job["photos"]), job["classes"], strict=True), 1
    ):
        for method, found in results.items():
            report_progress(f"{method} of photo {number}")
            found.append(getattr(explained, method.replace("-", "_"))(photo, labels))
    arrays: dict[str, Any] = {method: np.stack(found) for method, found in results.items()}
    np.savez(job["output"], **arrays)


if __name__ == "__main__":
    enter_child(main)
