"""Where weights come from: a file or a name, found, downloaded, read and checked."""

from dataclasses import dataclass, replace
from pathlib import Path

from keras_alexnet.core.backend import installed
from keras_alexnet.errors import listed
from keras_alexnet.specs import SPECS, find_spec
from keras_alexnet.specs.schema import ModelSpec
from keras_alexnet.specs.shapes import too_small
from porting.checkpoints.download import fetch, fetch_from_hub
from porting.checkpoints.files import Checkpoint, read_checkpoint, sha256, write_checkpoint
from porting.checkpoints.readers import READERS
from porting.errors import CheckpointError, TransferError, UsageError
from porting.torch_side import torchvision_zoo
from porting.torch_side.torchvision_zoo import OFFICIAL_HASHES
from porting.torch_side.weights_info import WeightsInfo
from porting.torch_side.zoos import Ask, describe
from porting.weights.dialects import disagreements, identify, translate
from porting.weights.problems import list_problems
from porting.weights.spec_tables import Fit, fit, weight_map
from porting.weights.table import Size
from porting.weights.transfer import suggest

# What the options are for, wherever a source is opened.
TRANSFORM_INPUT = (
    "Whether the source network applies torchvision's transform_input. By default as torchvision "
    "does: yes for its pretrained GoogLeNet, otherwise no."
)
INPUT_SHAPE = (
    "CHANNELSxHEIGHTxWIDTH of a FILE.py:FUNCTION, by default 3x224x224; of one with several inputs "
    "the shape of each, such as 3x224x224,12."
)
ALLOW_PICKLE = "Read a .npy dictionary, which is a pickle."
WHICH = (
    "Which weights of a file that holds several: model, ema (averages), or the name of an entry or "
    "of a prefix."
)
_MOST_SAID = 5  # contradictions that a message lists


@dataclass(frozen=True)
class Source:
    """Weights of an architecture, which fit it completely, and the SHA-256 of their file.

    `info` is what torchvision says of them, where they are its own. `transform_input` says whether
    the source network applies torchvision's.
    """

    spec: ModelSpec
    checkpoint: Checkpoint
    fit: Fit
    digest: str
    info: WeightsInfo | None
    transform_input: bool

    @property
    def path(self) -> Path:
        """The weights file."""
        return self.checkpoint.path

    @property
    def classes(self) -> int:
        """Number of classes of the file's head."""
        return self.fit.classes or 0

    def torch_file(self, folder: Path) -> Path:
        """Return a file under the architecture's own keys: the source's, or a copy in `folder`."""
        if not self.checkpoint.translated and self.checkpoint.which is None:
            return self.path
        path = folder / f"{self.spec.name}-weights.safetensors"
        write_checkpoint(path, self.checkpoint.arrays)
        return path


