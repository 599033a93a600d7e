"""What XLA is told before it compiles for a CPU."""

import contextlib
import functools
import os
import platform
from importlib import metadata

# XLA hands convolutions and products to YNNPACK. On x86 its older way, Eigen, takes half the time
# for a product of a few rows with a large matrix and three quarters for convolutions of many
# channels (`benchmarks/RESULTS.md`). Sums stay YNNPACK's, which is faster at them.
_OPTION = "xla_cpu_experimental_ynn_fusion_type"
_VALUE = "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION,-LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
# XLA ends the process at an option that it does not know.
_JAXLIB = "0.10."


@functools.cache
def settle_xla() -> None:
    """Let JAX compute products and convolutions by Eigen, unless the user has chosen otherwise.

    Options of XLA's are read once, from the environment, when it is first used: if it has been, all
    stays as it is. They are read here otherwise, so that options which are set later come too late,
    as they do behind JAX's first use. The environment is left unchanged, as TensorFlow's XLA, in
    this process or in a child, may know other options.
    """
    try:
        version = metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        return
    before = os.environ.get("XLA_FLAGS")
    if (
        platform.machine().lower() not in ("x86_64", "amd64")
        or not version.startswith(_JAXLIB)
        # Options, not the name of a file with options.
        or (before and (_OPTION in before or not before.lstrip().startswith("-")))
    ):
        return
    os.environ["XLA_FLAGS"] = f"{before or ''} --{_OPTION}={_VALUE}".strip()
    try:
        with contextlib.suppress(ImportError, AttributeError):
            from jaxlib import xla_client

            # Reads the options, and leaves devices alone.
            _ = xla_client.CompileOptions().executable_build_options.debug_options
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before
