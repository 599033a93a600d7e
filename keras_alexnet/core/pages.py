"""HTML pages from Jinja2 templates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import READABLY, atomic_output


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
        loader=jinja2.FileSystemLoader(template.parent),
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
