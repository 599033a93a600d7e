"""Child process: one network of a coverage on one backend."""

from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.errors import one_line
from keras_alexnet.models.interface import is_channels_first
from porting.checks.network_check import counterpart_in
from porting.checks.precision import full_precision
from porting.conversion.convert import load_model
from porting.conversion.network import Network
from porting.conversion.networks import largest_gap, outputs_of, save_network
from porting.graph.builder import Built
from porting.graph.torch_child import Proof
from porting.weights.recognition import variables_of
from porting.weights.transfer import fill, to_state_dict


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Write the file where that is asked for, and compare what Keras computes with torch's."""
    keras = load_keras()
    backend = keras.backend.backend()
    full_precision(backend)
    if backend == "jax":
        # Compiled for one batch: the compiler's optimisation would take most of the time.
        require("jax").config.update("jax_disable_most_optimizations", True)
    network, file = Network.from_json(job), Path(job["output"])
    proof, arrays = Proof.load(network.proof), network.arrays()
    if job["write"]:
        save_network(network, file, data_format=job["data_formats"][0], proven=False)
    report_progress("opening the file")
    model = keras.saving.load_model(file)  # nothing of ours
    own = "channels_first" if is_channels_first(model) else "channels_last"
    found: dict[str, float | str] = {}
    for data_format in job["data_formats"]:
        report_progress(data_format)
        try:
            if data_format == own:
                variant = Built(model, counterpart_in(file), data_format)
            else:
                variant = network.build(data_format=data_format)
                fill(variables_of(variant.model), variant.counterpart, arrays)
            outputs = outputs_of(variant, *proof.inputs)
        except Exception as error:  # this format cannot be computed here; the error is the proof
            found[data_format] = one_line(error, named=True)
            continue
        found[data_format] = largest_gap(outputs, proof.outputs)
    answer: dict[str, Any] = {"found": found}
    if job["write"]:
        back = to_state_dict(load_model(file), framework="numpy")
        kinds = [type(operation).__name__ for operation in model.operations]
        answer |= {
            "transposes": kinds.count("Transpose"),
            "round_trip": back.keys() == arrays.keys()
            and all(
                back[key].dtype == array.dtype
                and back[key].shape == array.shape
                and back[key].tobytes() == array.tobytes()
                for key, array in arrays.items()
            ),
        }
    del model, variant
    keras.backend.clear_session()
    return answer


if __name__ == "__main__":
    enter_child(main)
