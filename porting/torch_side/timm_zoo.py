"""timm's networks and their weights. The only module that imports timm.

Its functions import it where they are called; a process that holds TensorFlow asks `zoos`.
"""

import hashlib
import json
import math
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.specs.preprocessing import INTERPOLATIONS
from porting.checkpoints.files import as_tensors, to_numpy
from porting.errors import UsageError
from porting.torch_side.initialisation import quick_initialisation
from porting.torch_side.timm_families import FAMILIES
from porting.torch_side.weights_info import WeightsInfo, unknown_network
from porting.weights.table import Size

# What timm puts in front of a folder, and of a repository of the Hugging Face hub.
_FOLDER, _HUB = "local-dir:", "hf-hub:"
# What lies in these: their description, and one of these files of weights.
CONFIG = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_ADDRESS = "https://huggingface.co/"


def check_name(name: str) -> str:
    """Return a name of timm's; that of a folder, `local-dir:FOLDER`, with its absolute path.

    Raises:
        UsageError: There is no such folder, or not all in it that timm's have.
    """
    folder = folder_of(name)
    if folder is None:
        return name
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{folder}: no folder with a {CONFIG} of timm's in it")
    weights_in(folder)
    return f"{_FOLDER}{folder.resolve()}"


def folder_of(name: str) -> Path | None:
    """Return the folder of `local-dir:FOLDER`, None for other names."""
    return Path(name.removeprefix(_FOLDER)) if name.startswith(_FOLDER) else None


def repository_of(name: str) -> str | None:
    """Return the repository `USER/NAME` of `hf-hub:USER/NAME`, None for other names."""
    return name.removeprefix(_HUB) if name.startswith(_HUB) else None


def in_folder(folder: Path) -> str:
    """Return timm's name of what a folder holds."""
    return f"{_FOLDER}{folder}"


def weights_in(folder: Path) -> Path:
    """Return the file of weights in a folder.

    Raises:
        UsageError: There is none.
    """
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{folder}: none of {', '.join(WEIGHTS_FILES)} in it")


def names(pattern: str) -> list[str]:
    """Return the names that match a pattern such as `resnet*`; for `*`, one of each family."""
    timm = require("timm")
    if pattern == "*":
        modules = timm.list_modules()
        return [FAMILIES.get(each) or timm.list_models(module=each)[0] for each in modules]
    return list(timm.list_models(pattern))


def has_aux_heads(name: str, keys: Collection[str]) -> bool:
    """Return whether weights of these keys are of a network with auxiliary heads: timm has none."""
    return False


def build_network(
    name: str,
    *,
    classes: int | None = None,
    size: Size | None = None,
    official: bool = False,
    aux_heads: bool = False,
) -> Any:
    """Return a network of timm's with unspecified weights, in inference mode.

    Args:
        name: What `timm.create_model` calls it.
        classes: Number of classes, 0 for pooled features; by default the network's own.
        size: Height and width of the images, for networks whose weights depend on it.
        official: Changes nothing.
        aux_heads: Changes nothing.

    Raises:
        UsageError: timm has no such network, or not with these options.
    """
    return _create(name, size, {} if classes is None else {"num_classes": classes})


def features_of(net: Any, name: str, size: Size | None) -> Any:
    """Return timm's network of a whole network's maps, with its weights, in inference mode.

    Args:
        net: The whole network.
        name: What `timm.create_model` calls it.
        size: Height and width of the images, for networks whose weights depend on it.

    Raises:
        UsageError: timm has no maps of it.
    """
    state = dict(net.state_dict())
    # Wherever its configuration says that weights lie, these are taken.
    overlay = {"state_dict": state, "source": ""}
    options = {"features_only": True, "pretrained": True, "pretrained_cfg_overlay": overlay}
    made = _create(name, size, options)
    known = {_content(value) for value in state.values()}
    if strange := [k for k, value in made.state_dict().items() if _content(value) not in known]:
        raise UsageError(
            f"timm:{name}: its features have other weights than it, {strange[0]} first"
        )
    return made


def _content(tensor: Any) -> tuple[tuple[int, ...], bytes]:
    return tuple(tensor.shape), hashlib.sha256(to_numpy(tensor).tobytes()).digest()


def _create(name: str, size: Size | None, options: Mapping[str, Any]) -> Any:
    """Return a network of timm's in inference mode."""
    timm = require("timm")
    sized = size is not None and size != tuple(_config(name).input_size[1:])
    with quick_initialisation():
        for more in [{"img_size": size}, {}] if sized else [{}]:
            try:
                return timm.create_model(name, **options, **more).eval()
            except TypeError as error:
                if not (more and "img_size" in str(error)):  # only some networks take a size
                    raise
            except (RuntimeError, ValueError, AssertionError) as error:
                raise UsageError(f"timm:{name} cannot be built: {error}") from error
    raise AssertionError  # the last attempt returns or raises