def open_source(
    name: str,
    source: str | Path,
    *,
    classes: int | None = None,
    transform_input: bool | None = None,
    size: Size | None = None,
    aux_heads: bool = True,
    allow_pickle: bool = False,
    which: str | None = None,
    ask: Ask | None = None,
) -> Source:
    """Find, download if needed, read and check the weights of an architecture.

    Args:
        name: Architecture.
        source: A weights file, or the name of torchvision weights such as `IMAGENET1K_V1`.
        classes: Number of classes that the file must have, or None for whatever it has.
        transform_input: Whether the source network applies `transform_input`. None stands for
            torchvision's own rule: yes for its pretrained weights, otherwise no.
        size: Height and width of the images in pixels, which the first dense layer may depend on;
            by default the architecture's.
        aux_heads: Whether auxiliary heads in the file are wanted; otherwise they need not fit the
            size.
        allow_pickle: As in `read_checkpoint`.
        which: As in `read_checkpoint`.
        ask: As in `describe`.

    Raises:
        UnknownModelError: No model has this name.
        CheckpointError: The file cannot be read.
        DownloadError: The weights cannot be downloaded.
        TransferError: The file does not hold this architecture.
        UsageError: The arguments contradict the file or name nothing.
    """
    spec = find_spec(name)
    if transform_input and not spec.transform_input:
        raise UsageError(f"{name} knows no transform_input; leave it out")
    info = None
    path = Path(source)
    if not path.is_file():
        if not is_a_name(path):
            raise missing(path)
        if name not in torchvision_zoo.NETWORKS:
            raise UsageError(
                f"{path}: no such file, and {name} has no weights to download; known suffixes: "
                f"{', '.join(READERS)}"
            )
        info = describe("torchvision", name, str(source), ask=ask)
        path = downloaded(info)
    content = read_checkpoint(path, allow_pickle=allow_pickle, which=which)
    checkpoint = translate(content, spec, size=size)
    heads = tuple(f"{aux.name}." for aux in spec.aux)
    shapes = {
        k: shape for k, shape in checkpoint.shapes.items() if aux_heads or not k.startswith(heads)
    }
    found = fit(spec, shapes, size=size)
    if not found.problems and (said := disagreements(content, spec)):
        better = identify(content)[0].name
        way = (
            f"this is {better}: name that"
            if not disagreements(content, SPECS[better])
            else ("it is none of the known networks")
        )
        raise TransferError(
            "\n".join(
                [
                    f"{path} has the names and shapes of {name}, and says otherwise of its layers:",
                    *(f"  {sentence}" for sentence in said[:_MOST_SAID]),
                    f"By its own description {way}.",
                ]
            )
        )
    if size is not None and (problem := too_small(spec, size, aux_heads=found.aux_heads)):
        raise UsageError(problem)
    if found.problems:
        problems = {
            "missing": found.missing,
            "wrong shape": found.wrong_shape,
            "unexpected": found.unexpected,
        }
        lines = [
            f"{path} does not hold {name}:",
            *list_problems(problems),
            suggest(translate(content, SPECS[identify(content)[0].name]).shapes),
            *_hint_at_size(spec, found, size),
        ]
        raise TransferError("\n".join(lines))
    if classes is not None and classes != found.classes:
        raise UsageError(
            f"{path}: its head has {found.classes} classes, not {classes}; leave the class count "
            "out to take it from the file"
        )
    digest = sha256(path)
    weights = _official_name(name, digest)
    if info is None and weights is not None and installed("torchvision"):
        info = describe("torchvision", name, weights, ask=ask)
    if transform_input is None:
        official = info is not None or weights is not None
        transform_input = official and spec.transform_input
    dropped = len(shapes) < len(checkpoint.shapes)
    found = replace(found, aux_heads=found.aux_heads or dropped)
    return Source(spec, checkpoint, found, digest, info, transform_input)


def _official_name(name: str, digest: str) -> str | None:
    """Return the name of torchvision's weights whose file has this SHA-256, or None."""
    known = OFFICIAL_HASHES.get(name, {}).items()
    return next((weights for prefix, weights in known if digest.startswith(prefix)), None)


def _hint_at_size(spec: ModelSpec, found: Fit, size: Size | None) -> list[str]:
    """Return a line for files whose only fault is the shape of a layer that the images decide."""
    if found.missing or found.unexpected or len(found.wrong_shape) != 1:
        return []
    key = found.wrong_shape[0].partition(":")[0]
    height, width = size or spec.default_size
    table, larger = (
        {entry.key: entry for entry in weight_map(spec, spec.classes, size=each)}
        for each in ((height, width), (height + 64, width + 64))
    )
    if key == next(iter(table)):
        return ["Its first layer reads images of other channels: grey ones have 1, colours 3."]
    if table[key] == larger[key]:
        return []
    return [
        f"Its first dense layer may belong to images of another size than {height} x {width}: "
        "name theirs (--input-size, for a check --sizes)."
    ]


def downloaded(info: WeightsInfo) -> Path:
    """Return the local copy of a library's weights, downloading it if there is none.

    Raises:
        DownloadError: It cannot be had.
        UsageError: Nobody offers it.
    """
    if info.repository is not None and info.file is not None:
        return fetch_from_hub(info.repository, [info.file])
    if info.url is None:
        raise UsageError(f"nobody offers the weights {info.name!r} for download; name a file")
    return fetch(info.url)


def is_a_name(path: Path) -> bool:
    """Return whether a source is no file, but may be the name of a library's weights."""
    is_a_place = path.suffix.lower() in READERS or len(path.parts) > 1 or path.exists()
    return not is_a_place


def missing(path: Path) -> CheckpointError:
    """Return what to say of a path that is no file."""
    if not path.is_dir():
        return CheckpointError(f"{path}: no such file")
    if (path / ".metadata").is_file():
        return CheckpointError(
            f"{path}: a folder of torch.distributed.checkpoint; make one file of it with: python "
            f"-m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth"
        )
    inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in READERS)
    hint = f", such as {listed(inside, 3)} in it" if inside else ""
    return CheckpointError(f"{path}: a folder; name a file{hint}")
