"""What data-parallel training of a model would come to on many GPUs: measured here, then computed.

    python benchmarks/scaling.py --decoded RATE [--step alexnet=MS googlenet=MS] [--quick]

Measured on this machine: steps of training. Counted: the bytes of gradients and the operations of a
step. From these, from the rate at which a core makes training batches of photos (`--decoded`, see
`input_pipeline.py`), and from what the options say about the machines, the tables of
`docs/scaling.md` follow; the text there explains the model. A time of a step that was measured on
the GPU (`--step`) replaces the one that is computed.
"""

import argparse
import math
from dataclasses import dataclass
from itertools import product

from readme import DOCS, replace_between

from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.benchmarking.report import rows
from keras_alexnet.benchmarking.runner import run
from keras_alexnet.core.backend import installed_backends
from keras_alexnet.core.machine import processor_name
from keras_alexnet.specs import find_spec
from keras_alexnet.summary.profile import profile

DOCUMENT = DOCS / "scaling.md"
MODELS = ("alexnet", "googlenet")
DEVICES = (8, 64, 1024)
_IMAGES_OF_EPOCH = 1_281_167  # ILSVRC 2012


@dataclass(frozen=True)
class Machines:
    """What the hosts are supposed to be; the defaults are those of a common 8-GPU server.

    Attributes:
        gpus: GPUs of a host.
        cores: Processor cores of a host.
        flops: Operations of a GPU a second, in bfloat16.
        used: Share of these that a step reaches.
        link: Bytes a second between two GPUs of a host, one way.
        network: Bytes a second between a GPU and another host, one way.
        latency: Seconds of a message between hosts.
    """

    gpus: int = 8
    cores: int = 192
    flops: float = 989e12
    used: float = 0.25
    link: float = 450e9
    network: float = 50e9
    latency: float = 10e-6

    def all_reduce(self, size: float, devices: int) -> float:
        """Return the seconds of a hierarchical ring over `devices` GPUs that sums `size` bytes."""
        within = min(devices, self.gpus)
        hosts = math.ceil(devices / self.gpus)
        seconds = 2 * (within - 1) / within * size / self.link
        if hosts > 1:
            seconds += 2 * (hosts - 1) / hosts * size / within / self.network
            seconds += 2 * math.ceil(math.log2(hosts)) * self.latency
        return seconds


@dataclass(frozen=True)
class Load:
    """What a model asks of the machines.

    Attributes:
        name: Of the model.
        parameters: Trained numbers, those of auxiliary classifiers among them.
        operations: Of a step with one image, forwards and backwards.
        step: Measured seconds of a step of `batch` images on a GPU; None where it is computed.
    """

    name: str
    parameters: int
    operations: float
    step: float | None

    def compute(self, batch: int, machines: Machines) -> float:
        """Return the seconds of a step without the others."""
        if self.step is not None:
            return self.step
        return batch * self.operations / (machines.flops * machines.used)

    def duration(self, batch: int, bytes_each: int, devices: int, machines: Machines) -> float:
        """Return the seconds of a step among others, whose sums run beside the way back."""
        compute = self.compute(batch, machines)
        reduce = machines.all_reduce(self.parameters * bytes_each, devices)
        return compute / 3 + max(2 * compute / 3, reduce)


def load(name: str, step: float | None) -> Load:
    """Count a model's parameters and operations."""
    spec = find_spec(name)
    found = profile(spec, aux_heads=bool(spec.aux)).totals
    # A product of the way forwards has two on the way back: by the weights and by the inputs.
    return Load(name, found.parameters, 3 * 2 * found.macs, step)


def measured_steps(models: tuple[str, ...], rounds: int) -> list[str]:
    """Measure steps of training on this machine; return the lines of a table."""
    lines = [
        "| model | backend | step of 32 images, ms | images/s | gradients, MB | ops an image, G |"
    ]
    lines.append("|---|---|--:|--:|--:|--:|")
    for name in models:
        counted = load(name, None)
        plan = Plan(name, "train", (32,), find_spec(name).default_size, rounds, 1.0, 2)
        competitors = [Competitor("keras", backend) for backend in installed_backends()]
        for row in rows(run(plan, competitors)):
            lines.append(
                f"| {name} | {row.measured.competitor.backend} | {1e3 * row.seconds.median:,.0f} | "
                f"{row.rate:.1f} | {4e-6 * counted.parameters:.1f} | "
                f"{1e-9 * counted.operations:.2f} |"
            )
    return lines


def scaled(
    loads: list[Load], batch: int, whole: int, decoded: float, machines: Machines
) -> list[str]:
    """Compute the table of expected steps.

    Args:
        loads: The models.
        batch: Images of a GPU.
        whole: Images of all, where their number is kept.
        decoded: Images that a core makes ready a second.
        machines: The hosts.
    """
    lines = [
        "| model | GPUs | images a GPU | gradients | all-reduce, ms | step, ms | efficiency | "
        "images/s wanted of a host | its cores make | epoch fed, s | bound by |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    ready = decoded * machines.cores
    cases = [(devices, batch) for devices in DEVICES]
    cases += [(devices, whole // devices) for devices in DEVICES if whole // devices != batch]
    for each, (devices, images), (bytes_each, kind) in product(
        loads, cases, ((4, "float32"), (2, "bfloat16"))
    ):
        reduce = machines.all_reduce(each.parameters * bytes_each, devices)
        compute = each.compute(images, machines)
        step = each.duration(images, bytes_each, devices, machines)
        within = min(devices, machines.gpus)
        wanted = within * images / step
        seconds = _IMAGES_OF_EPOCH * within / devices / min(wanted, ready)
        bound = "input" if ready < wanted else "gradients" if step > compute else "compute"
        lines.append(
            f"| {each.name} | {devices:,} | {images:,} | {kind} | {1e3 * reduce:.2f} | "
            f"{1e3 * step:.2f} | {compute / step:.0%} | {wanted:,.0f} | {ready:,.0f} | "
            f"{seconds:.2g} | {bound} |"
        )
    return lines


def main() -> None:
    """Measure, compute, and write both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images of a GPU")
    parser.add_argument("--global-batch", type=int, default=8192, help="of all, where it is kept")
    parser.add_argument("--step", nargs="+", default=[], metavar="MODEL=MS")
    parser.add_argument("--decoded", type=float, required=True, metavar="IMAGES_PER_S_AND_CORE")
    for name, value in vars(Machines()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    arguments = parser.parse_args()
    machines = Machines(**{name: getattr(arguments, name) for name in vars(Machines())})
    steps = dict(text.split("=") for text in arguments.step)
    loads = [load(n, 1e-3 * float(steps[n]) if n in steps else None) for n in MODELS]
    measured = measured_steps(MODELS, 2 if arguments.quick else arguments.rounds)
    computed = scaled(loads, arguments.batch, arguments.global_batch, arguments.decoded, machines)
    print(*measured, "", *computed, sep="\n")
    head = f"{processor_name()}, 2 threads, float32, auxiliary classifiers included:"
    replace_between(
        "<!-- measured -->", "<!-- end of measured -->", "\n".join([head, "", *measured]), DOCUMENT
    )
    head = (
        f"{arguments.batch} images a GPU, then {arguments.global_batch:,} of all; "
        f"{arguments.decoded:g} images a second and core; "
        + ", ".join(f"{name} {value:g}" for name, value in vars(machines).items())
        + ":"
    )
    replace_between(
        "<!-- computed -->", "<!-- end of computed -->", "\n".join([head, "", *computed]), DOCUMENT
    )


if __name__ == "__main__":
    main()
