"""What Ctrl-C means to a person who watches a run: a terminal, a real signal, a scripted service."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from enxerto.training.v1 import training_run_pb2
from fakes.scripted_services import ScriptedServices, scripted_services

RUN = "projects/default/trainingRuns/r1"
STATE = training_run_pb2.TrainingRun


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, home: Path, arguments: list[str]) -> None:
        self._keys, side = pty.openpty()
        environment = {**os.environ, "ENXERTO_HOME": str(home), "TERM": "xterm", "COLUMNS": "160"}
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("enxerto")), *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment,
        )
        os.close(side)
        self.screen = ""

    def wait_for(self, text: str) -> None:
        """Read until the text is on the screen; pytest's time-out ends a wait in vain."""
        while text not in self.screen:
            self.screen += os.read(self._keys, 4096).decode(errors="replace")

    def press(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def interrupt(self) -> None:
        """What the terminal does when Ctrl-C is pressed."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Read to the end, and return the exit status."""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while chunk := os.read(self._keys, 4096):
                self.screen += chunk.decode(errors="replace")
        os.close(self._keys)
        return self._process.wait()


@pytest.fixture
def services() -> Iterator[ScriptedServices]:
    """A run that goes on until it is cancelled."""
    cancelled = threading.Event()

    def events(request: Any, context: grpc.ServicerContext) -> Iterator[training_run_pb2.TrainingEvent]:
        def event(cursor: int, state: "training_run_pb2.TrainingRun.State") -> training_run_pb2.TrainingEvent:
            change = training_run_pb2.StateChanged(state=state)
            return training_run_pb2.TrainingEvent(cursor=cursor, state_changed=change)

        if request.after_cursor < 1:
            yield event(1, STATE.STATE_RUNNING)
        # Of this call alone: the one before ends when the person is asked.
        ended = threading.Event()
        context.add_callback(ended.set)
        while not cancelled.wait(0.05):
            if ended.is_set():
                return
        yield event(2, STATE.STATE_CANCELLED)

    def cancel(_request: Any, _context: Any) -> training_run_pb2.TrainingRun:
        cancelled.set()
        return training_run_pb2.TrainingRun(name=RUN, state=STATE.STATE_CANCELLING)

    def get(_request: Any, _context: Any) -> training_run_pb2.TrainingRun:
        state = STATE.STATE_CANCELLED if cancelled.is_set() else STATE.STATE_RUNNING
        return training_run_pb2.TrainingRun(name=RUN, state=state)

    with scripted_services() as running:
        running.on("WatchTrainingRun", events)
        running.on("CancelTrainingRun", cancel)
        running.on("GetTrainingRun", get)
        yield running


def watching(services: ScriptedServices, home: Path) -> Terminal:
    addresses = [f"--{name}={services.address}" for name in ("registry", "training", "inference")]
    terminal = Terminal(home, [*addresses, "runs", "watch", "r1"])
    terminal.wait_for("RUNNING")
    terminal.interrupt()
    terminal.wait_for("(w)atch on?")
    return terminal


def test_the_run_is_cancelled_on_purpose(services: ScriptedServices, tmp_path: Path) -> None:
    terminal = watching(services, tmp_path)
    assert not services.requests("CancelTrainingRun")
    terminal.press("c\n")
    terminal.wait_for("CANCELLED")
    terminal.wait()
    assert [request.name for request in services.requests("CancelTrainingRun")] == [RUN]


def test_watching_stops_and_the_run_goes_on(services: ScriptedServices, tmp_path: Path) -> None:
    terminal = watching(services, tmp_path)
    terminal.press("s\n")
    assert terminal.wait() == 0
    assert "enxerto runs watch r1" in terminal.screen
    assert not services.requests("CancelTrainingRun")
