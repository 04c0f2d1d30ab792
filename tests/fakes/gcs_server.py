"""Google Cloud Storage as far as reading takes it, in memory: the XML API's object reads and listings, with a token.

The emulator that PyPI has (gcp-storage-emulator) lists through the JSON API alone, and obstore's client through the XML
API. Objects are put in by the test, listings come in pages of three, and answers are those of
https://cloud.google.com/storage/docs/xml-api.
"""

import contextlib
import http
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_PAGE = 3
_CHANGED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class GcsServer:
    """Buckets, by name, with their objects, by key."""

    buckets: dict[str, dict[str, bytes]]
    token: str = "test-token"
    port: int = 0
    listings: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What a client's usual variables must be to come here."""
        return {
            "GOOGLE_BASE_URL": f"http://127.0.0.1:{self.port}",
            "GOOGLE_BEARER_TOKEN": self.token,
            "GOOGLE_ALLOW_HTTP": "true",
        }


@contextlib.contextmanager
def gcs_server(*buckets: str) -> Iterator[GcsServer]:
    """Serve empty buckets on the loopback."""
    state = GcsServer({name: {} for name in buckets})

    class Handler(_Handler):
        server_state = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: GcsServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        state = self.server_state
        if self.headers["Authorization"] != f"Bearer {state.token}":
            self._fail(http.HTTPStatus.UNAUTHORIZED, "AuthenticationRequired")
        elif bucket not in state.buckets:
            self._fail(http.HTTPStatus.NOT_FOUND, "NoSuchBucket")
        elif not key:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            state.listings.append(query.get("prefix", ""))
            self._answer(http.HTTPStatus.OK, _listing(bucket, state.buckets[bucket], query), "application/xml")
        elif key not in state.buckets[bucket]:
            self._fail(http.HTTPStatus.NOT_FOUND, "NoSuchKey")
        else:
            self._answer(http.HTTPStatus.OK, state.buckets[bucket][key], "application/octet-stream")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _fail(self, status: http.HTTPStatus, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), "application/xml")

    def _answer(self, status: http.HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", format_datetime(_CHANGED, usegmt=True))
        self.send_header("ETag", f'"{hash(body):x}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _listing(bucket: str, objects: dict[str, bytes], query: dict[str, str]) -> bytes:
    """One page of ListBucketResult; a continuation token is the last key of the page before."""
    prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
    keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
    page = keys[:_PAGE]
    entries = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size>"
        f"<LastModified>{_CHANGED:%Y-%m-%dT%H:%M:%S.000Z}</LastModified><ETag>&quot;1&quot;</ETag></Contents>"
        for key in page
    )
    more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(keys) > _PAGE else ""
    truncated = str(bool(more)).lower()
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{bucket}</Name>'
        f"<Prefix>{escape(prefix)}</Prefix><IsTruncated>{truncated}</IsTruncated>{more}{entries}</ListBucketResult>"
    ).encode()
