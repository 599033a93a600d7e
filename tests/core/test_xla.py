"""What XLA is told: by which library it computes, and what stays as the user has it."""

from importlib import metadata
from typing import Any

import pytest

from keras_alexnet.core import xla
from keras_alexnet.core.backend import installed

COMPILED = """
import os, sys
before = os.environ.get("XLA_FLAGS")
if sys.argv[1] == "keras first":
    import keras
from keras_alexnet.core.backend import load_keras
load_keras()
import jax, jax.numpy as jnp
from jax import lax

def convolve(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

LAYOUT = ("NHWC", "HWIO", "NHWC")
ones = jnp.ones
programs = [
    jax.jit(lambda x, w: x @ w).lower(ones((32, 512)), ones((512, 512))),
    jax.jit(convolve).lower(ones((2, 13, 13, 64)), ones((3, 3, 64, 64))),
]
print(sum("__ynn_fusion" in program.compile().as_text() for program in programs))
assert os.environ.get("XLA_FLAGS") == before
"""


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`settle_xla` whose options are seen as it sets them, and not read by XLA."""
    seen: list[str | None] = []

    class CompileOptions:
        def __init__(self) -> None:
            seen.append(xla.os.environ.get("XLA_FLAGS"))
            self.executable_build_options = self
            self.debug_options = None

    jaxlib = pytest.importorskip("jaxlib.xla_client")
    monkeypatch.setattr(jaxlib, "CompileOptions", CompileOptions)
    monkeypatch.setattr(metadata, "version", lambda _: "0.10.7")
    monkeypatch.setattr(xla.platform, "machine", lambda: "AMD64")

    def run() -> list[str | None]:
        xla.settle_xla.__wrapped__()
        return seen

    return run


@pytest.mark.skipif(
    not (installed("jaxlib") and metadata.version("jaxlib").startswith(xla._JAXLIB)),
    reason="needs the jaxlib whose options are known",
)
@pytest.mark.skipif(
    xla.platform.machine().lower() not in ("x86_64", "amd64"), reason="not told so elsewhere"
)
@pytest.mark.parametrize(
    ("order", "flags", "by_ynnpack"),
    [
        ("keras first", None, 0),
        pytest.param("ours first", "--xla_backend_optimization_level=0", 0, marks=pytest.mark.slow),
        ("ours first", f"--{xla._OPTION}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", 1),
    ],
)
def test_who_computes(run_python: Any, order: str, flags: str | None, by_ynnpack: int) -> None:
    done = run_python(COMPILED, order, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    assert done.stdout.split() == [str(by_ynnpack)], done.stderr


@pytest.mark.parametrize("before", [None, "--xla_dump_to=somewhere"])
def test_options_are_added_for_a_moment(
    before: str | None, settle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    (flags,) = settle()
    assert flags.split() == [*filter(None, [before]), f"--{xla._OPTION}={xla._VALUE}"]
    assert xla.os.environ.get("XLA_FLAGS") == before


@pytest.mark.parametrize(
    ("flags", "version", "machine"),
    [
        (None, None, "x86_64"),
        (None, "0.9.9", "x86_64"),
        (None, "0.11.0", "x86_64"),
        (None, "0.10.2", "aarch64"),
        (f"--{xla._OPTION}=LIBRARY_FUSION_TYPE_DOT", "0.10.2", "x86_64"),
        ("flags.txt", "0.10.2", "x86_64"),
    ],
)
def test_what_is_left_alone(
    flags: str | None,
    version: str | None,
    machine: str,
    settle: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if flags is not None:
        monkeypatch.setenv("XLA_FLAGS", flags)

    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)
    monkeypatch.setattr(xla.platform, "machine", lambda: machine)
    assert settle() == []
