"""Who does a replica's work."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from enxerto.inference.replica.turns import InTurn, OneThread, SideBySide


def test_work_in_turn_never_overlaps_and_stays_in_its_thread() -> None:
    turn, running, most = InTurn(), [], []

    def work(caller: int) -> int:
        running.append(caller)
        most.append(len(running))
        running.remove(caller)
        return threading.get_ident()

    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda one: (turn.run(work, one), threading.get_ident()), range(200)))
    assert all(worked == called for worked, called in found)
    assert set(most) == {1}


def test_an_error_in_turn_is_its_callers_alone() -> None:
    turn = InTurn()
    with pytest.raises(ZeroDivisionError):
        turn.run(lambda: 1 // 0)
    assert turn.run(lambda: 1) == 1


def test_one_thread_does_the_work_of_all() -> None:
    one = OneThread()
    with ThreadPoolExecutor(4) as callers:
        found = set(callers.map(lambda _: one.run(threading.get_ident), range(20)))
    assert len(found) == 1
    assert threading.get_ident() not in found
    with pytest.raises(ZeroDivisionError):
        one.run(lambda: 1 // 0)


def test_parts_run_at_once_the_first_in_the_callers_thread() -> None:
    together, side_by_side = threading.Barrier(3, timeout=10), SideBySide(3)

    def work(part: int) -> tuple[int, int]:
        together.wait()
        return part, threading.get_ident()

    found = side_by_side.map(work, [0, 1, 2])
    assert [part for part, _ in found] == [0, 1, 2]
    assert found[0][1] == threading.get_ident()
    assert len({thread for _, thread in found}) == 3
    assert side_by_side.map(work, []) == []


def test_all_callers_together_have_so_many_parts_at_once() -> None:
    side_by_side, lock, running, most = SideBySide(2), threading.Lock(), set(), []
    both = threading.Event()

    def work(part: tuple[int, int]) -> None:
        with lock:
            running.add(part)
            most.append(len(running))
            if len(running) == 2:
                both.set()
        both.wait(10)
        with lock:
            running.remove(part)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda caller: side_by_side.map(work, [(caller, 0), (caller, 1)]), range(4)))
    assert max(most) == 2
