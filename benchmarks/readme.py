"""The measured and generated parts of the README and of docs/, each between two marker lines."""

from pathlib import Path

from keras_alexnet.core.files import atomic_output

README = Path(__file__).resolve().parents[1] / "README.md"
DOCS = README.with_name("docs")


def replace_between(begin: str, end: str, text: str, path: Path = README) -> None:
    """Put `text` between two marker lines, which stay, completely or not at all.

    Args:
        begin: The line before.
        end: The line behind.
        text: The lines between them, without the newlines around.
        path: The file.

    Raises:
        SystemExit: A marker is missing; the file is as it was.
    """
    before, begins, rest = path.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, ends, after = rest.partition(end)
    for marker, found in ((begin, begins), (end, ends)):
        if not found:
            raise SystemExit(f"{path} lacks the marker {marker}")
    with atomic_output(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
