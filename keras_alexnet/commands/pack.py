"""`pack`: a data set in a few large files, which are read in sequence."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.commands.common import DataArgument, DataDirOption
from keras_alexnet.core.progress import progress
from keras_alexnet.data.examples import left_out_note
from keras_alexnet.data.packed.index import INDEX, Encoding
from keras_alexnet.data.packed.packer import Packing, pack_data
from keras_alexnet.data.sources.registry import find_data
from keras_alexnet.errors import counted

_SHOWN = 10  # unreadable images that are named


def pack_command(
    data: DataArgument,
    output: Annotated[
        Path, typer.Option(help="Folder to make, or to go on in where packing was stopped.")
    ],
    data_dir: DataDirOption = None,
    short_side: Annotated[
        int | None,
        typer.Option(help="Reduce larger images to so many pixels of their shorter side."),
    ] = None,
    encode: Annotated[
        Encoding, typer.Option(help="JPEG files; or raw pixels: no decoder, five times the room.")
    ] = Packing.encode,
    quality: Annotated[
        int, typer.Option(help="Of the JPEG files that are made; others are kept as they are.")
    ] = Packing.quality,
    shards: Annotated[int, typer.Option(help="Files of the largest part.")] = Packing.shards,
) -> None:
    """Pack a data set into a few large files, which `train --data FOLDER` reads in sequence."""
    packing = Packing(encode, short_side, quality, shards)
    found = find_data(data, data_dir)
    source = data if data_dir is None else f"{data} in {data_dir}"
    with progress("images", sum(map(len, found.parts().values()))) as advance:
        outcome = pack_data(found, output, packing, source=source, advance=advance)
    index = outcome.index
    parts = Counter[str]()
    for shard in index.shards:
        parts[shard.part] += shard.images
    counts = ", ".join(f"{images:,} {part}" for part, images in parts.items())
    size = sum(shard.bytes for shard in index.shards) / 1e6
    typer.echo(
        f"{output}: {counts}; {counted(len(index.shards), 'shard')}, {size:,.1f} MB"
        + f"; {outcome.found} of them were there already" * bool(outcome.found)
    )
    for name, reason in list(index.unreadable.items())[:_SHOWN]:
        typer.echo(f"left out {name}: {reason}")
    if (more := len(index.unreadable) - _SHOWN) > 0:
        typer.echo(f"left out {more} more; {output / INDEX} names them")
    if found.left_out:
        typer.echo(left_out_note(found.left_out))
