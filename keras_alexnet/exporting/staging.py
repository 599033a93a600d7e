"""Outputs of several files, or a folder, that are complete or absent."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_alexnet.core.files import reason_of
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.exporting.formats import ExportFormat

_MARK = "saved_model.pb"  # what makes a folder a SavedModel


def check_target(format_: ExportFormat, output: Path, *, overwrite: bool) -> None:
    """Check that an export may go to `output`.

    Raises:
        ConfigurationError: Something is in the way, or there is no folder to hold it.
    """
    if not output.parent.is_dir():
        raise ConfigurationError(f"cannot write {output}: there is no folder {output.parent}")
    for member in format_.members(output):
        if not format_.is_folder and member.is_dir():
            raise ConfigurationError(f"cannot write {member}: it is a folder")
    if not format_.is_folder or not output.exists():
        return
    if not output.is_dir():
        raise ConfigurationError(
            f"cannot write {output}: it is a file, and {format_.name} is a folder; choose another "
            "--output"
        )
    if not overwrite:
        raise ConfigurationError(
            f"cannot write {output}: the folder exists; add --overwrite to replace it, or choose "
            "another --output"
        )
    if not (output / _MARK).is_file() and any(output.iterdir()):
        raise ConfigurationError(
            f"cannot replace {output}: the folder holds no {_MARK}, so it is no {format_.name}; "
            "choose another --output"
        )


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """Yield a new folder beside `output`, and remove it with all that is left in it.

    Raises:
        ConfigurationError: The folder of `output` cannot be written to.
    """
    try:
        folder = tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise ConfigurationError(f"cannot write {output}: {reason_of(error)}") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(new: Sequence[Path], targets: Sequence[Path], staged: Path) -> None:
    """Move files or a folder from the staging folder to their place, all or none.

    One file replaces another in one step. Of several, or a folder, the old ones are moved away
    first, so that no old one ever stands beside a new one; a failure moves them back.

    Raises:
        ConfigurationError: The file system refuses.
    """
    try:
        if len(new) == 1 and new[0].is_file():
            new[0].replace(targets[0])
            return
        old = staged / "replaced"
        old.mkdir()
        moved: list[tuple[Path, Path]] = []
        try:
            for target in targets:
                if target.exists():
                    moved.append((target, old / target.name))
                    target.rename(old / target.name)
            # The first file names the others, so it comes last.
            for source, target in reversed(list(zip(new, targets, strict=True))):
                moved.append((source, target))
                source.rename(target)
        except BaseException:
            for source, target in reversed(moved):
                if target.exists() and not source.exists():
                    target.rename(source)
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot write {targets[0]}: {reason_of(error)}") from error
