"""Pages: pictures inside of them, and the base that they share."""

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import Page
from PIL import Image

from keras_alexnet.core.pages import data_url, thumbnail, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


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


ROWS = [("b 10", "1,200"), ("a", "-"), ("b 9", "30.5"), ("C", "-7")]
CLICKS = """
{% extends "base.html.j2" %}
{% block content %}
<table class="sortable">
<thead><tr><th class="fixed">row</th><th>name</th><th class="n">number</th></tr></thead>
<tbody>{% for name, number in rows %}
<tr><td>{{ loop.index }}</td><td>{{ name }}</td><td>{{ number }}</td></tr>
{% endfor %}</tbody>
</table>
<p></p>
{% endblock %}
{% block script %}
<script>
  for (const column of [2, 2, 1, 1, 0]) {
    document.querySelectorAll("th")[column].click();
    const rows = [...document.querySelectorAll("tbody tr")].map(row => row.cells[0].textContent);
    document.querySelector("p").textContent += rows.join("") + " ";
  }
</script>
{% endblock %}
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_tables_are_sorted_by_clicks(tmp_path: Path) -> None:
    """Numbers downwards at first, names upwards, then the other way; a fixed column not at all."""
    (tmp_path / "clicks.html.j2").write_text(CLICKS)
    page = write_page(tmp_path / "clicks.html.j2", tmp_path / "page.html", rows=ROWS)
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'own'}")
    command = [CHROMIUM, *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (orders,) = re.findall("<p>(.*?)</p>", done.stdout)
    assert orders.split() == ["1342", "4312", "2314", "4132", "4132"]
