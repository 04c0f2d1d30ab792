"""Tensors that are handed over in memory."""

import mmap
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from enxerto.inference.adapters.replica_client import GrpcReplicas
from enxerto.inference.adapters.replica_memory import Region, RegionError, RegionPool, RegionReader
from enxerto.inference.domain import Endpoint, Payload, PayloadKind
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.inference.v1 import replica_service_pb2_grpc
from enxerto.kernel.names import VersionName

VERSION = VersionName("default", "m", 1)
ROW = (3, 4, 4)
ROW_BYTES = 4 * 3 * 4 * 4

READER = """
import sys
from enxerto.inference.adapters.replica_memory import RegionReader
pid, fd, nonce, size = sys.argv[1:]
sys.stdout.buffer.write(RegionReader().read(int(pid), int(fd), bytes.fromhex(nonce), int(size)))
"""


@contextmanager
def lent(pool: RegionPool, size_bytes: int) -> Iterator[Region | None]:
    """A region for a while."""
    region = pool.take(size_bytes)
    yield region
    if region is not None:
        pool.give_back(region)


def test_another_process_reads_what_was_written_last() -> None:
    pool = RegionPool(2**21)
    for parts in ([b"first", b" call"], [b"second"]):
        with lent(pool, 10) as region:
            assert region is not None
            region.write(parts)
            arguments = [str(os.getpid()), str(region.fd), region.nonce.hex(), str(len(b"".join(parts)))]
            read = subprocess.run([sys.executable, "-c", READER, *arguments], capture_output=True, check=True)
            assert read.stdout == b"".join(parts)
    pool.close()


def test_regions_are_used_again_and_limited() -> None:
    pool = RegionPool(2 * 2**20)
    with lent(pool, 100) as first, lent(pool, 2**20) as second, lent(pool, 1) as third:
        assert first is not None
        assert second is not None
        assert third is None
    with lent(pool, 2**20) as again:
        assert again in (first, second)
    # A larger one takes the place of those that are free.
    with lent(pool, 2**20 + 1) as large:
        assert large is not None
        assert large.capacity == 2**21
    with lent(pool, 2**21 + 1) as too_large:
        assert too_large is None
    pool.close()


def test_what_is_not_the_region_is_not_read(tmp_path: Path) -> None:
    pool, reader = RegionPool(2**21), RegionReader()
    with lent(pool, 8) as region, (tmp_path / "file").open("wb") as file:
        assert region is not None
        region.write([b"12345678"])
        me, nonce = os.getpid(), region.nonce
        assert bytes(reader.read(me, region.fd, nonce, 8)) == b"12345678"
        with pytest.raises(RegionError, match="bytes"):
            reader.read(me, region.fd, nonce, 2**20 + 1)
        for pid, fd, other in (
            (me, region.fd, bytes(32)),
            (me, file.fileno(), bytes(32)),
            (me, 10**6, b""),
            (-1, 0, b""),
        ):
            with pytest.raises(RegionError):
                reader.read(pid, fd, other, 8)
    pool.close()


def test_what_the_owner_closes_takes_no_memory_whoever_has_mapped_it() -> None:
    pool, reader = RegionPool(2**22), RegionReader()
    with lent(pool, 2**22) as region:
        assert region is not None
        region.write([bytes(2**22)])
        reader.read(os.getpid(), region.fd, region.nonce, 2**22)
        same = os.dup(region.fd)
    assert os.fstat(same).st_blocks * 512 >= 2**22
    pool.close()
    assert os.fstat(same).st_blocks * 512 <= mmap.PAGESIZE
    os.close(same)


def test_a_region_that_is_gone_is_forgotten() -> None:
    reader, first, second = RegionReader(), RegionPool(2**20), RegionPool(2**20)
    number = read(reader, first)
    first.close()
    assert is_mapped(number)
    assert is_mapped(read(reader, second))
    assert not is_mapped(number)
    second.close()


def read(reader: RegionReader, pool: RegionPool) -> int:
    """Read a region of this process; returns the number of its file."""
    with lent(pool, 8) as region:
        assert region is not None
        reader.read(os.getpid(), region.fd, region.nonce, 8)
        return os.fstat(region.fd).st_ino


def is_mapped(number: int) -> bool:
    """Whether this process has mapped that region."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return any("memfd:enxerto-batch" in line and line.split()[4] == str(number) for line in maps)


class Sums(replica_service_pb2_grpc.ReplicaServiceServicer):
    """Answers each row's sum, and remembers how it came."""

    def __init__(self, apart: bool) -> None:
        self.came: list[str] = []
        self._apart = apart
        self._reader = RegionReader()

    async def Predict(self, request: pb.PredictRequest, context: object) -> pb.PredictResponse:  # noqa: N802
        kind = request.WhichOneof("batch")
        self.came.append(kind)
        if kind == "shared" and self._apart:
            return pb.PredictResponse(memory_apart=True)
        if kind == "shared":
            shared = request.shared
            content = bytes(self._reader.read(shared.pid, shared.fd, shared.nonce, shared.shape[0] * ROW_BYTES))
        else:
            content = b"".join(request.tensor.parts)
        sums = np.frombuffer(content, "<f4").reshape(-1, ROW_BYTES // 4).sum(axis=1, keepdims=True)
        return pb.PredictResponse(
            outputs=[pb.OutputTensor(name="sums", datatype="FP32", row_shape=[1], content=sums.tobytes())]
        )


@pytest.fixture(params=[False, True], ids=["together", "apart"])
async def replica(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Sums, Endpoint]]:
    servicer = Sums(request.param)
    server = grpc.aio.server()
    replica_service_pb2_grpc.add_ReplicaServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, Endpoint(f"127.0.0.1:{port}", "app")
    await server.stop(None)


async def test_a_replica_gets_the_same_rows_by_either_way(replica: tuple[Sums, Endpoint]) -> None:
    servicer, endpoint = replica
    rows = np.random.default_rng(0).random((3, *ROW), np.float32)
    payloads = [
        Payload(PayloadKind.TENSOR, (rows[:2].tobytes(),), 2, ROW),
        Payload(PayloadKind.TENSOR, (rows[2:].tobytes(),), 1, ROW),
    ]
    replicas = GrpcReplicas("secret", 2**20)
    for _ in range(2):
        answer = await replicas.predict(endpoint, VERSION, payloads, 5.0)
        found = np.frombuffer(answer.tensors[0].content, "<f4")
        np.testing.assert_allclose(found, rows.reshape(3, -1).sum(axis=1), rtol=1e-5)
    # A replica elsewhere is asked once only.
    assert servicer.came in (["shared", "shared"], ["shared", "tensor", "tensor"])
    await replicas.keep(frozenset())


async def test_without_room_tensors_are_sent() -> None:
    servicer = Sums(apart=False)
    server = grpc.aio.server()
    replica_service_pb2_grpc.add_ReplicaServiceServicer_to_server(servicer, server)
    endpoint = Endpoint(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", "app")
    await server.start()
    replicas = GrpcReplicas("secret", 0)
    await replicas.predict(endpoint, VERSION, [Payload(PayloadKind.TENSOR, (bytes(ROW_BYTES),), 1, ROW)], 5.0)
    assert servicer.came == ["tensor"]
    await replicas.keep(frozenset())
    await server.stop(None)
