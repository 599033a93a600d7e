"""A folder of Parquet files with predictions: each of them complete, all by one model."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import atomic_output, readable
from keras_alexnet.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from keras_alexnet.inference.guesses import Answer

_KEY = b"keras_alexnet"


class PredictionParts:
    """A folder of `part-*.parquet`.

    Their columns: `file`, the path as it was given; `classes`, `labels` and `probabilities`, lists
    with the best class first, or null; `error`, why a file cannot be read, or null.

    Args:
        path: The folder; made if there is none.
        recipe: What decides the predictions, such as the model's digest. The files hold it.

    Raises:
        ConfigurationError: The folder cannot be made.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path, self._recipe = path, recipe
        arrow = self._arrow = require("pyarrow")
        self._parquet = require("pyarrow.parquet")
        self._schema = arrow.schema(
            {
                "file": arrow.string(),
                "classes": arrow.list_(arrow.int32()),
                "labels": arrow.list_(arrow.string()),
                "probabilities": arrow.list_(arrow.float64()),
                "error": arrow.string(),
            },
            metadata={_KEY: json.dumps(recipe, sort_keys=True)},
        )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--output {path}: {error.strerror or error}") from error

    def done(self) -> set[str]:
        """Return the files that have a row, as `readable` names.

        Raises:
            DataError: A part is damaged.
            ConfigurationError: A part was made by another model, or with other options.
        """
        files: set[str] = set()
        for part in sorted(self.path.glob("part-*.parquet")):
            try:
                table = self._parquet.read_table(part, columns=["file"])
            except (self._arrow.ArrowException, OSError) as error:
                raise DataError(
                    f"{part} is damaged ({error}); remove it, and its files are predicted again"
                ) from error
            theirs = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
            if theirs != self._recipe:
                names = [n for n in self._recipe if theirs.get(n) != self._recipe[n]]
                raise ConfigurationError(
                    f"{part} holds predictions that differ in {', '.join(names)}; name another "
                    "folder for --output"
                )
            files.update(table["file"].to_pylist())
        return files

    def write(self, answers: Sequence["Answer"]) -> None:
        """Write a part; the same files always go into a part of the same name."""
        names = [str(answer.file) for answer in answers]
        digest = hashlib.sha256(os.fsencode("\0".join(names))).hexdigest()

        def column(field: str) -> list[Any]:
            return [
                [getattr(guess, field) for guess in guesses] if error is None else None
                for _, guesses, error in answers
            ]

        columns = {
            "file": list(map(readable, names)),
            "classes": column("label"),
            "labels": column("name"),
            "probabilities": column("probability"),
            "error": [answer.error for answer in answers],
        }
        table = self._arrow.Table.from_pydict(columns, schema=self._schema)
        with atomic_output(self.path / f"part-{digest[:16]}.parquet") as temporary:
            self._parquet.write_table(table, temporary)
