"""Training batches of image files, decoded, cropped and mirrored on the host."""

from keras_alexnet.data.batches.file_epoch import FileEpoch
from keras_alexnet.data.batches.file_loader import FileLoader
from keras_alexnet.data.batches.file_shares import FileShares
from keras_alexnet.data.batches.plan import Plan
from keras_alexnet.data.batches.shards import WHOLE
from keras_alexnet.errors import DataError


class FileBatches(FileLoader):
    """See `TrainingBatches`.

    Unreadable files are left out: what follows moves up, so that all batches but the last are full,
    and the same each time. Where devices share a batch nothing moves up, as no process knows of the
    others' files: black ones of weight 0 stand in for them.
    """

    _is_checked = False

    def epoch(self, plan: Plan) -> FileEpoch:
        """Return the batches of a plan.

        Raises:
            DataError: No file can be used, or too few for a batch where the rest is dropped.
        """
        if not self._is_checked:
            self._check(plan)
            self._is_checked = True
        kind = FileEpoch if self.settings.shard == WHOLE else FileShares
        return kind(self, plan)

    def _check(self, plan: Plan) -> None:
        wanted = self.settings.batch_size if self.settings.drop_remainder else 1
        found = 0
        for position in range(len(plan)):
            found += bool(self.crop(plan, position)[1])
            if found == wanted:
                return
        index, why = next(iter(self.reasons.items()))
        some = f"only {found}, fewer than the batch_size {wanted}," if found else "none"
        raise DataError(
            f"{some} of {len(plan)} image files can be used; the first that cannot: "
            f"{self.examples.paths[index]}: {why}"
        )
