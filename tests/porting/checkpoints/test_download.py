"""Downloads from a real server on the loopback that breaks off, stumbles and lies."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import torch

from porting.checkpoints import download
from porting.checkpoints.download import cache_folder, fetch
from porting.errors import DownloadError

MEBIBYTE = 1 << 20
# Longer than several of the chunks in which files are received.
CONTENT = bytes(range(251)) * (3 * MEBIBYTE // 251) + b"the end"
NAME = f"network-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@dataclass
class Site:
    """What the server holds and does; `cuts` and `statuses` are used up one per request.

    Attributes:
        content: The one file.
        ranges: Whether ranges are supported.
        cuts: Bytes after which the connection breaks, None for never.
        statuses: Status codes to answer with instead of the file, None for the file.
        length: Whether the answer announces its length.
        seen: The `Range` header of every request so far, None where there was none.
    """

    content: bytes = CONTENT
    ranges: bool = True
    cuts: list[int | None] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    length: bool = True
    seen: list[str | None] = field(default_factory=list)
    url: str = ""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.seen.append(asked)
            status = site.statuses.pop(0) if site.statuses else None
            if status is not None:
                self.send_error(status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
            if start and start >= len(site.content):
                self.send_error(416)
                return
            body = site.content[start:]
            self.send_response(206 if start else 200)
            if start:
                total = len(site.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if site.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = site.cuts.pop(0) if site.cuts else None
            self.wfile.write(body[:cut])

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, and no proxy on the way to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(state)) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/models/{NAME}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


Fetch = Callable[..., Path]


@pytest.fixture
def get(site: Site, tmp_path: Path) -> Fetch:
    """Fetch the server's file into `tmp_path / "cache"`, without long pauses."""

    def call(url: str | None = None, **options: int) -> Path:
        return fetch(url or site.url, tmp_path / "cache", pause=0.01, progress=False, **options)

    return call


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _offset(asked: str | None) -> int:
    assert asked is not None
    assert asked.startswith("bytes=")
    assert asked.endswith("-")
    return int(asked[len("bytes=") : -1])


def test_download(get: Fetch, site: Site, tmp_path: Path) -> None:
    path = get()
    assert path == tmp_path / "cache" / NAME
    assert path.read_bytes() == CONTENT
    assert _files(path.parent) == {NAME}
    assert site.seen == [None]


def test_second_call_is_served_from_the_cache(get: Fetch, site: Site) -> None:
    first = get()
    assert get() == first
    assert len(site.seen) == 1


def test_broken_transfer_is_resumed(get: Fetch, site: Site) -> None:
    """Two breaks: each attempt goes on from what has arrived."""
    site.cuts = [2 * MEBIBYTE + 1000, 500_000]
    assert get().read_bytes() == CONTENT
    assert site.seen[0] is None
    offsets = [_offset(asked) for asked in site.seen[1:]]
    assert len(offsets) == 2
    assert MEBIBYTE <= offsets[0] <= 2 * MEBIBYTE + 1000
    assert offsets[0] <= offsets[1]


def test_break_that_nothing_announces(get: Fetch, site: Site) -> None:
    """Without a length a break looks like the end; the hash tells them apart."""
    site.length = False
    site.cuts = [2 * MEBIBYTE + 1000]
    assert get().read_bytes() == CONTENT
    assert site.seen == [None, None]


