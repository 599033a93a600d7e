"""Child process: int8 post-training quantisation of an OpenVINO file."""

import re
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child
from keras_alexnet.exporting.samples import load
from keras_alexnet.models.record import ModelInput


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Quantise `file` into `output`, with the image files `calibration`.

    Weights and activations of convolutions and dense layers become int8; input and outputs stay
    float32. Of the `sensitive` layers only those operations are spared that still have their
    layer's name: the converter fuses others into operations without one, which are quantised.
    """
    nncf, openvino = require("nncf"), require("openvino")
    (fields,) = job["inputs"].values()
    takes = ModelInput.from_json(fields)
    batch = job["batch_size"] or 1

    def read(path: str) -> Any:
        return load(takes, [path]).repeat(batch, axis=0)

    images = nncf.Dataset(job["calibration"], read)
    model = openvino.Core().read_model(job["file"])
    # Names of operations are MODEL/LAYER_NUMBER/OPERATION.
    patterns = [rf".*/{re.escape(name)}(_\d+)?/.*" for name in job["sensitive"]]
    quantized = nncf.quantize(
        model,
        images,
        subset_size=len(job["calibration"]),
        ignored_scope=nncf.IgnoredScope(patterns=patterns) if patterns else None,
    )
    openvino.save_model(quantized, job["output"], compress_to_fp16=False)
    return {"version": nncf.__version__}


if __name__ == "__main__":
    enter_child(quantize)
