"""A hook of the site's build: pages and pictures outside of `docs/`, and the links to them.

Links stand in the pages as a code host follows them, by the files' places in the repository.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
_OUTSIDE = ("benchmarks/RESULTS.md", "benchmarks/*.png")
_LINK = re.compile(r"(\]\()([^)#:\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Put what lies outside of `docs/` into the site, by its place in the repository."""
    for pattern in _OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between places in the repository into links between places in the site."""
    place = _in_repository(page.file)
    here = PurePosixPath(page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        target = normpath(place.parent / link[2])
        uri = target.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return link[0]  # leads nowhere in the site: the build says so
        return f"{link[1]}{relpath(uri, here)}{link[3] or ''}"

    return _LINK.sub(moved, markdown)


def _in_repository(file: File) -> PurePosixPath:
    return PurePosixPath(Path(str(file.abs_src_path)).relative_to(ROOT).as_posix())
