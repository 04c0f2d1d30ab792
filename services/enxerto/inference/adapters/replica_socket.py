"""Batches over a Unix socket between the front and a replica on the same machine, past gRPC and Ray Serve's own code.

The replica says over gRPC what its socket is called. The name is in the abstract namespace of Linux: it ends with the
replica and cannot be found from another container. A connection carries one call at a time, so that to give a call up
is to close its connection; frames are those of `FindSocketResponse` in the contract. The replica has a thread for each
connection, which reads, computes and answers: a call that is handed from thread to thread waits each time for a core to
wake up.
"""

import asyncio
import contextlib
import hmac
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from typing import BinaryIO, Self, cast

import grpc
from google.protobuf.message import DecodeError

from enxerto.inference.adapters.replica_memory import IS_AVAILABLE
from enxerto.inference.v1 import replica_service_pb2 as pb

MAX_MESSAGE_BYTES = 256 * 2**20
"""Of one message between front and replica, by whatever way."""

_HEAD = struct.Struct("<BI")
_OK = 0
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class SocketLostError(Exception):
    """There is no connection, or it ended before the answer: the call may be repeated by another way."""


class CallRefusedError(Exception):
    """The replica gives a status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        """As gRPC would send it."""
        self.text = text
        """For people."""


class _Connection(asyncio.Protocol):
    """The front's end of one."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytearray]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < _HEAD.size:
            return
        status, size = _HEAD.unpack_from(self._received)
        left = _HEAD.size + size - len(self._received)
        if size > MAX_MESSAGE_BYTES or left < 0 or self._answer is None:
            self._lose(f"a frame of {size} bytes, or more than one")
        elif not left:
            answer, content, self._answer, self._received = self._answer, self._received, None, bytearray()
            del content[: _HEAD.size]
            if not answer.done():
                answer.set_result((status, content))

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error or "the connection has ended"))

    @property
    def ended(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, content: bytes) -> None:
        assert self._transport is not None
        self._transport.write(_frame(_OK, content))

    def call(self, content: bytes) -> "asyncio.Future[tuple[int, bytearray]]":
        """Status and content of the answer, or a SocketLostError."""
        if self.ended:
            raise SocketLostError("the connection has ended")
        self._answer = asyncio.get_running_loop().create_future()
        self.send(content)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _lose(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SocketLostError(why))
        self._answer = None
        self.close()


class ReplicaSocket:
    """The front's side: calls one replica, over as many connections as it has calls in flight."""

    def __init__(self, name: str, secret: str) -> None:
        self._name = name
        self._secret = secret.encode()
        self._free: list[_Connection] = []
        self._closed = False

    @classmethod
    async def connect(cls, name: str, secret: str) -> Self:
        """Find the socket of a replica.

        Raises:
            SocketLostError: it cannot be reached from here.
        """
        replica = cls(name, secret)
        replica._free.append(await replica._open())
        return replica

    async def predict(self, request: pb.PredictRequest, timeout_s: float) -> pb.PredictResponse:
        """Run one batch; cancelling it gives the call up.

        Raises:
            SocketLostError: there is no answer.
            TimeoutError: there is none in time.
            CallRefusedError: the replica refuses the call.
        """
        connection = self._take()
        if connection is None:
            async with asyncio.timeout(timeout_s):
                connection = await self._open()
        answer = connection.call(request.SerializeToString())
        late = asyncio.get_running_loop().call_later(timeout_s, _give_up, answer)
        whole = False
        try:
            status, content = await answer
            whole = True
        finally:
            late.cancel()
            if whole and not self._closed:
                self._free.append(connection)
            else:
                connection.close()
        if status != _OK:
            raise CallRefusedError(_CODES.get(status, grpc.StatusCode.UNKNOWN), content.decode())
        return pb.PredictResponse.FromString(content)  # type: ignore[arg-type]  # any buffer will do

    def close(self) -> None:
        """Close every connection, those of running calls when they are answered."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    def _take(self) -> _Connection | None:
        while self._free:
            connection = self._free.pop()
            if not connection.ended:
                return connection
            connection.close()
        return None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(_Connection, f"\0{self._name}")
        except OSError as error:
            raise SocketLostError(str(error)) from error
        connection.send(self._secret)
        return connection


class SocketServer:
    """The replica's side."""

    def __init__(self, secret: str, predict: Callable[[pb.PredictRequest], pb.PredictResponse]) -> None:
        """Serve once the name was asked for.

        Args:
            secret: that callers have to know.
            predict: runs a batch, or raises a CallRefusedError; called in several threads.
        """
        self._secret = secret.encode()
        self._predict = predict
        self._name = f"enxerto-replica-{secrets.token_hex(16)}"
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._waiting: set[socket.socket] = set()
        self._closed = False

    def name(self) -> str:
        """The socket's name; from now on it listens. Empty where this system has no such sockets."""
        with self._lock:
            if not IS_AVAILABLE or self._closed:
                return ""
            if self._listener is None:
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(f"\0{self._name}")
                listener.listen()
                threading.Thread(target=self._accept, args=(listener,), name="accepting", daemon=True).start()
                self._listener = listener
        return self._name

    def close(self) -> None:
        """Take no more calls; those that run are answered."""
        with self._lock:
            self._closed = True
            for waiting in self._waiting:
                _end(waiting)
            if self._listener is not None:
                _end(self._listener)

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), name="calls", daemon=True).start()
        with self._lock:
            # Out of file descriptors, perhaps: whoever asks for the name finds another one.
            self._listener = None

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as frames, contextlib.suppress(OSError, EOFError, DecodeError):
            if not hmac.compare_digest(_read(frames, len(self._secret)), self._secret):
                return
            while (content := self._wait(connection, frames)) is not None:
                connection.sendall(self._answer(pb.PredictRequest.FromString(content)))

    def _wait(self, connection: socket.socket, frames: BinaryIO) -> bytes | None:
        """The next call; None when no more are taken."""
        with self._lock:
            if self._closed:
                return None
            self._waiting.add(connection)
        try:
            return _read(frames, MAX_MESSAGE_BYTES)
        finally:
            with self._lock:
                self._waiting.discard(connection)

    def _answer(self, request: pb.PredictRequest) -> bytes:
        try:
            status, content = _OK, self._predict(request).SerializeToString()
        except CallRefusedError as error:
            status, content = error.code.value[0], error.text.encode()
        return _frame(status, content)


def _give_up(answer: "asyncio.Future[tuple[int, bytearray]]") -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def _frame(status: int, content: bytes) -> bytes:
    return _HEAD.pack(status, len(content)) + content


def _read(frames: BinaryIO, most: int) -> bytes:
    head = frames.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    _, size = _HEAD.unpack(head)
    if size > most:
        raise ConnectionError(f"a frame of {size} bytes")
    content = frames.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _end(one: socket.socket) -> None:
    """Wake up the thread that waits for it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
