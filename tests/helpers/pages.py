"""HTML pages as people and programs read them."""

import base64
import html.parser
import io
import re
from pathlib import Path

from PIL import Image

_EMPTY = ("meta", "link", "img")  # tags that do not close


class Page(html.parser.HTMLParser):
    """Text, tags, pictures and tables of a page; fails on tags that do not close.

    `tables` are rows of texts by the table's class. A page that would fetch anything fails too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.pictures: dict[str, Image.Image] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._rows: list[list[str]] = []
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"""src=["'](?!data:)|<link|@import|url\(|https?:""", source)
        self.feed(source)
        assert not self.open
        self.words = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            kind, _, content = (values["src"] or "").partition(",")
            assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
            picture = Image.open(io.BytesIO(base64.b64decode(content)))
            self.pictures[values["alt"] or ""] = picture
        if tag == "table":
            self._rows = self.tables.setdefault(values.get("class") or "", [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in _EMPTY:
            self.open.append(tag)
            self.text += " "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)  # of a drawing

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & {*self.open}:
            return
        self.text += data
        if {"td", "th"} & {*self.open}:
            self._rows[-1][-1] = " ".join(f"{self._rows[-1][-1]} {data}".split())
