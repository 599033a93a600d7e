"""Pages: pictures inside of them, and the base that they share."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import Page
from PIL import Image

from keras_alexnet.core.pages import data_url, thumbnail, write_page


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [((320, 160, 3), (80, 160), "RGB"), ((28, 20, 1), (20, 28), "L")],
)  # fmt: skip
def test_thumbnails(shape: tuple[int, ...], size: tuple[int, int], mode: str) -> None:
    """They are smaller where the image is large, and no larger where it is small."""
    pixels = np.full(shape, 200, np.uint8)
    kind, _, content = data_url(thumbnail(pixels), "jpeg").partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (image.format, image.size, image.mode) == ("JPEG", size, mode)
    assert np.abs(np.asarray(image, int) - 200).max() < 4


def test_templates_extend_the_base_wherever_they_lie(tmp_path: Path) -> None:
    template = tmp_path / "mine.html.j2"
    template.write_text(
        '{% extends "base.html.j2" %}{% block title %}{{ name }}{% endblock %}'
        "{% block content %}<p>{{ name|shout }}</p>{% endblock %}"
    )
    path = write_page(template, tmp_path / "page.html", filters={"shout": str.upper}, name="a<b")
    page = Page(path)
    assert page.words == "a<b A<B"
    source = path.read_text()
    assert "prefers-color-scheme: dark" in source
    assert "table.sortable" in source
