"""PyTorch weights into Keras models and back, with proof that both compute the same.

Names are imported on first use, and functions that build models import Keras when they are called,
so that reading and comparing files needs no backend. May import all of `keras_alexnet`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from porting.checkpoints.files import (
        Checkpoint as Checkpoint,
        read_checkpoint as read_checkpoint,
        write_checkpoint as write_checkpoint,
    )
    from porting.checks.check import CheckRequest as CheckRequest, check as check
    from porting.checks.report import write_report as write_report
    from porting.checks.results import ParityResult as ParityResult
    from porting.conversion.convert import (
        convert as convert,
        export as export,
        from_torchvision as from_torchvision,
        load_model as load_model,
    )
    from porting.conversion.inspection import diff as diff, inspect as inspect
    from porting.errors import (
        CheckpointError as CheckpointError,
        DownloadError as DownloadError,
        PortingError as PortingError,
        TransferError as TransferError,
        UsageError as UsageError,
    )
    from porting.tolerances import TOLERANCES as TOLERANCES, Tolerance as Tolerance
    from porting.torch_side.seeded import seeded_state_dict as seeded_state_dict
    from porting.torch_side.torch_model import build_torch as build_torch
    from porting.training_checks.check import (
        TrainingRequest as TrainingRequest,
        check_training as check_training,
    )
    from porting.training_checks.results import TrainingResult as TrainingResult
    from porting.weights.counterpart import Counterpart as Counterpart
    from porting.weights.transfer import (
        load_state_dict as load_state_dict,
        to_state_dict as to_state_dict,
    )

# Module -> the names in it that are public here.
_HOMES = {
    "checkpoints.files": "Checkpoint read_checkpoint write_checkpoint",
    "checks.check": "CheckRequest check",
    "checks.report": "write_report",
    "checks.results": "ParityResult",
    "conversion.convert": "convert export from_torchvision load_model",
    "conversion.inspection": "diff inspect",
    "errors": "CheckpointError DownloadError PortingError TransferError UsageError",
    "tolerances": "TOLERANCES Tolerance",
    "torch_side.seeded": "seeded_state_dict",
    "torch_side.torch_model": "build_torch",
    "training_checks.check": "TrainingRequest check_training",
    "training_checks.results": "TrainingResult",
    "weights.counterpart": "Counterpart",
    "weights.transfer": "load_state_dict to_state_dict",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
