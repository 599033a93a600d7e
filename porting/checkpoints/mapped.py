"""Files mapped into memory: giving back the pages that were read."""

import ctypes
import re
from pathlib import Path

# Of Linux' madvise(2): the pages go; what is read again comes from the file.
_MADV_DONTNEED = 4
# A mapping's first line, whatever its permissions: a guard page (---p) ends the one before it too.
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S{4} [0-9a-f]+ \S+ \d+ *(.*)")


class MappedFile:
    """Where this process has mapped a file, if it has.

    A mapping somewhere in which the process has written is left alone: its pages are the only copy.
    """

    def __init__(self, path: str | Path) -> None:
        self._ranges: list[tuple[int, int]] = []
        try:
            lines = Path("/proc/self/smaps").read_text().splitlines()
        except OSError:  # not Linux; the system takes the pages back when it needs them
            return
        name, found = str(Path(path).resolve()), None
        for line in lines:
            if head := _HEAD.fullmatch(line):
                start, end = int(head[1], 16), int(head[2], 16)
                found = (start, end - start) if head[3] == name else None
            elif found and line.split() == ["Anonymous:", "0", "kB"]:
                self._ranges.append(found)

    def forget(self) -> None:
        """Give back the memory of all that was read so far; nothing may have been written."""
        for start, length in self._ranges:
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_DONTNEED
            )
