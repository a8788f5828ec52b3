"""Signals while a cluster is joined, with a Ray that is played: what it does to them, and what becomes of the run."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infer.cluster.signals import Signals

CODE = 143


@pytest.fixture
def calls() -> Iterator[list[int]]:
    """The program's own handler: it ends the run, and ignores a second signal."""
    before = signal.getsignal(signal.SIGTERM)
    calls: list[int] = []

    def handler(number: int, frame: Any) -> None:
        calls.append(number)
        signal.signal(signal.SIGTERM, lambda *_: calls.append(0))
        sys.exit(CODE)

    signal.signal(signal.SIGTERM, handler)
    try:
        yield calls
    finally:
        signal.signal(signal.SIGTERM, before)


def send() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def ends_with(during: Callable[[Signals], None]) -> BaseException:
    """What ends a block in which a cluster is joined."""
    try:
        with Signals() as signals:
            during(signals)
    except BaseException as error:  # noqa: BLE001 - a SystemExit, too
        return error
    raise AssertionError("nothing has ended it")


def code_of(error: BaseException) -> object:
    return error.code if isinstance(error, SystemExit) else error


@pytest.mark.parametrize("made", [SystemExit(1), RuntimeError("of Ray's"), KeyError("x")])
def test_what_ray_makes_of_an_exit_is_143(calls: list[int], made: BaseException) -> None:
    def waits(_: Signals) -> None:
        try:
            send()
        except SystemExit:
            raise made from None

    assert code_of(ends_with(waits)) == CODE
    send()
    assert calls == [signal.SIGTERM, 0]  # a second one disturbs nothing


def test_rays_own_handler(calls: list[int]) -> None:
    def initialised(signals: Signals) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        try:
            send()
        except SystemExit as end:
            signals.rays(end)
            signals.set()
            send()  # during the cleanup
            raise

    assert code_of(ends_with(initialised)) == CODE
    assert calls == [signal.SIGTERM, 0]


def test_after_ray_has_set_its_own_ours_are_back(calls: list[int]) -> None:
    def initialised(signals: Signals) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signals.set()
        send()

    assert code_of(ends_with(initialised)) == CODE
    assert calls == [signal.SIGTERM]


@pytest.mark.parametrize("error", [SystemExit(2), ValueError("x")])
def test_without_a_signal_nothing_changes(calls: list[int], error: BaseException) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def breaks(signals: Signals) -> None:
        if isinstance(error, SystemExit):
            signals.rays(error)
        raise error

    assert ends_with(breaks) is error
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert calls == []


def test_a_signal_that_is_ignored_stays_ignored(calls: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Signals() as signals:
        signals.set()
        send()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert calls == []
