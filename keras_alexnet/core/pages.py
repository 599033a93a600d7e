"""HTML pages from Jinja2 templates, self-contained: what they show is inside of them.

A template extends `base.html.j2`, which has the style of all pages, dark and light, and sorts
tables of the class `sortable` by the column whose heading is clicked.
"""

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import READABLY, atomic_output

_THUMBNAIL = 160  # pixels


def write_page(
    template: Path,
    output: str | Path,
    *,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> Path:
    """Write a page that shows `values`, completely or not at all, and return its absolute path.

    A name that the template lacks is an error; `filters` are further ones for it.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
        ConfigurationError: The page cannot be written.
    """
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    page = environment.get_template(template.name).render(**values)
    with atomic_output(output) as temporary:
        temporary.write_text(page, encoding="utf-8", errors=READABLY)
    return Path(output).resolve()


def data_url(content: bytes, kind: str) -> str:
    """Return the address that stands for a picture itself, of the kind `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return an image, uint8 (h, w, C), R, G, B or grey, as a JPEG of 160 pixels at most a side."""
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
