"""The other side of a benchmark, in a process of its own: torchvision's and timm's networks."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_alexnet.benchmarking.environment import settle_torch
from keras_alexnet.benchmarking.plan import LEARNING_RATE, MOMENTUM, Competitor, Plan
from keras_alexnet.benchmarking.timing import StepWatch
from keras_alexnet.core.backend import require

_AUTOCAST = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
_OPENVINO = {"float32": "f32", "mixed_bfloat16": "bf16", "mixed_float16": "f16"}
# Their init_weights=True draws from SciPy's slow truncated normal.
_SLOW_TO_BUILD = ("googlenet", "inception_v3")
_AUX_WEIGHT = 0.3  # that of `training.experiment`, and of torchvision's own training


def open_steps(plan: Plan, competitor: Competitor) -> Callable[[int], StepWatch]:
    """Build the network and return what makes a stopwatch for a batch size."""
    torch = settle_torch(plan.device)
    torch.manual_seed(0)
    training = plan.mode == "train"
    net = _network(plan).train(training)
    if competitor.is_openvino:
        return lambda batch: StepWatch(
            _openvino_step(plan, net, _images(plan, batch)),
            lambda _: None,
            seconds=plan.seconds,
            queued=False,
        )
    device = device_name(plan)
    layouts = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}
    layout = layouts[competitor.data_format]
    net = net.to(device=device, memory_format=layout)
    call = torch.compile(net) if competitor.compiled else net
    steps = _training_step if training else _inference_step
    # Made once: the momentum belongs to the network, not to a batch size.
    step = steps(plan, torch, net, call, device)
    wait = wait_for_device(plan)

    def open_batch(batch: int) -> StepWatch:
        x = torch.from_numpy(_images(plan, batch)).to(device=device, memory_format=layout)
        return StepWatch(step(x), wait, seconds=plan.seconds, queued=plan.device == "gpu")

    return open_batch


def _network(plan: Plan) -> Any:
    """Return the library's network with weights of its own."""
    subject = plan.subject
    options: dict[str, Any] = {} if subject.classes is None else {"num_classes": subject.classes}
    require("torchvision")  # before anything that might load another LLVM
    if subject.library == "timm":
        return require("timm").create_model(subject.twin, **options)
    if subject.aux:
        options["aux_logits"] = plan.mode == "train"
    if subject.twin in _SLOW_TO_BUILD:
        options["init_weights"] = False
    return require("torchvision").models.get_model(subject.twin, weights=None, **options)


def device_name(plan: Plan) -> str:
    """Return torch's name of the device."""
    return "cuda" if plan.device == "gpu" else "cpu"


def wait_for_device(plan: Plan) -> Callable[[Any], Any]:
    """Return what waits until a result is computed."""
    if plan.device == "cpu":
        return lambda _: None
    return lambda _: require("torch").cuda.synchronize()


def _images(plan: Plan, batch: int) -> np.ndarray:
    """Return normalised noise, float32 (N, C, H, W)."""
    shape = (batch, plan.subject.channels, *plan.image_size)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _autocast(plan: Plan, torch: Any, device: str) -> Any:
    if plan.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device, getattr(torch, _AUTOCAST[plan.dtype]))


def _inference_step(plan: Plan, torch: Any, net: Any, call: Any, device: str) -> Any:
    def step(x: Any) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode(), _autocast(plan, torch, device):
                return call(x)

        return run

    return step


def _training_step(plan: Plan, torch: Any, net: Any, call: Any, device: str) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    loss_of = torch.nn.functional.cross_entropy
    scaler = torch.amp.GradScaler(device, enabled=plan.dtype == "mixed_float16")

    def step(x: Any) -> Callable[[], Any]:
        generator = np.random.default_rng(1)
        labels = torch.from_numpy(generator.integers(0, plan.subject.classes, len(x))).to(device)

        def run() -> Any:
            optimizer.zero_grad(set_to_none=True)
            with _autocast(plan, torch, device):
                outputs = call(x)
                if plan.subject.aux:
                    main, *others = outputs.logits, outputs.aux_logits1, outputs.aux_logits2
                    loss = loss_of(main, labels)
                    loss = loss + _AUX_WEIGHT * sum(loss_of(other, labels) for other in others)
                else:
                    loss = loss_of(outputs, labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return run

    return step


def _openvino_step(plan: Plan, net: Any, images: np.ndarray) -> Callable[[], Any]:
    """Compile for one batch size, with OpenVINO's memory as input and output."""
    openvino, torch = require("openvino"), require("torch")
    # OpenVINO's own tracing also compares two traces, which numbers of modules make differ in ViTs.
    traced = torch.jit.trace(net, torch.from_numpy(images), check_trace=False)
    converted = openvino.convert_model(traced, input=[list(images.shape)])
    compiled = openvino.compile_model(
        converted,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _OPENVINO[plan.dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": plan.threads,
        },
    )
    request = compiled.create_infer_request()
    return lambda: request.infer([images], share_inputs=True, share_outputs=True)
