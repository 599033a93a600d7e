"""Fresh weights that are drawn in less time, as others replace them."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_alexnet.core.backend import require


@contextlib.contextmanager
def quick_initialisation() -> Iterator[None]:
    """Draw numbers that other weights replace from a normal distribution instead of a cut one."""
    init = require("torch").nn.init
    stock = init.trunc_normal_

    def normal(tensor: Any, mean: float = 0.0, std: float = 1.0, *_: Any, **__: Any) -> Any:
        return init.normal_(tensor, mean, std)

    init.trunc_normal_ = normal
    try:
        yield
    finally:
        init.trunc_normal_ = stock
