"""The public names, by the modules that hold them; `__init__.py` imports each on first use."""

from .checkpoints.files import (
    Checkpoint as Checkpoint,
    read_checkpoint as read_checkpoint,
    write_checkpoint as write_checkpoint,
)
from .checks.check import check as check
from .checks.report import write_report as write_report
from .checks.request import CheckRequest as CheckRequest
from .checks.results import ParityResult as ParityResult
from .conversion.convert import (
    convert as convert,
    export as export,
    from_torchvision as from_torchvision,
    load_model as load_model,
)
from .conversion.inspection import diff as diff, inspect as inspect
from .conversion.networks import from_torch as from_torch
from .errors import (
    CheckpointError as CheckpointError,
    DownloadError as DownloadError,
    GraphError as GraphError,
    PortingError as PortingError,
    TransferError as TransferError,
    UsageError as UsageError,
)
from .tolerances import TOLERANCES as TOLERANCES, Tolerance as Tolerance
from .torch_side.seeded import seeded_state_dict as seeded_state_dict
from .torch_side.torch_model import build_torch as build_torch
from .training_checks.check import (
    TrainingRequest as TrainingRequest,
    check_training as check_training,
)
from .training_checks.results import TrainingResult as TrainingResult
from .weights.counterpart import Counterpart as Counterpart
from .weights.transfer import (
    load_state_dict as load_state_dict,
    to_state_dict as to_state_dict,
)
