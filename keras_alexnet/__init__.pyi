"""The public names, by the modules that hold them; `__init__.py` imports each on first use."""

from .data.packed.packer import Packing as Packing, pack_data as pack_data
from .data.preprocessing import (
    load_images as load_images,
    normalize as normalize,
    resize_and_crop as resize_and_crop,
)
from .data.sources.registry import find_data as find_data
from .data.survey.results import DataSurvey as DataSurvey
from .data.survey.survey import survey_data as survey_data
from .errors import (
    BenchmarkError as BenchmarkError,
    ChildError as ChildError,
    CompilationError as CompilationError,
    ConfigurationError as ConfigurationError,
    DataError as DataError,
    ExportError as ExportError,
    ImageFileError as ImageFileError,
    ImportOrderError as ImportOrderError,
    KerasAlexNetError as KerasAlexNetError,
    MissingDependencyError as MissingDependencyError,
    ModelFileError as ModelFileError,
    TrainingError as TrainingError,
    UnknownModelError as UnknownModelError,
    VerificationError as VerificationError,
)
from .explaining.explainer import Explainer as Explainer
from .explaining.methods import ExplanationDetail as ExplanationDetail
from .explaining.page import write_explanation as write_explanation
from .explaining.pictures import (
    heat_overlay as heat_overlay,
    signed_overlay as signed_overlay,
)
from .exporting.exporter import (
    ExportRequest as ExportRequest,
    export_model as export_model,
)
from .inference.evaluation import Evaluation as Evaluation, evaluate as evaluate
from .inference.predictor import Predictor as Predictor
from .layers import LocalResponseNormalization as LocalResponseNormalization
from .models.constructors import (
    AlexNet as AlexNet,
    GoogLeNet as GoogLeNet,
    create_model as create_model,
    list_models as list_models,
)
from .models.features import feature_extractor as feature_extractor
from .models.record import read_record as read_record, save_model as save_model
from .models.weights import load_model as load_model, load_weights as load_weights
from .optimizing.optimize import (
    OptimizedModel as OptimizedModel,
    optimize as optimize,
)
from .specs.preprocessing import Preprocessing as Preprocessing
from .training.experiment import Experiment as Experiment
from .training.presets import (
    Preset as Preset,
    find_preset as find_preset,
    list_presets as list_presets,
)
from .training.run import (
    resume_experiment as resume_experiment,
    run_experiment as run_experiment,
)
from .training.runs.comparison import (
    compare_runs as compare_runs,
    read_runs as read_runs,
)
from .training.runs.comparison_page import write_comparison as write_comparison
from .training.runs.plots import (
    Picture as Picture,
    compare_curves as compare_curves,
    confusion_matrix as confusion_matrix,
    example_grid as example_grid,
    learning_curves as learning_curves,
    reliability_diagram as reliability_diagram,
    sample_predictions as sample_predictions,
)
from .training.runs.reader import Run as Run, read_run as read_run

__version__: str
