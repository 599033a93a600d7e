"""PyTorch as the engine: one step after the other, each value forgotten behind its last reader."""

from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.optimizing.engines.torch_steps import MAKERS, PACKED, OnTorch
from keras_alexnet.optimizing.plan import Plan

torch = require("torch")


class TorchEngine(OnTorch):
    """A plan on PyTorch."""

    fixed_batches = False

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        super().__init__(plan)
        # What torch.compile makes of a convolution on a CPU; no public function leads to it.
        packing = (
            self.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
            and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
            and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        )
        makers = MAKERS | (PACKED if packing else {})
        with torch.inference_mode():
            self._steps = [
                (makers[type(each)](each, self), each.inputs) for each in plan.operations
            ]
        self._outputs = plan.outputs
        last_read = {value: i for i, (_, inputs) in enumerate(self._steps) for value in inputs}
        for value in keras.tree.flatten(plan.outputs):
            last_read.pop(value, None)
        self._last = [
            [value for value, last in last_read.items() if last == i]
            for i in range(len(self._steps))
        ]

    def __call__(self, x: Any) -> Any:
        """Run a batch, an array or tensor in the model's layout; return tensors in that."""
        with torch.inference_mode():
            values = {0: self.given(x)}
            for i, (step, inputs) in enumerate(self._steps):
                values[i + 1] = step(*[values[j] for j in inputs])
                for value in self._last[i]:
                    del values[value]
            return self.returned(values, self._outputs)
