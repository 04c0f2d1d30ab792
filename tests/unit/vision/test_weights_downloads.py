"""Downloads of weights from a server that fails in every way: the error says what happened, and no file is left."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from enxerto.vision.catalogue import BaseModelFacts, DownloadableWeights, get_facts
from enxerto.vision.torch.weights import WeightsCorruptError, WeightsSources, WeightsUnavailableError, load_weights


@dataclass
class Web:
    """A server on the loopback that sends one file as it is told to."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    sent: int | None = None
    """Bytes after which it hangs up; None sends all."""
    chunked: bool = False
    stalls: threading.Event | None = None
    """What it waits for before it hangs up."""
    asked: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"resnet18-{hashlib.sha256(self.body).hexdigest()[:8]}.pth"

    def facts(self, name: str = "") -> BaseModelFacts:
        return replace(get_facts("resnet18"), download=DownloadableWeights(f"{self.url}/{name or self.name}"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    torch.save({"x": torch.arange(100_000)}, tmp_path / "whole.pth")
    web = Web(body=(tmp_path / "whole.pth").read_bytes())

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            web.asked.append(self.path)
            self.send_response(web.status)
            # A chunk of this length is announced at the first byte.
            length = f"{len(web.body):x}\r\n".encode() if web.chunked else b""
            self.send_header(*(("Transfer-Encoding", "chunked") if length else ("Content-Length", str(len(web.body)))))
            self.end_headers()
            with contextlib.suppress(OSError):
                # Who is refused does not read the rest.
                self.wfile.write(length + web.body[: web.sent])
            if web.stalls is not None:
                web.stalls.wait(30)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield web
        if web.stalls is not None:
            web.stalls.set()
        server.shutdown()


@pytest.fixture
def sources(tmp_path: Path) -> WeightsSources:
    return WeightsSources(cache=tmp_path / "cache", timeout_s=5)


def left(sources: WeightsSources) -> list[str]:
    return [path.name for path in sources.cache.rglob("*")] if sources.cache.exists() else []


def refused(web: Web, sources: WeightsSources) -> str:
    """Download what cannot be had, and return what the error says of the download."""
    with pytest.raises(WeightsUnavailableError) as caught:
        load_weights(web.facts(), sources)
    assert left(sources) == []
    (line,) = (line for line in str(caught.value).splitlines() if line.startswith("  - download:"))
    assert f"{web.url}/{web.name}" in line
    assert caught.value.violations[0].description in line
    return line


@pytest.mark.parametrize("chunked", [False, True], ids=["of a declared length", "in chunks"])
def test_an_interrupted_download_leaves_nothing_and_the_next_one_is_whole(
    web: Web, sources: WeightsSources, chunked: bool
) -> None:
    web.chunked, web.sent = chunked, 1000
    line = refused(web, sources)
    assert "broke off after" in line
    assert chunked or f"1000 of {len(web.body)} bytes" in line
    web.chunked, web.sent = False, None
    loaded = load_weights(web.facts(), sources)
    assert torch.equal(loaded.tensors["x"], torch.arange(100_000))
    assert left(sources) == [web.name]


def test_a_server_that_falls_silent_is_not_waited_for(web: Web, sources: WeightsSources) -> None:
    web.sent, web.stalls = 1000, threading.Event()
    assert "timed out" in refused(web, replace(sources, timeout_s=0.3))


@pytest.mark.parametrize(("status", "says"), [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503")])
def test_a_server_that_says_no_is_quoted(web: Web, sources: WeightsSources, status: int, says: str) -> None:
    web.status = status
    assert f"is answered with {says}" in refused(web, sources)


def test_a_server_that_is_no_web_server_is_told(web: Web, sources: WeightsSources) -> None:
    # A status line that http.client does not understand.
    web.status = 99999
    assert "broke off after 0 of unknown bytes (HTTP/1.1 99999)" in refused(web, sources)


def test_without_a_network_nothing_is_left(web: Web, sources: WeightsSources) -> None:
    web.url = "http://127.0.0.1:9"
    assert "cannot be reached" in refused(web, sources)


def test_a_page_in_place_of_the_file_is_refused_and_not_kept(web: Web, sources: WeightsSources) -> None:
    name, web.body = web.name, b"<html>Please log in</html>"
    digest = hashlib.sha256(web.body).hexdigest()
    for _ in range(2):
        with pytest.raises(WeightsCorruptError, match=f"{web.url}/{name}: sha256 is {digest}"):
            load_weights(web.facts(name), sources)
        assert left(sources) == []
    # Nothing of the first answer was taken for the file.
    assert web.asked == [f"/{name}"] * 2


def test_a_folder_that_cannot_be_written_is_told_as_such(web: Web, sources: WeightsSources, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = replace(sources, cache=tmp_path / "file" / "cache")
    with pytest.raises(WeightsUnavailableError, match=r"cannot be kept in .*file/cache \(Not a directory\)"):
        load_weights(web.facts(), blocked)


def test_several_workers_at_once_see_whole_files_only(web: Web, sources: WeightsSources) -> None:
    found: list[str] = []

    def work() -> None:
        found.append(load_weights(web.facts(), sources).sha256)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert found == [hashlib.sha256(web.body).hexdigest()] * 4
    assert left(sources) == [web.name]
