"""Weights files of NumPy and torch before they are read: sizes, objects, pickles.

As in `keras_alexnet.models.archives`, the checks' time and memory follow the size of the file.
"""

import math
import pickletools
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from keras_alexnet.models.archives import check_zip
from porting.errors import CheckpointError

# A state_dict of GoogLeNet takes 14 thousand, one of a training checkpoint three times that.
_MOST_OPCODES = 1_000_000
# Objects that a value consists of when shared parts are counted each time they are met. Tuples of
# a real file have at most a few dozens.
_MOST_PARTS = 10_000
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
# Pickles at the beginning of a torch file from before version 1.6: magic number, protocol,
# system, content, keys of the storages.
_LEGACY_PICKLES = 5


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a `.npy` file: shape, whether in Fortran order, dtype.

    Raises:
        ValueError: It is none, or one of an unknown version.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the .npy format is unknown")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def check_npz(path: Path) -> None:
    """Check every member of an `.npz` archive.

    Raises:
        ModelFileError: As `keras_alexnet.models.archives.check_zip`.
        CheckpointError: It is a bare array, or a member has another size than it declares.
        ValueError: A member is no array, or one of Python objects.
        Exception: Whatever `zipfile` raises of a damaged archive.
    """
    with path.open("rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise CheckpointError(f"{path}: one bare array; an .npz archive of names is needed")
    members = check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for member in members:
            with archive.open(member) as file:
                shape, _, dtype = npy_header(file)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds Python objects")
                declared = math.prod(shape) * dtype.itemsize
                present = member.file_size - file.tell()
            if declared != present:
                raise CheckpointError(
                    f"{path}: {member.filename} declares {dtype} {shape}, {declared:,} bytes, "
                    f"and holds {present:,}"
                )


def check_torch(path: Path) -> None:
    """Check a torch file: its members where it is an archive, and its pickles.

    Raises:
        ModelFileError: As `keras_alexnet.models.archives.check_zip`.
        CheckpointError: Its tensors are compressed.
        ValueError: As `check_pickle`.
        Exception: Whatever `zipfile` raises of a damaged archive.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                check_pickle(file)
        return
    members = check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for member in members:
            _, _, name = member.filename.partition("/")
            if name != "data.pkl" and not name.startswith("data/"):
                continue
            if member.compress_type != zipfile.ZIP_STORED:
                # torch would map the compressed bytes as if they were values.
                raise CheckpointError(
                    f"{path}: its member {member.filename} is compressed; torch.save stores "
                    "tensors as they are: unpack the archive and save the weights anew"
                )
            if name == "data.pkl":
                with archive.open(member) as file:
                    check_pickle(file)


def check_pickle(file: IO[bytes]) -> None:
    """Follow a pickle without building anything; the file is then behind its end.

    A few hundred bytes can make an unpickler reserve gigabytes for its memo, or hash a tuple of
    tuples, each shared by the next, for years. This counts what every object consists of.

    Raises:
        ValueError: The pickle is truncated, nested like that, or too long.
    """
    stack: list[int] = []  # the number of parts of each object
    marks: list[int] = []
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST_OPCODES:
            raise ValueError(f"its pickle has more than {_MOST_OPCODES:,} steps")
        name, before, after = opcode.name, opcode.stack_before, opcode.stack_after
        if name in _PUTS:
            index = len(memo) if argument is None else int(argument)
            if not stack or index > count:
                raise ValueError(f"its pickle remembers an object under the number {index}")
            memo[index] = stack[-1]
            continue
        if name in _GETS:
            if argument not in memo:
                raise ValueError(f"its pickle recalls the unknown object {argument}")
            stack.append(memo[argument])
            continue
        if name == "MARK":
            marks.append(len(stack))
            continue
        start = len(stack)
        if pickletools.markobject in before:
            if not marks:
                raise ValueError("its pickle ends a group that was not begun")
            start = marks.pop()
            before = before[: before.index(pickletools.markobject)]
        start -= len(before)
        if start < (marks[-1] if marks else 0):
            raise ValueError("its pickle takes an object that is not there")
        parts = 1 + sum(stack[start:])
        del stack[start:]
        for kind in after:
            # Lists and dictionaries are neither hashed nor copied.
            plain = kind in (pickletools.pylist, pickletools.pydict)
            stack.append(1 if plain else parts)
        if after and stack[-1] > _MOST_PARTS:
            raise ValueError(
                f"its pickle nests objects {stack[-1]:,} parts deep; {_MOST_PARTS:,} are read"
            )