def info(name: str, weights: str) -> WeightsInfo:
    """Return what timm says of weights.

    `weights` is the tag behind the dot of a name in `timm.list_pretrained()`, that whole name, or
    `"DEFAULT"`: those that the name itself has, or timm's first.

    Raises:
        UsageError: timm knows no such network or weights.
    """
    config = _config(name, weights)
    return WeightsInfo(
        name=config.tag or "",
        url=config.url or (f"{_HUB_ADDRESS}{config.hf_hub_id}" if config.hf_hub_id else None),
        labels=_labels(config),
        metrics={},
        preprocessing=_preprocessing(config),
        shape=tuple(config.input_size),
        repository=config.hf_hub_id,
        file=config.hf_hub_filename or WEIGHTS_FILES[0],
    )


def _config(name: str, weights: str = "DEFAULT") -> Any:
    """Return timm's own record of weights, a `PretrainedCfg`."""
    timm = require("timm")
    if (folder := folder_of(name)) is not None:
        return _config_in(folder)
    architecture, own = timm.models.split_model_name_tag(name)
    if not timm.is_model(architecture):
        raise unknown_network("timm", architecture, timm.list_models())
    known = timm.models.get_arch_pretrained_cfgs(architecture)  # by NAME.TAG
    tag = weights.removeprefix(f"{architecture}.") if weights != "DEFAULT" else own
    if tag and f"{architecture}.{tag}" not in known:
        tags = ", ".join(each.removeprefix(f"{architecture}.") for each in known)
        raise UsageError(
            f"timm has no weights {tag!r} of {architecture}, and there is no such file. "
            f"Known names: {tags}"
        )
    return timm.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)


def _config_in(folder: Path) -> Any:
    file = folder / CONFIG
    try:
        content = json.loads(file.read_text())
        config = dict(content.get("pretrained_cfg", content))
        config |= {key: content[key] for key in ("num_classes", *_LABELS) if key in content}
        kind = require("timm").models.PretrainedCfg
        known = {key: value for key, value in config.items() if key in kind.__dataclass_fields__}
        if "architecture" not in content:
            raise UsageError(f"{file}: not timm's, which names an architecture")
        return kind(**known)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{file}: no configuration of timm's ({error})") from error


_LABELS = ("label_names", "label_descriptions")


def _labels(config: Any) -> tuple[str, ...] | None:
    """Return the names of the classes, if timm or the configuration knows them."""
    names, texts = config.label_names, config.label_descriptions or {}
    if names is not None:
        return tuple(texts.get(name, name) for name in names)
    data = require("timm.data")
    subset = data.infer_imagenet_subset(config.to_dict())
    if subset is None:
        return None
    return tuple(data.ImageNetInfo(subset).label_descriptions())


def _preprocessing(config: Any) -> dict[str, Any] | None:
    """Return what timm's evaluation transform does, as the fields of a `Preprocessing`.

    That is None where it puts borders around (timm/data/transforms_factory.py, `crop_mode`), which
    no record here says.
    """
    data = require("timm.data").resolve_data_config({}, pretrained_cfg=config.to_dict())
    channels, *size = data["input_size"]
    square = size[0] == size[1] and data["crop_mode"] in ("center", "squash")
    if not square or channels not in (1, 3) or data["interpolation"] not in INTERPOLATIONS:
        return None
    return {
        "resize_size": math.floor(size[0] / data["crop_pct"]),
        "crop_size": size,
        "mean": list(data["mean"])[:channels],
        "std": list(data["std"])[:channels],
        "channels": "RGB" if channels == 3 else "L",
        "interpolation": data["interpolation"],
        "squash": data["crop_mode"] == "squash",
    }


def adapted(net: Any, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return weights under the keys that a network of timm's has today.

    Where they do not fit as they are, timm's own function for weights of its authors' or of older
    versions changes them, and a classifier that the network has not is left out.
    """
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}

    def fits(found: Mapping[str, Any]) -> bool:
        return {key: tuple(value.shape) for key, value in found.items()} == wanted

    if fits(arrays):
        return arrays
    if getattr(net, "num_classes", None) == 0:
        named = net.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
        arrays = {key: array for key, array in arrays.items() if not key.startswith(heads)}
        if fits(arrays):
            return arrays
    change = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if change is None:
        return arrays
    try:
        changed = change(as_tensors(arrays), net)
    except Exception:  # whatever it meets in weights that are none of its own
        return arrays
    changed = {key: to_numpy(value) for key, value in changed.items()}
    return changed if fits(changed) else arrays
