"""Find the pretrained weights of a base model, offline first, and read them without running what they contain."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import torch

from enxerto.kernel.errors import FailedPreconditionError, PreconditionViolation
from enxerto.vision.catalogue import BaseModelFacts, list_facts
from enxerto.vision.torch.weights.files import WeightsCorruptError, read_tensors

_CHUNK: Final = 1024 * 1024
_MAX_SAID: Final = 200
_HASH_IN_NAME: Final = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|safetensors)$")


@dataclass(frozen=True, slots=True)
class WeightsSources:
    """Where weights may come from, looked at in this order; the package that ships them comes before the download.

    Attributes:
        blob: a file that the caller took out of the registry.
        folder: where a person put files by hand.
        download: whether the library's own URL may be asked.
        cache: where downloads are kept; the folder must be writable.
        timeout_s: of each network operation.
    """

    blob: Path | None = None
    folder: Path | None = None
    download: bool = True
    cache: Path = Path.home() / ".enxerto" / "weights"
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Tensors by name, in the file's order, and where they came from.

    Attributes:
        tensors: state dict of the library's network.
        sha256: of the file, hexadecimal.
        source: `blob:<sha256>`, `folder:<file>`, `package:<distribution>` or the URL.
    """

    tensors: Mapping[str, torch.Tensor]
    sha256: str
    source: str


class WeightsUnavailableError(FailedPreconditionError):
    """No source has the weights; the message says what to do about it."""

    reason = "WEIGHTS_UNAVAILABLE"


def load_weights(facts: BaseModelFacts, sources: WeightsSources) -> LoadedWeights:
    """The first source that has the weights.

    Raises:
        WeightsUnavailableError: none has them.
        WeightsCorruptError: a file is damaged; the next source is not asked, so that nobody trains on other weights
            than those that were meant.
    """
    tried: list[str] = []
    for find in (_blob, _folder, _package, _download):
        for path, source, expected in find(facts, sources, tried):
            return _read(path, source, expected)
    raise _unavailable(facts, sources, tried)


_Found = Iterator[tuple[Path, str, str | None]]
_Finder = Callable[[BaseModelFacts, WeightsSources, list[str]], _Found]


def _blob(facts: BaseModelFacts, sources: WeightsSources, tried: list[str]) -> _Found:
    del facts
    if sources.blob is None:
        tried.append("registry: no weights of it are registered")
    else:
        yield sources.blob, "blob", None


def _folder(facts: BaseModelFacts, sources: WeightsSources, tried: list[str]) -> _Found:
    if sources.folder is None:
        tried.append("local folder: none is configured")
        return
    names = [f"{facts.name}.safetensors", f"{facts.name}.pth"]
    if facts.download is not None and facts.download.filename not in names:
        names.insert(0, facts.download.filename)
    if facts.packaged is not None:
        names.append(Path(facts.packaged.path).name)
    for name in names:
        path = sources.folder / name
        if path.is_file():
            yield path, f"folder:{name}", _hash_in(name)
    tried.append(f"local folder: {sources.folder} has none of {', '.join(names)}")


def _package(facts: BaseModelFacts, sources: WeightsSources, tried: list[str]) -> _Found:
    del sources
    packaged = facts.packaged
    if packaged is None:
        tried.append("Python package: none ships them")
        return
    # Only located: importing a package that exists to hold a file would run code for nothing.
    spec = importlib.util.find_spec(packaged.package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root) / packaged.path
        if path.is_file():
            yield path, f"package:{packaged.distribution}", packaged.sha256
    tried.append(f"Python package: {packaged.distribution} is not installed")


def _download(facts: BaseModelFacts, sources: WeightsSources, tried: list[str]) -> _Found:
    if facts.download is None:
        tried.append("download: its publisher has no file that can be read safely")
        return
    url, name = facts.download.url, facts.download.filename
    cached = sources.cache / name
    if not cached.is_file():
        if not sources.download:
            tried.append("download: switched off")
            return
        try:
            _fetch(url, cached, sources.timeout_s)
        except _NotDownloadedError as error:
            tried.append(f"download: {url} {error}")
            return
    yield cached, url, _hash_in(name)


class _NotDownloadedError(Exception):
    """Why a download brought nothing; follows the URL."""


def _fetch(url: str, target: Path, timeout_s: float) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"weights are downloaded over http or https, not from {url}")
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Renamed once it is whole, because several workers may look at the same time.
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            part = Path(scratch) / target.name
            with part.open("wb") as file:
                for chunk in _received(url, timeout_s):
                    digest.update(chunk)
                    file.write(chunk)
            _check(digest.hexdigest(), _hash_in(target.name), url)
            part.replace(target)
    except OSError as error:
        raise _NotDownloadedError(f"cannot be kept in {target.parent} ({error.strerror or error})") from error


def _received(url: str, timeout_s: float) -> Iterator[bytes]:
    size, declared = 0, None
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:  # noqa: S310 - checked
            declared = reply.headers.get("Content-Length")
            while chunk := reply.read(_CHUNK):
                size += len(chunk)
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        raise _NotDownloadedError(f"is answered with {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _NotDownloadedError(f"cannot be reached ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        # What is no web server may say anything.
        said = " ".join(str(error).split())[:_MAX_SAID]
        raise _NotDownloadedError(f"broke off after {size} of {declared or 'unknown'} bytes ({said})") from error
    if declared is not None and size != int(declared):
        raise _NotDownloadedError(f"broke off after {size} of {declared} bytes")


def _read(path: Path, source: str, expected: str | None) -> LoadedWeights:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check(digest, expected, source if source != "blob" else str(path))
    tensors = read_tensors(path, source)
    return LoadedWeights(tensors, digest, f"blob:{digest}" if source == "blob" else source)


def _hash_in(name: str) -> str | None:
    found = _HASH_IN_NAME.search(name)
    return found.group(1) if found else None


def _check(digest: str, expected: str | None, source: str) -> None:
    if expected is not None and not digest.startswith(expected):
        raise WeightsCorruptError(f"{source}: sha256 is {digest}, expected it to start with {expected}")


def _unavailable(facts: BaseModelFacts, sources: WeightsSources, tried: list[str]) -> WeightsUnavailableError:
    offline = ", ".join(one.name for one in list_facts() if one.works_offline)
    name = facts.name.replace("_", "-")
    file = facts.download.filename if facts.download else f"{facts.name}.safetensors"
    target = (sources.folder or sources.cache) / file
    origin = (
        f"download {facts.download.url} on another machine" if facts.download else "make a safetensors file of them"
    )
    steps = "\n".join(f"  - {line}" for line in tried)
    message = (
        f"The pretrained weights of {facts.name} were not found:\n{steps}\n"
        f"Base models that work without a network: {offline}.\n"
        f"To bring the weights in by hand, {origin}; then import it with `enxerto base-models import {name} {file}`, "
        f"or put it at {target}. To train from random weights, ask for weights NONE."
    )
    return WeightsUnavailableError(message, [PreconditionViolation("WEIGHTS", f"baseModels/{facts.name}", tried[-1])])
