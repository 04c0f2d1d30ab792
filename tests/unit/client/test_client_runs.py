from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from enxerto.client import Client, InvalidArgumentError, RunState, TrainingFailedError, UnavailableError
from enxerto.training.v1 import training_run_pb2 as pb
from fakes.scripted_services import ScriptedServices, refuse, scripted_services

RUN = "projects/default/trainingRuns/r1"
STATE = pb.TrainingRun


def events(first: int, last: int, *, final: bool) -> Iterator[pb.TrainingEvent]:
    for cursor in range(first, last + 1):
        yield pb.TrainingEvent(
            cursor=cursor, progress=pb.Progress(phase="head", epoch=cursor, step=2, step_count=8, learning_rate=0.5)
        )
    if final:
        changed = pb.StateChanged(state=STATE.STATE_SUCCEEDED, model_version="projects/default/models/m/versions/1")
        yield pb.TrainingEvent(cursor=last + 1, state_changed=changed)


def test_train_sends_only_what_was_chosen(client: Client, services: ScriptedServices) -> None:
    services.on("CreateTrainingRun", lambda request, _context: request.training_run)
    run = client.train("flowers@2", model="flowers", weights="NONE", strategy="fine-tune", epochs=3, seed=None)
    spec = services.requests("CreateTrainingRun")[0].training_run.spec
    assert spec.snapshot == "projects/default/datasets/flowers/snapshots/2"
    assert (spec.base_model, spec.model) == ("baseModels/efficientnet-lite0", "projects/default/models/flowers")
    assert (spec.weights, spec.strategy, spec.epochs) == (pb.WEIGHTS_NONE, pb.STRATEGY_FINE_TUNE, 3)
    assert not spec.HasField("learning_rate")
    assert services.requests("CreateTrainingRun")[0].request_id
    assert (run.weights, run.strategy, run.settings["epochs"]) == ("NONE", "FINE_TUNE", 3)


def test_a_setting_that_does_not_exist_is_a_mistake_of_the_program(client: Client) -> None:
    with pytest.raises(TypeError, match="learning_rates"):
        client.train("flowers@2", model="flowers", learning_rates=1)


def test_watch_continues_after_the_last_event(client: Client, services: ScriptedServices) -> None:
    def broken_twice(request: Any, context: grpc.ServicerContext) -> Iterator[pb.TrainingEvent]:
        match request.after_cursor:
            case 0:
                yield from events(1, 3, final=False)
                refuse(context, "UNAVAILABLE", "restarting")
            case 3:
                # A drain may end the stream without an error.
                yield from events(4, 5, final=False)
            case _:
                yield from events(request.after_cursor + 1, 6, final=True)

    services.on("WatchTrainingRun", broken_twice)
    services.on("GetTrainingRun", pb.TrainingRun(name=RUN, state=STATE.STATE_RUNNING))
    seen = list(client.watch("r1"))
    assert [event.cursor for event in seen] == [1, 2, 3, 4, 5, 6, 7]
    progress = seen[0].progress
    assert progress is not None
    assert (progress.step, progress.step_count, progress.learning_rate) == (2, 8, 0.5)
    assert (seen[-1].state, seen[-1].model_version) == (RunState.SUCCEEDED, "projects/default/models/m/versions/1")


def test_watch_of_what_is_over_ends(client: Client, services: ScriptedServices) -> None:
    services.on("WatchTrainingRun", lambda _request, _context: iter(()))
    services.on("GetTrainingRun", pb.TrainingRun(name=RUN, state=STATE.STATE_CANCELLED))
    assert list(client.watch("r1", after_cursor=9)) == []


def test_watch_survives_a_restart_of_the_service() -> None:
    with scripted_services() as first:
        port = int(first.address.rpartition(":")[2])
        first.on("WatchTrainingRun", lambda _request, _context: endless())
        client = Client(training=first.address)
        stream = client.watch("r1", patience_s=30)
        assert next(stream).cursor == 1
    with scripted_services(port) as second, client:
        second.on("WatchTrainingRun", lambda request, _context: events(request.after_cursor + 1, 3, final=True))
        assert [event.cursor for event in stream] == [2, 3, 4]


def endless() -> Iterator[pb.TrainingEvent]:
    yield from events(1, 1, final=False)
    import threading

    threading.Event().wait(1)


def test_patience_ends(client: Client, services: ScriptedServices) -> None:
    services.on("WatchTrainingRun", lambda _request, context: refuse(context, "UNAVAILABLE", "away"))
    with pytest.raises(UnavailableError, match="away"):
        list(client.watch("r1", patience_s=0.5))


def test_watch_of_a_bad_name_is_an_error(client: Client, services: ScriptedServices) -> None:
    services.on("WatchTrainingRun", lambda _request, context: refuse(context, "INVALID_ARGUMENT", "name"))
    with pytest.raises(InvalidArgumentError):
        list(client.watch("a/b"))


def test_waiting_for_a_failed_run_raises_its_error(client: Client, services: ScriptedServices) -> None:
    failed = pb.TrainingRun(name=RUN, state=STATE.STATE_FAILED)
    failed.error.code, failed.error.message = 9, "no weights offline"
    services.on("WatchTrainingRun", lambda _request, _context: iter(()))
    services.on("GetTrainingRun", failed)
    with pytest.raises(TrainingFailedError, match="no weights offline") as caught:
        client.wait("r1")
    assert caught.value.code == "FAILED_PRECONDITION"
