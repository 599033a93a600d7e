"""A check of any torch network against the Keras model that is made of its graph."""

from pathlib import Path

from keras_alexnet.core.children import Workers
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.record import read_record
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checks.inputs import input_sets
from porting.checks.parity import Found, Say, run_check
from porting.checks.request import CheckRequest, chosen_backends
from porting.checks.results import Check, ParityResult
from porting.conversion.network import Network, prepare
from porting.errors import UsageError
from porting.torch_side.targets import Target
from porting.weights.counterpart import Counterpart

# Of networks whose own preprocessing nobody knows, by their channels.
_PLAIN = {
    3: Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
    1: Preprocessing(mean=(0.5,), std=(0.25,), channels="L"),
}


def check_network(
    target: Target,
    request: CheckRequest,
    folder: Path,
    say: Say,
    workers: Workers | None,
    found: Found,
) -> ParityResult:
    """Compare any torch network with the Keras model that is made of its graph."""
    if request.reference is not None or request.transform_input is not None:
        raise UsageError(
            f"{target.text} is compared with itself; leave reference and transform_input out"
        )
    if request.sizes is not None and len(request.sizes) != 1:
        raise UsageError("a network that is followed has one size: name one, or none")
    chosen = chosen_backends(request)
    with Workers() as own:
        workers = workers or own
        say(f"following {target.text}")
        network = prepare(
            target,
            request.source,
            folder,
            size=request.sizes[0] if request.sizes else None,
            shapes=request.input_shapes,
            allow_pickle=request.allow_pickle,
            which=request.which,
            seed=request.seed,
            workers=workers,
            timeout=request.timeout,
        )
        preprocessing, size = network.preprocessing, network.size
        if size is None or (preprocessing is None and network.channels not in _PLAIN):
            shape = "x".join(map(str, network.shapes[0]))
            raise UsageError(
                f"{target.text} reads {shape} first; a check has photos and noise of 1 and 3 "
                "channels"
            )
        preprocessing = preprocessing or _PLAIN[network.channels].at_size(*size)
        candidate = request.candidate
        if candidate is None:
            say(f"building it on {chosen[0]}")
            candidate = build_file(
                network,
                folder,
                workers,
                backend=chosen[0],
                data_format=request.data_formats[0],
                timeout=request.timeout,
            )
        elif not candidate.is_file():
            raise ModelFileError(f"{candidate}: no such file")
        labels = (read_record(candidate) or {}).get("labels")
        return run_check(
            Check(
                network.reference,
                counterpart_in(candidate),
                network.torch_file(folder),
                candidate,
                inputs=tuple(
                    input_sets(
                        request.images if network.channels == 3 else [],
                        [size],
                        preprocessing,
                        noise=request.noise,
                        seed=request.seed,
                        beside=network.shapes[1:],
                    )
                ),
                backends=chosen,
                data_formats=tuple(request.data_formats),
                labels=tuple(labels or ()),
                timeout=request.timeout,
                plan=network.plan,
                gradients=request.gradients,
            ),
            folder,
            say,
            workers,
            found,
        )


def build_file(
    network: Network,
    folder: Path,
    workers: Workers,
    *,
    backend: str,
    data_format: str,
    timeout: float,
) -> Path:
    """Return a `.keras` file of a network, right or wrong, that a child builds on a backend."""
    candidate = folder / "candidate.keras"
    job = network.to_json() | {
        "output": str(candidate),
        "include_preprocessing": network.preprocessing is not None,
        "data_format": data_format,
    }
    workers.call("porting.conversion.networks", job, backend=backend, timeout=timeout)
    return candidate


def counterpart_in(candidate: Path) -> Counterpart:
    """Return what the record of a `.keras` file says of it and its torch network.

    Raises:
        UsageError: It says nothing.
    """
    record = read_record(candidate) or {}
    if "counterpart" not in record:
        raise UsageError(f"{candidate} was not converted from a torch network's graph")
    return Counterpart.from_json(record["counterpart"])
