"""Downloads that are resumed, retried, checked and never half-written."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

from keras_alexnet.core.backend import require
from keras_alexnet.errors import one_line
from porting.checkpoints.files import sha256
from porting.errors import DownloadError

# The hash that PyTorch puts into the names of its files: alexnet-owt-7be5be79.pth.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
_TIMEOUT = (10, 60)  # seconds to connect, and between two packets
_CHUNK = 1 << 20  # bytes


def cache_folder() -> Path:
    """Return the folder that torch.hub uses too, so that nothing is downloaded twice."""
    home = os.environ.get("TORCH_HOME")
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return (Path(home or Path(base, "torch")).expanduser()) / "hub" / "checkpoints"


def promised_digest(url: str) -> str | None:
    """Return the beginning of a file's SHA-256 that its name holds, None where it holds none."""
    found = _HASH_IN_NAME.search(url.rpartition("/")[2])
    return found[1] if found else None


def fetch(
    url: str,
    folder: Path | None = None,
    *,
    attempts: int = 4,
    pause: float = 1.0,
    progress: bool = True,
) -> Path:
    """Return the local copy of a file, downloading it if there is none.

    A broken transfer is resumed from what has arrived, also by a later call. The file appears under
    its name only when its SHA-256 begins with the digits in that name. Where there is no way to the
    server, two attempts are enough.

    Args:
        url: Address whose last part holds a hash, such as `.../googlenet-1378be20.pth`.
        folder: Where to keep the file; by default torch.hub's cache.
        attempts: How often to try.
        pause: Seconds before the second attempt; doubled before each further one.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        DownloadError: No attempt succeeded, the hash differs, or the name holds no hash.
    """
    name, promised = url.rpartition("/")[2], promised_digest(url)
    if promised is None:
        raise DownloadError(f"{url}: its name holds no hash to check the file against")
    folder = folder or cache_folder()
    target = folder / name
    if target.is_file():
        if sha256(target).startswith(promised):
            return target
        target.unlink()  # Damaged by an earlier program: its name promises another content.
    partial = folder / f"{name}.part"
    error: Exception | None = None
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _transfer(url, partial, progress)
        except requests.RequestException as failure:
            error = failure
            response = failure.response
            if response is not None and _is_final(response.status_code):
                break
            if attempt and _is_out_of_reach(failure):
                break
            continue
        except OSError as failure:
            raise DownloadError(
                f"cannot store {target}: {failure.strerror or failure}"
            ) from failure
        digest = sha256(partial)
        if digest.startswith(promised):
            partial.replace(target)
            return target
        partial.unlink()
        error = DownloadError(f"SHA-256 {digest[:16]}… does not begin with {promised}")
    raise DownloadError(
        f"cannot download {url}: {_reason(error)}. Check the network, or fetch the file by other "
        f"means and give its path, or place it at {target}"
    ) from error


def fetch_from_hub(repository: str, names: Sequence[str]) -> Path:
    """Return the local copy of the first of some files that a repository of the hub has.

    It is in the hub's own cache, where its other files lie beside it.

    Args:
        repository: `USER/NAME`, or `USER/NAME@REVISION`, of the Hugging Face hub.
        names: The files, in the order of preference.

    Raises:
        DownloadError: None is there, or there is no connection.
        MissingDependencyError: The hub's package is not installed.
    """
    hub = require("huggingface_hub")
    name, _, revision = repository.partition("@")
    for file in names:
        try:
            return Path(hub.hf_hub_download(name, file, revision=revision or None))
        except hub.errors.LocalEntryNotFoundError as failure:
            error: Exception = failure
            break
        except hub.errors.EntryNotFoundError as failure:
            error = failure
        except Exception as failure:  # of the hub, or of what it reaches the network with
            error = failure
            break
    raise DownloadError(
        f"cannot get {' or '.join(names)} of {repository} from the Hugging Face hub: "
        f"{one_line(error)}. Check the network and the name, or fetch the repository by other "
        "means and name its folder: timm:local-dir:FOLDER"
    ) from error


def _is_final(status: int) -> bool:
    """Say whether a server's answer will not change by asking again."""
    temporary = (requests.codes.request_timeout, requests.codes.too_many_requests)
    return 400 <= status < 500 and status not in temporary


def _is_out_of_reach(error: requests.RequestException) -> bool:
    """Say whether there was no way to the server: without a network the fourth try is no better."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, ConnectTimeoutError | NewConnectionError | ProxyError)


def _reason(error: Exception | None) -> str:
    """Say in a few words why a transfer failed; requests' own texts fill a screen."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.ConnectionError) and error.request is not None:
        return "no connection to the server"
    return str(error)


def _transfer(url: str, partial: Path, progress: bool) -> None:
    """Append to `partial` what is missing of it."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # Everything is here already; the hash decides.
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with (
            Progress(*columns, disable=not progress) as bar,
            partial.open("ab" if resumed else "wb") as file,
        ):
            total = have + int(length) if length else None
            task = bar.add_task(url.rpartition("/")[2], total=total, completed=have)
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
        if total is not None and partial.stat().st_size < total:
            raise requests.ConnectionError(
                f"the connection ended after {partial.stat().st_size} of {total} bytes"
            )
