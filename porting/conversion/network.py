"""A torch network that a child of torch has built, filled and followed, as files."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.children import Workers
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checkpoints.download import fetch_from_hub, promised_digest
from porting.checkpoints.files import read_checkpoint, sha256, write_checkpoint
from porting.checkpoints.states import under_own_names
from porting.conversion.sources import downloaded, is_a_name, missing
from porting.errors import UsageError
from porting.graph.builder import Built, build
from porting.graph.plan import Plan
from porting.graph.torch_child import Proof
from porting.torch_side.reference_nets import Reference
from porting.torch_side.targets import Target
from porting.torch_side.timm_zoo import CONFIG, WEIGHTS_FILES, in_folder, repository_of, weights_in
from porting.torch_side.weights_info import WeightsInfo
from porting.torch_side.zoos import describe
from porting.weights.table import Shape, Size

# Of an image where neither the user nor torchvision says anything else.
_SIZE: Size = (224, 224)
_TIMEOUT = 900.0
_CHILD = "porting.graph.torch_child"
_RENAMED = (
    "its keys were not the network's: timm's own function for such files has changed them, or "
    "parts were left out, such as a classifier; the way back gives those that the network has"
)


@dataclass(frozen=True)
class Network:
    """A torch network that a child has followed and filled.

    Attributes:
        target: What it is.
        shapes: Channels, height and width of its images; of several inputs the shape of each.
        classes: How many classes an image, or each pixel, has; None for other outputs.
        plan: The file of its plan.
        weights: The file of its weights, under its own keys.
        proof: The file of what torch computes.
        official: Its library's name of its weights, or None.
        info: What the library says of these or, for a network of its own with other weights, of its
            default ones.
        which: As in `read_checkpoint`.
        allow_pickle: As in `read_checkpoint`.
        digest: SHA-256 of the weights' file, None where they come from none.
        aux_heads: Whether the weights have auxiliary heads of torchvision's.
        notes: What a user should know.
    """

    target: Target
    shapes: tuple[Shape, ...]
    classes: int | None
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
    def channels(self) -> int:
        """The channels of its first input."""
        return self.shapes[0][0]

    @property
    def size(self) -> Size | None:
        """Height and width of the images in pixels; None where its first input is none."""
        _, *size = self.shapes[0]
        return (size[0], size[1]) if len(size) == 2 else None

    @property
    def tells_classes(self) -> bool:
        """Whether its main output is scores of an image's classes, (N, classes)."""
        main = next(iter(Proof.load(self.proof).outputs.values()))
        return self.classes is not None and main.ndim == 2

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
        if self.info is None or self.info.preprocessing is None or self.size is None:
            return None
        return Preprocessing.from_record(self.info.preprocessing).at_size(*self.size)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes, where the weights are the library's own and have as many."""
        labels = self.info.labels if self.official is not None and self.info else None
        return labels if labels is not None and len(labels) == self.classes else None

    def to_json(self) -> dict[str, Any]:
        """Return it as the job of a child, which builds the model and saves it."""
        fields = dataclasses.asdict(self)
        return {name: str(v) if isinstance(v, Path) else v for name, v in fields.items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the network whose fields travelled as JSON."""
        given = {field.name: fields[field.name] for field in dataclasses.fields(cls)}
        given |= {name: Path(given[name]) for name in ("plan", "weights", "proof")}
        given |= {"shapes": tuple(map(tuple, given["shapes"])), "notes": tuple(given["notes"])}
        if (info := given["info"]) is not None:
            given["info"] = WeightsInfo.from_json(info)
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
        content = read_checkpoint(self.weights, allow_pickle=self.allow_pickle, which=self.which)
        return dict(under_own_names(content.arrays, Plan.load(self.plan).keys))

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


def prepare(
    target: Target,
    source: str | Path | None,
    folder: Path,
    *,
    classes: int | None = None,
    shapes: Sequence[Shape] | None = None,
    size: tuple[int | None, int | None] | None = None,
    allow_pickle: bool = False,
    which: str | None = None,
    seed: int = 0,
    workers: Workers | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    timeout: float = _TIMEOUT,
) -> Network:
    """Let a child of torch build, fill and follow a network.

    Args:
        target: What is to be converted.
        source: A weights file, or the name of its library's weights; None for a function's own
            weights, those of a folder of timm's, and for lively seeded ones of other networks.
        folder: An existing folder for the child's files.
        classes: Number of classes; by default those of the weights, or the network's own.
        shapes: Channels, height and width of the images; of several inputs the shape of each.
        size: Height and width alone, of colour images; None in it for any.
        allow_pickle: As in `read_checkpoint`.
        which: As in `read_checkpoint`.
        seed: Of seeded weights.
        workers: Children to go on with; by default a new one, which ends with this.
        meanwhile: What this process has to do anyway, while the child imports torch.
        timeout: Seconds of silence that end the child.

    Raises:
        UsageError: The words name nothing, or contradict each other.
        CheckpointError: The weights cannot be read.
        TransferError: They do not fit the network.
        GraphError: The network cannot be converted.
        MissingDependencyError: torchvision is not installed.
    """
    if repository := repository_of(target.known_as):
        fetch_from_hub(repository, [CONFIG])
        weights = fetch_from_hub(repository, WEIGHTS_FILES)
        target = target.at(in_folder(weights.parent))
    path = None if source is None else Path(source)
    named = path is not None and target.library is not None and is_a_name(path)
    if path is not None and not (named or path.is_file()):
        raise missing(path)
    with contextlib.ExitStack() as stack:
        workers = workers or stack.enter_context(Workers())
        official, info = None, None
        ask = partial(workers.call, _CHILD, timeout=timeout, meanwhile=meanwhile)
        if target.library is not None:
            chosen = str(source) if named else "DEFAULT"
            info = describe(target.library, target.known_as, chosen, ask=ask)
            if named:
                path = downloaded(info)
            elif path is None and target.folder is not None:
                path, named = weights_in(target.folder), True
        digest = None if path is None else sha256(path)
        if info is not None and digest is not None:
            promised = promised_digest(info.url or "")
            known = promised is not None and digest.startswith(promised)
            official = info.name if named or known else None
        any_size = size is not None and None in size
        height, width = size or (None, None)
        channels = info.shape[0] if info else 3
        if height is None or width is None:
            height, width = info.shape[1:] if info else _SIZE
        shapes = tuple(shapes or [(channels, height, width)])
        job = {
            "target": target.text,
            "path": None if path is None else str(path),
            "allow_pickle": allow_pickle,
            "which": which,
            "classes": classes,
            "shapes": shapes,
            "any_size": any_size,
            "official": official is not None,
            "lively": target.library is not None,
            "seed": seed,
            "folder": str(folder),
        }
        answer = ask(job)
        own = path is not None and not answer["renamed"]  # the user's file as it is
        return Network(
            target,
            shapes,
            answer["classes"],
            folder / "plan.npz",
            path if own and path else folder / "weights.safetensors",
            folder / "proof.npz",
            official,
            info,
            which if own else None,
            allow_pickle and own,
            digest,
            answer["aux_heads"],
            (*answer["notes"], *([_RENAMED] if answer["renamed"] and path else [])),
        )
