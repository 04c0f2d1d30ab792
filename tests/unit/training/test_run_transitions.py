import pytest

from enxerto.training.domain import RunState
from enxerto.training.errors import RunFinishedError
from fakes.training_stores import START
from fakes.training_values import a_run


def test_a_run_goes_from_queued_to_succeeded():
    run = a_run().attempt_next(now=START).accepted(now=START).start(now=START)
    assert (run.state, run.start_time, run.job_id) == (RunState.RUNNING, START, "u1-1")
    run = run.trained((), "EPOCHS", now=START).succeed("v", now=START)
    assert (run.state, run.model_version, run.end_time) == (RunState.SUCCEEDED, "v", START)


def test_a_run_that_the_cluster_never_saw_is_cancelled_at_once():
    assert a_run().cancel(now=START).state is RunState.CANCELLED


def test_a_submitted_run_is_cancelled_through_the_cluster():
    run = a_run().attempt_next(now=START).cancel(now=START)
    assert run.state is RunState.CANCELLING
    assert run.cancel(now=START) is run
    cancelled = run.cancelled(now=START)
    assert cancelled.cancel(now=START) is cancelled


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_a_finished_run_cannot_be_cancelled(state):
    run = a_run().attempt_next(now=START).start(now=START)
    if state == "FAILED":
        run = run.fail(b"", now=START)
    else:
        run = run.trained((), "EPOCHS", now=START).succeed("v", now=START)
    with pytest.raises(RunFinishedError, match=state):
        run.cancel(now=START)


def test_a_run_whose_version_is_being_registered_cannot_be_cancelled():
    run = a_run().attempt_next(now=START).start(now=START).trained((), "EPOCHS", now=START)
    with pytest.raises(RunFinishedError, match="REGISTERING cannot be cancelled: its training is over"):
        run.cancel(now=START)


@pytest.mark.parametrize(
    "action",
    [
        lambda run: run.succeed("v", now=START),
        lambda run: run.cancelled(now=START),
        lambda run: run.start(now=START).start(now=START),
        lambda run: run.fail(b"", now=START).fail(b"", now=START),
    ],
)
def test_transitions_out_of_order_are_refused(action):
    with pytest.raises(RunFinishedError):
        action(a_run())


def test_another_attempt_reads_its_log_from_the_start():
    run = a_run().attempt_next(now=START).accepted(now=START).advance(None, log_seq=7, now=START)
    again = run.attempt_next(now=START)
    assert (again.attempt, again.submitted, again.log_seq, again.job_id) == (2, False, 0, "u1-2")
