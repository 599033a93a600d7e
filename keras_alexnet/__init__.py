"""AlexNet and GoogLeNet for Keras 3.

Names are imported on first use: `import keras_alexnet` alone loads neither Keras nor a backend, so
the specs and the preprocessing serve processes that have no framework. Where Keras is loaded
already, our layers are registered with it, so that `keras.saving.load_model` knows them. What is
neither named here nor a module at this level is private. Nothing here imports `porting`.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_alexnet.data.preprocessing import (
        load_images as load_images,
        normalize as normalize,
        resize_and_crop as resize_and_crop,
    )
    from keras_alexnet.errors import (
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
    from keras_alexnet.exporting.exporter import (
        ExportRequest as ExportRequest,
        export_model as export_model,
    )
    from keras_alexnet.inference.evaluation import Evaluation as Evaluation, evaluate as evaluate
    from keras_alexnet.inference.predictor import Predictor as Predictor
    from keras_alexnet.layers import LocalResponseNormalization as LocalResponseNormalization
    from keras_alexnet.models.constructors import (
        AlexNet as AlexNet,
        GoogLeNet as GoogLeNet,
        create_model as create_model,
        list_models as list_models,
    )
    from keras_alexnet.models.features import feature_extractor as feature_extractor
    from keras_alexnet.models.record import read_record as read_record, save_model as save_model
    from keras_alexnet.models.weights import load_model as load_model, load_weights as load_weights
    from keras_alexnet.optimizing.optimize import (
        OptimizedModel as OptimizedModel,
        optimize as optimize,
    )
    from keras_alexnet.specs.preprocessing import Preprocessing as Preprocessing
    from keras_alexnet.training.experiment import Experiment as Experiment
    from keras_alexnet.training.run import (
        resume_experiment as resume_experiment,
        run_experiment as run_experiment,
    )
    from keras_alexnet.training.runs.plots import (
        compare_curves as compare_curves,
        confusion_matrix as confusion_matrix,
        learning_curves as learning_curves,
        sample_predictions as sample_predictions,
    )

# Module -> the names in it that are public here.
_HOMES = {
    "errors": (
        "BenchmarkError ChildError CompilationError ConfigurationError DataError ExportError "
        "ImageFileError ImportOrderError KerasAlexNetError MissingDependencyError "
        "ModelFileError TrainingError UnknownModelError VerificationError"
    ),
    "data.preprocessing": "load_images normalize resize_and_crop",
    "exporting.exporter": "ExportRequest export_model",
    "inference.evaluation": "Evaluation evaluate",
    "inference.predictor": "Predictor",
    "layers": "LocalResponseNormalization",
    "models.constructors": "AlexNet GoogLeNet create_model list_models",
    "models.features": "feature_extractor",
    "models.record": "read_record save_model",
    "models.weights": "load_model load_weights",
    "optimizing.optimize": "OptimizedModel optimize",
    "specs.preprocessing": "Preprocessing",
    "training.experiment": "Experiment",
    "training.run": "resume_experiment run_experiment",
    "training.runs.plots": "compare_curves confusion_matrix learning_curves sample_predictions",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.layers")
