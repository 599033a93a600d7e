"""Backends as parameters of tests that start a child process for each."""

import pytest

from keras_alexnet.core.backend import BACKENDS, installed

# Starting one takes up to ten seconds: without `-m ''` torch stands for all.
EACH_BACKEND = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.skipif(not installed(name), reason=f"{name} is not installed"),
                *([] if name == "torch" else [pytest.mark.slow]),
            ],
        )
        for name in BACKENDS
    ],
)