def test_a_later_call_resumes(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.cuts = [2 * MEBIBYTE + 1000]
    with pytest.raises(DownloadError, match="cannot download"):
        get(attempts=1)
    assert _files(tmp_path / "cache") == {f"{NAME}.part"}
    assert get(attempts=1).read_bytes() == CONTENT
    assert _offset(site.seen[1]) >= MEBIBYTE
    assert _files(tmp_path / "cache") == {NAME}


def test_server_without_ranges(get: Fetch, site: Site) -> None:
    """It sends everything again, which must not be appended to what is there."""
    site.ranges = False
    site.cuts = [2 * MEBIBYTE + 1000]
    assert get().read_bytes() == CONTENT
    assert len(site.seen) == 2


def test_complete_partial_file(get: Fetch, site: Site, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming: the server has nothing more to send."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.part").write_bytes(CONTENT)
    assert get(attempts=1).read_bytes() == CONTENT
    assert site.seen == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("garbage", [b"x" * 1000, b"x" * (len(CONTENT) + 5)])
def test_spoiled_partial_file(garbage: bytes, get: Fetch, site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.part").write_bytes(garbage)
    assert get().read_bytes() == CONTENT
    assert site.seen == [f"bytes={len(garbage)}-", None]
    assert _files(tmp_path / "cache") == {NAME}


@pytest.mark.parametrize("statuses", [[500], [503, 502], [None, 500, 500]])
def test_server_errors_are_retried(statuses: list[int | None], get: Fetch, site: Site) -> None:
    site.statuses = list(statuses)
    site.cuts = [MEBIBYTE]
    assert get().read_bytes() == CONTENT
    assert len(site.seen) == len([s for s in statuses if s]) + 2


def test_server_that_never_recovers(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.statuses = [500] * 10
    with pytest.raises(DownloadError, match=r"cannot download .*: the server answered 500"):
        get(attempts=3)
    assert len(site.seen) == 3
    assert not (tmp_path / "cache" / NAME).exists()


@pytest.mark.parametrize("status", [404, 403, 410])
def test_refusals_are_not_retried(status: int, get: Fetch, site: Site, tmp_path: Path) -> None:
    site.statuses = [status] * 10
    with pytest.raises(DownloadError, match=f"the server answered {status}") as caught:
        get()
    assert len(site.seen) == 1
    text = str(caught.value)
    assert site.url in text
    assert "fetch the file by other means" in text
    assert f"place it at {tmp_path / 'cache' / NAME}" in text


def test_wrong_content(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.content = b"<html>please log in</html>"
    digest = hashlib.sha256(site.content).hexdigest()
    wanted = NAME.removeprefix("network-").removesuffix(".pth")
    text = f"SHA-256 {digest[:16]}… does not begin with {wanted}"
    with pytest.raises(DownloadError, match=text):
        get(attempts=2)
    assert not _files(tmp_path / "cache")
    assert site.seen == [None, None]


def test_content_that_changes_during_the_transfer(get: Fetch, site: Site) -> None:
    """Halves of two files do not pass; a fresh start does."""
    other = bytes(len(CONTENT))
    site.content, site.cuts = other, [2 * MEBIBYTE + 1000]
    with pytest.raises(DownloadError):
        get(attempts=1)
    site.content = CONTENT
    assert get().read_bytes() == CONTENT
    assert site.seen[-1] is None


def test_damaged_file_in_the_cache(get: Fetch, site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / NAME).write_bytes(CONTENT[:-1])
    assert get().read_bytes() == CONTENT
    assert len(site.seen) == 1


def test_file_placed_by_hand(get: Fetch, site: Site, tmp_path: Path) -> None:
    """As the error message advises."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / NAME).write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT
    assert not site.seen


def test_the_final_name_appears_complete(get: Fetch, site: Site, tmp_path: Path) -> None:
    """Watched all the time: a reader never sees a part under the name that promises the whole."""
    sizes = set()
    stop = threading.Event()

    def watch() -> None:
        target = tmp_path / "cache" / NAME
        while not stop.is_set():
            if target.exists():
                sizes.add(target.stat().st_size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    site.cuts = [MEBIBYTE, MEBIBYTE, None]
    try:
        get()
    finally:
        stop.set()
        watcher.join()
    assert sizes <= {len(CONTENT)}


@pytest.mark.parametrize("name", ["network.pth", "network-abc.pth", "network-7be5be7x9.pth", ""])
def test_name_without_hash(name: str, get: Fetch, site: Site, tmp_path: Path) -> None:
    url = f"{site.url.rpartition('/')[0]}/{name}"
    with pytest.raises(DownloadError, match="its name holds no hash to check the file against"):
        get(url)
    assert not site.seen
    assert not (tmp_path / "cache").exists()


def test_unreachable_server(get: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    transfer = download._transfer

    def counted(url: str, *arguments: Any) -> None:
        tried.append(url)
        transfer(url, *arguments)

    monkeypatch.setattr(download, "_transfer", counted)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError) as caught:
        get(f"http://127.0.0.1:{port}/{NAME}")
    assert len(tried) == 2  # of four
    text = str(caught.value)
    assert text.startswith(f"cannot download http://127.0.0.1:{port}/{NAME}: ")
    assert "Check the network, or fetch the file by other means and give its path" in text
    assert isinstance(caught.value.__cause__, requests.ConnectionError)
    assert not _files(tmp_path / "cache")


def test_cache_that_is_no_folder(get: Fetch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DownloadError, match=r"cannot store .*cache.*: "):
        get()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TORCH_HOME": "/somewhere"},
        {"XDG_CACHE_HOME": "/elsewhere"},
        {"TORCH_HOME": "/somewhere", "XDG_CACHE_HOME": "/elsewhere"},
        {"XDG_CACHE_HOME": "~/elsewhere"},
        {"TORCH_HOME": "~/somewhere"},
    ],
)
def test_the_cache_is_torch_hubs(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(torch.hub.get_dir(), "checkpoints")


def test_default_folder(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    path = fetch(site.url, progress=False)
    assert path == tmp_path / "home" / "hub" / "checkpoints" / NAME
    assert path.read_bytes() == CONTENT


def test_progress_bar(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(site.url, tmp_path / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")
    fetch(site.url, tmp_path / "shown")
    assert NAME in capsys.readouterr().out
