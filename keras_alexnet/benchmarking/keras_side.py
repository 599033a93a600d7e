"""The Keras side of a benchmark, in a process of its own; imports Keras where it is called."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.benchmarking.environment import settle_torch
from keras_alexnet.benchmarking.plan import LEARNING_RATE, MOMENTUM, Competitor, Plan
from keras_alexnet.benchmarking.timing import StepWatch
from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.machine import check_device
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.optimizing.engines.registry import ENGINES
from keras_alexnet.training.precision import check_precision


def prepare(plan: Plan) -> str:
    """Import Keras, check that it can do the work, and return its backend."""
    keras = load_keras()
    backend = keras.backend.backend()
    if backend == "torch":
        settle_torch(plan.device)
    check_device(plan.device)
    if plan.mode == "train":
        check_precision(plan.dtype)
    keras.utils.set_random_seed(0)
    return backend


def open_steps(plan: Plan, competitor: Competitor) -> Callable[[int], StepWatch]:
    """Build the model and return what makes a stopwatch for a batch size."""
    steps = _training_step(plan) if plan.mode == "train" else _inference_step(plan, competitor)
    wait = wait_for_device(plan)

    def open_batch(batch: int) -> StepWatch:
        rng = np.random.default_rng(0)
        inputs = [
            rng.standard_normal((batch, *shape), np.float32)  # (N, H, W, C) of images
            for shape in plan.input_shapes
        ]
        return StepWatch(steps(*inputs), wait, seconds=plan.seconds, queued=plan.device == "gpu")

    return open_batch


def wait_for_device(plan: Plan) -> Callable[[Any], Any]:
    """Return what waits until a result is computed."""
    backend = load_keras().backend.backend()
    if backend == "jax":
        return require("jax").block_until_ready
    if plan.device == "gpu":
        if backend == "torch":
            return lambda _: require("torch").cuda.synchronize()
        return lambda _: require("tensorflow").test.experimental.sync_devices()
    return lambda _: None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors as its backend runs models: compiled, but on torch."""
    backend = load_keras().backend.backend()
    if backend == "tensorflow":
        return require("tensorflow").function(function)
    if backend == "jax":
        return require("jax").jit(function)
    return require("torch").inference_mode()(function)


def _inference_step(plan: Plan, competitor: Competitor) -> Callable[..., Callable[[], Any]]:
    from keras_alexnet.models.constructors import create_model
    from keras_alexnet.models.interface import alone_or_list, is_channels_first
    from keras_alexnet.models.weights import load_model

    keras = load_keras()
    if plan.subject.file is not None:
        model = load_model(plan.subject.file)
        if is_channels_first(model):
            raise ConfigurationError(f"{plan.model} is channels_first; channels_last is measured")
        if plan.dtype != "float32":
            model = _fresh_network(plan, _experiment(plan))
    else:
        model = create_model(
            plan.model,
            input_shape=(*plan.image_size, plan.spec.channels),
            data_format="channels_last",
            dtype=plan.dtype,
        )
    if competitor.engine != "keras":
        return partial(_optimized_step, model, competitor.engine)
    call = _model_call(model)

    def step(*inputs: np.ndarray) -> Callable[[], Any]:
        x = alone_or_list(list(map(keras.ops.convert_to_tensor, inputs)))
        _check_finite(call(x))
        return lambda: call(x)

    return step


def _optimized_step(model: Any, engine: str, *inputs: np.ndarray) -> Callable[[], Any]:
    from keras_alexnet.models.interface import alone_or_list
    from keras_alexnet.optimizing.optimize import optimize

    optimized, given = optimize(model, engine=engine, batch_size=len(inputs[0])), list[Any](inputs)
    if engine == "auto" or ENGINES[engine].package == load_keras().backend.backend():
        given = list(map(load_keras().ops.convert_to_tensor, inputs))  # lie on the device
    x = alone_or_list(given)
    _check_finite(optimized(x))
    return lambda: optimized(x)


def _model_call(model: Any) -> Callable[[Any], Any]:
    """Return the fastest usual way to call a model for inference."""
    if load_keras().backend.backend() != "jax":
        return compiled(lambda x: model(x, training=False))
    # Weights that a traced function finds in the model would become its constants.
    forward = compiled(lambda *arguments: model.stateless_call(*arguments, training=False)[0])
    weights = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    return lambda x: forward(weights, state, x)


def _training_step(plan: Plan) -> Callable[[np.ndarray], Callable[[], Any]]:
    """Return batch -> the step that `keras_alexnet.train` compiles, without its augmentation."""
    from keras_alexnet.models.interface import named_outputs
    from keras_alexnet.training.network import compile_training
    from keras_alexnet.training.optim.optimizers import create_optimizer

    keras, experiment = load_keras(), _experiment(plan)
    network = _fresh_network(plan, experiment)
    # A model around the network, as `training_model` makes one.
    images_in = keras.Input(network.input_shape[1:])
    outputs = named_outputs(network(images_in))
    classes = next(iter(outputs.values())).shape[-1]
    trainer = keras.Model(images_in, outputs)
    optimizer = create_optimizer(
        "sgd", LEARNING_RATE, momentum=MOMENTUM, loss_scaling=plan.dtype == "mixed_float16"
    )
    compile_training(trainer, experiment, optimizer)
    optimizer.build(trainer.trainable_variables)

    def step(images: np.ndarray) -> Callable[[], Any]:
        true = np.random.default_rng(1).integers(0, classes, len(images), np.int32)
        x = keras.ops.convert_to_tensor(images)
        labels = dict.fromkeys(outputs, keras.ops.convert_to_tensor(true))
        return lambda: trainer.train_on_batch(x, labels)

    return step


def _experiment(plan: Plan) -> Any:
    """Return the training of a plan's network on images that come normalised, as torchvision's."""
    from keras_alexnet.training.experiment import Experiment

    return Experiment(
        model=plan.model,
        aux_heads=plan.mode == "train" and plan.subject.aux,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        precision=plan.dtype,  # type: ignore[arg-type]
    )


def _fresh_network(plan: Plan, experiment: Any) -> Any:
    """Return the network with new weights, under the plan's dtype policy.

    Raises:
        ConfigurationError: Nobody says how many classes it has.
    """
    from keras_alexnet.training.bodies import body_of
    from keras_alexnet.training.network import build_network

    channels, classes = plan.subject.channels, plan.subject.classes
    if classes is None:
        raise ConfigurationError(f"{plan.model}: nobody says how many classes it has")
    normalized = replace(
        body_of(experiment).preprocessing.at_size(*plan.image_size),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        scale=1.0,
        channels="RGB" if channels == 3 else "L",
    )
    return build_network(experiment, classes, normalized)


def _check_finite(outputs: Any) -> None:
    """Refuse to time what does not work."""
    keras = load_keras()
    for each in keras.tree.flatten(outputs):
        values = each
        if not isinstance(each, np.ndarray):
            values = keras.ops.convert_to_numpy(keras.ops.cast(each, "float32"))
        if not np.isfinite(values).all():
            raise ConfigurationError("the model's outputs are not finite; use another dtype")
