"""Any torch classifier into a native Keras model, with the proof that both compute the same."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.children import Workers, enter_child
from keras_alexnet.core.files import check_output
from keras_alexnet.models.interface import named_outputs
from keras_alexnet.models.record import save_model
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checkpoints.download import fetch
from porting.checkpoints.files import read_checkpoint, sha256, to_numpy, write_checkpoint
from porting.checkpoints.mapped import MappedFile
from porting.conversion.provenance import graph_record
from porting.conversion.sources import is_a_name, missing
from porting.errors import GraphError, UsageError
from porting.graph.builder import Builder, Built
from porting.graph.plan import Plan
from porting.graph.reader import read
from porting.graph.torch_child import Proof
from porting.tolerances import TOLERANCES
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import Reference, in_inference
from porting.torch_side.targets import Target
from porting.torch_side.torchvision_zoo import WeightsInfo
from porting.weights.layouts import nchw_to_nhwc
from porting.weights.recognition import variables_of
from porting.weights.table import Size
from porting.weights.transfer import carry, fill, set_counterpart

# Of an image where neither the user nor torchvision says anything else.
_SIZE: Size = (224, 224)
_TIMEOUT = 900.0


@dataclass(frozen=True)
class Network:
    """A torch network that a child has followed and filled.

    Attributes:
        target: What it is.
        shape: Channels, height and width of its images.
        classes: How many logits it has.
        plan: The file of its plan.
        weights: The file of its weights, under its own keys.
        proof: The file of what torch computes.
        official: torchvision's name of its weights, or None.
        info: What torchvision says of these or, for a network of its own with other weights, of its
            default ones.
        which: As in `read_checkpoint`.
        allow_pickle: As in `read_checkpoint`.
        digest: SHA-256 of the weights' file, None where they come from none.
        aux_heads: Whether the weights have auxiliary heads of torchvision's.
        notes: What a user should know.
    """

    target: Target
    shape: tuple[int, int, int]
    classes: int
    plan: Path
    weights: Path
    proof: Path
    official: str | None = None
    info: WeightsInfo | None = None
    which: str | None = None
    allow_pickle: bool = False
    digest: str | None = None
    aux_heads: bool = False
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""
        return self.shape[1:]

    @property
    def reference(self) -> Reference:
        """The torch network itself, for a check to compare with."""
        return Reference(
            self.target.name,
            self.classes,
            self.aux_heads,
            self.official is not None,
            self.size,
            target=self.target.text,
        )

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What happens to photos before, where that is known."""
        if self.info is None:
            return None
        record = Preprocessing.from_record(self.info.preprocessing)
        return record if self.official else record.at_size(*self.size)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes, where the weights are torchvision's own."""
        return self.info.labels if self.official and self.info else None

    def to_json(self) -> dict[str, Any]:
        """Return it as the job of a child, which builds the model and saves it."""
        fields = dataclasses.asdict(self)
        return {name: str(v) if isinstance(v, Path) else v for name, v in fields.items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the network whose fields travelled as JSON."""
        given = {field.name: fields[field.name] for field in dataclasses.fields(cls)}
        given |= {name: Path(given[name]) for name in ("plan", "weights", "proof")}
        given |= {name: tuple(given[name]) for name in ("shape", "notes")}
        if (info := given["info"]) is not None:
            given["info"] = WeightsInfo(**{**info, "labels": tuple(info["labels"])})
        return cls(**{**given, "target": Target(**given["target"])})

    def torch_file(self, folder: Path) -> Path:
        """Return a file under the network's own keys: its weights', or a copy in `folder`."""
        if self.which is None and not self.allow_pickle:
            return self.weights
        path = folder / "chosen-weights.safetensors"
        write_checkpoint(path, self.arrays())
        return path

    def arrays(self) -> dict[str, np.ndarray]:
        """Return its weights by key."""
        return read_checkpoint(
            self.weights, allow_pickle=self.allow_pickle, which=self.which
        ).arrays

    def build(
        self,
        *,
        data_format: str | None = None,
        dtype: Any = None,
        include_preprocessing: bool = False,
    ) -> Built:
        """Return the Keras model, without weights.

        Raises:
            UsageError: Its preprocessing is to be included and not known.
            GraphError: An operation is used in a way that has no counterpart in Keras.
        """
        preprocessing = self.preprocessing if include_preprocessing else None
        if include_preprocessing and preprocessing is None:
            raise UsageError(
                f"nobody says how images of {self.target.text} are normalised; leave "
                "--preprocessing out"
            )
        return build(Plan.load(self.plan), data_format, dtype, preprocessing)


def build(
    plan: Plan,
    data_format: str | None = None,
    dtype: Any = None,
    preprocessing: Preprocessing | None = None,
) -> Built:
    """Return the Keras model of a plan, without weights; it normalises by `preprocessing`."""
    from keras_alexnet.models.builder import input_layers, resolve_data_format
    from keras_alexnet.models.initialization import weights_will_follow

    keras, data_format = load_keras(), resolve_data_format(data_format)
    _, (_, *lengths) = plan.input
    channels, *size = (None if dim.unknown else dim.size for dim in lengths)
    shape = (*size, channels) if data_format == "channels_last" else (channels, *size)
    # In float64 nothing may go through float32; other policies take images as they come.
    wide = dtype is not None and keras.dtype_policies.get(dtype).compute_dtype == "float64"
    image = keras.Input(shape, name="image", dtype="float64" if wide else None)
    with weights_will_follow():
        x = input_layers(image, data_format, preprocessing, transform_input=False)
        return Builder(plan, data_format, dtype).build(image, x)


def prepare(
    target: Target,
    source: str | Path | None,
    folder: Path,
    *,
    classes: int | None = None,
    shape: tuple[int, int, int] | None = None,
    size: tuple[int | None, int | None] | None = None,
    allow_pickle: bool = False,
    which: str | None = None,
    seed: int = 0,
    workers: Workers | None = None,
    timeout: float = _TIMEOUT,
) -> Network:
    """Let a child of torch build, fill and follow a network.

    Args:
        target: What is to be converted.
        source: A weights file, or the name of torchvision's weights; None for a function's own
            weights, and for lively seeded ones of torchvision's networks.
        folder: An existing folder for the child's files.
        classes: Number of classes; by default those of the weights, or the network's own.
        shape: Channels, height and width of the images.
        size: Height and width alone, of colour images; None in it for any.
        allow_pickle: As in `read_checkpoint`.
        which: As in `read_checkpoint`.
        seed: Of seeded weights.
        workers: Children to go on with; by default a new one, which ends with this.
        timeout: Seconds of silence that end the child.

    Raises:
        UsageError: The words name nothing, or contradict each other.
        CheckpointError: The weights cannot be read.
        TransferError: They do not fit the network.
        GraphError: The network cannot be converted.
        MissingDependencyError: torchvision is not installed.
    """
    path = None if source is None else Path(source)
    named = path is not None and target.torchvision is not None and is_a_name(path)
    if path is not None and not (named or path.is_file()):
        raise missing(path)
    official, info = None, None
    if target.torchvision is not None:
        info = torchvision_zoo.describe(target.torchvision, str(source) if named else "DEFAULT")
        if named:
            path = fetch(info.url)
    digest = None if path is None else sha256(path)
    if info is not None and digest is not None:
        official = info.name if named or digest.startswith(_promised_digest(info)) else None
    any_size = size is not None and None in size
    height, width = size or (None, None)
    if height is None or width is None:
        height, width = _size_of(info)
    shape = shape or (3, height, width)
    job = {
        "target": target.text,
        "path": None if path is None else str(path),
        "allow_pickle": allow_pickle,
        "which": which,
        "classes": classes,
        "shape": shape,
        "any_size": any_size,
        "official": official is not None,
        "lively": target.torchvision is not None,
        "seed": seed,
        "folder": str(folder),
    }
    with Workers() as own:
        answer = (workers or own).call("porting.graph.torch_child", job, timeout=timeout)
    return Network(
        target,
        shape,
        answer["classes"],
        folder / "plan.npz",
        folder / "weights.safetensors" if path is None else path,
        folder / "proof.npz",
        official,
        info,
        which,
        allow_pickle,
        digest,
        answer["aux_heads"],
        tuple(answer["notes"]),
    )


def _promised_digest(info: WeightsInfo) -> str:
    """Return the beginning of the SHA-256 that the name of torchvision's file holds."""
    return Path(info.url).stem.rpartition("-")[2]


def _size_of(info: WeightsInfo | None) -> Size:
    if info is None:
        return _SIZE
    height, width = info.preprocessing["crop_size"]
    return height, width


def convert_network(
    target: Target,
    source: str | Path | None,
    output: Path,
    *,
    labels: Sequence[str] | None = None,
    data_format: str | None = None,
    dtype: str | None = None,
    include_preprocessing: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Convert a torch network into a `.keras` file that is proven right, or not there.

    `options` are those of `prepare`; the others as for `convert`.

    Returns:
        The record that the file carries.

    Raises:
        PortingError: As for `prepare`; or the Keras model computes something else.
    """
    check_output(output)
    with tempfile.TemporaryDirectory(prefix="porting-") as name:
        network = prepare(target, source, Path(name), **options)
        return save_network(
            network,
            output,
            labels=labels,
            data_format=data_format,
            dtype=dtype,
            include_preprocessing=include_preprocessing,
        )


def save_network(
    network: Network,
    output: Path,
    *,
    labels: Sequence[str] | None = None,
    data_format: str | None = None,
    dtype: str | None = None,
    include_preprocessing: bool = False,
    proven: bool = True,
) -> dict[str, Any]:
    """Write a network that was prepared as a `.keras` file; all as in `convert_network`.

    It may be one that computes something else than torch's, unless it is to be `proven`.
    """
    if labels is None:
        labels = network.labels
    if labels is not None and len(labels) != network.classes:
        raise UsageError(f"{len(labels)} labels were given for {network.classes} classes")
    keep: dict[str, Any] = {
        "data_format": data_format,
        "include_preprocessing": include_preprocessing,
    }
    built, arrays = network.build(dtype="float32", **keep), network.arrays()
    forget = MappedFile(network.weights).forget
    gap = None
    if proven:
        preprocessing = network.preprocessing if include_preprocessing else None
        proof = Proof.load(network.proof)
        gap = prove(built, arrays, proof, preprocessing=preprocessing, forget=forget)
    else:
        fill(variables_of(built.model), built.counterpart, arrays, forget)
    if dtype not in (None, "float32"):
        built = network.build(dtype=dtype, **keep)
        fill(variables_of(built.model), built.counterpart, arrays, forget)
    beside = carry_along(built, arrays)
    record = graph_record(
        target=network.target.title,
        name=network.target.name,
        classes=network.classes,
        model=built.model,
        counterpart=built.counterpart,
        include_preprocessing=include_preprocessing,
        preprocessing=network.preprocessing,
        labels=labels,
        file=None if network.digest is None else network.weights,
        digest=network.digest,
        info=network.info if network.official else None,
        notes=network.notes,
        gap=gap,
    )
    save_model(built.model, output, record, beside)
    return record


def carry_along(built: Built, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep what no variable holds beside a model, and return what of it is not a counter."""
    carried = {e.key: arrays[e.key] for e in built.counterpart.carried if e.key in arrays}
    carry(built.model, carried)
    set_counterpart(built.model, built.counterpart)
    counters = {entry.key for entry in built.counterpart.carried if entry.counter}
    return {key: array for key, array in carried.items() if key not in counters}


def prove(
    built: Built,
    arrays: Mapping[str, np.ndarray],
    proof: Proof,
    *,
    preprocessing: Preprocessing | None = None,
    forget: Callable[[], None] = lambda: None,
) -> float:
    """Fill a model and compare its logits with torch's: for lively weights, then for its own.

    Args:
        built: The model, in float32; it keeps its own weights.
        arrays: These weights by key.
        proof: What torch computes.
        preprocessing: What the model does to its images first.
        forget: Called whenever a part of an array has been read.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        GraphError: The logits differ.
        TransferError: The weights do not fit.
    """
    variables, images, gaps = variables_of(built.model), proof.images, list[float]()
    if preprocessing is not None:
        images = _pixels_of(images, preprocessing)
    for weights, wanted in (({**arrays, **proof.changed}, proof.lively), (arrays, proof.logits)):
        fill(variables, built.counterpart, weights, forget)
        found = logits_of(built.model, images, built.data_format)
        gaps.append(gap := relative_gap(found, wanted))
        if not gap <= TOLERANCES["logits"].limit:
            raise GraphError(
                f"the Keras model's logits differ from torch's by {gap:.1e} of their scale "
                f"(at most {TOLERANCES['logits'].limit:g} is right), so nothing was written; "
                "python -m porting check shows the first layer that differs"
            )
    return max(gaps)


def relative_gap(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number that is wanted."""
    # A fresh vision transformer's logits are all 0.
    return float(np.abs(found - wanted).max() / (np.abs(wanted).max() or 1.0))


def _pixels_of(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return the pixels that a preprocessing turns into these images, (N, C, H, W)."""
    mean, std = (
        np.reshape(values, (-1, 1, 1)) for values in (preprocessing.mean, preprocessing.std)
    )
    return (images * std + mean) * preprocessing.scale


def logits_of(model: Any, images: np.ndarray, data_format: str) -> np.ndarray:
    """Return the main output of a model in a data format for images (N, C, H, W)."""
    placed = images if data_format == "channels_first" else nchw_to_nhwc(images)
    outputs = model.predict_on_batch(np.ascontiguousarray(placed, np.float32))
    return np.asarray(next(iter(named_outputs(outputs).values())), np.float32)


def from_torch(
    module: Any, example: Any, *, data_format: str | None = None, dtype: str | None = None
) -> Any:
    """Return a torch module as a native Keras model with its weights.

    The model consists of stock layers and `keras.ops`; it takes any number of images, can be
    trained, and opens anywhere once it is saved. `to_state_dict` turns its weights back into the
    module's. Layers are called after the modules (`layer1_0_conv1`).

    Args:
        module: A `torch.nn.Module` of one batch of images (N, C, H, W) that returns logits
            (N, classes). It stays as it is.
        example: Images, or one, (N, C, H, W), as the module takes them.
        data_format: `"channels_last"` or `"channels_first"`, by default Keras' setting.
        dtype: Keras dtype policy, by default Keras' setting.

    Returns:
        A functional `keras.Model`. Its logits were compared with the module's.

    Raises:
        GraphError: The module cannot be converted, or the model computed something else.

    Example:
        >>> import torch
        >>> module = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        ...     torch.nn.Linear(8 * 6 * 6, 10),
        ... )
        >>> from_torch(module, torch.zeros(1, 3, 8, 8)).output_shape
        (None, 10)
    """
    torch = require("torch")
    if example.shape[0] < 2:  # a batch of one would be taken for a constant
        example = torch.cat([example, example])
    if not example.any():  # which would prove little
        example = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    plan = read(module, example)
    with in_inference(module):
        proof = Proof.of(module, example)
    arrays = {key: to_numpy(value) for key, value in module.state_dict().items()}
    built = build(plan, data_format, "float32")
    prove(built, arrays, proof)
    if dtype not in (None, "float32"):
        built = build(plan, data_format, dtype)
        fill(variables_of(built.model), built.counterpart, arrays)
    carry_along(built, arrays)
    return built.model


def main(job: dict[str, Any]) -> None:
    """Build and save a network in a child: the job is `Network.to_json`, and `save_network`'s."""
    save_network(
        Network.from_json(job),
        Path(job["output"]),
        data_format=job["data_format"],
        include_preprocessing=job["include_preprocessing"],
        proven=False,  # whatever it computes is to be looked at
    )


if __name__ == "__main__":
    enter_child(main)
