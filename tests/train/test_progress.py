"""What is said of a training's progress, on a clock that only the test moves."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from train.progress.estimate import FILES, PROCESSOR, Paces, Stage
from train.progress.loops import Loops
from train.progress.progress import EVERY, Progress
from train.progress.report import is_followed, skipped, steps

STAGES = (Stage("pictures", FILES, 20), Stage("network", PROCESSOR, 300), Stage("rest", PROCESSOR, 80))


@dataclass
class Watched:
    """A training whose work takes what the test says."""

    stages: Sequence[Stage] = STAGES
    now: float = 0.0
    lines: list[str] = field(default_factory=list)
    left: list[tuple[float, float]] = field(default_factory=list)  # seconds passed, seconds said to be left

    def __post_init__(self) -> None:
        self.progress = Progress(self.stages, self.lines.append, lambda: self.now)

    def work(self, seconds: float) -> None:
        """Pass time, looking at the estimate on the way."""
        for _ in range(4):
            self.now += seconds / 4
            self.left.append((self.now, self.progress.left()))

    def loop(self, number: int, seconds: float, name: str = "step", **options: float) -> None:
        for _ in steps(range(number), name, **options):  # type: ignore[arg-type]
            self.work(seconds)

    def run(self, *works: Callable[[], None]) -> None:
        for work in works:
            with self.progress.stage():
                work()


def test_on_the_machine_of_the_costs_the_first_guess_is_right() -> None:
    watched = Watched()
    watched.run(lambda: watched.loop(10, 2), lambda: watched.loop(30, 10), lambda: watched.loop(8, 10))
    assert watched.left
    for passed, left in watched.left:
        assert left == pytest.approx(400 - passed, abs=0.01)
    assert watched.progress.left() == 0
    assert watched.lines[-1] == "all 3 stages done in 7 minutes"


@pytest.mark.parametrize("pace", [0.1, 3.0, 20.0])
def test_another_machine_is_measured_by_its_first_steps(pace: float) -> None:
    watched = Watched()
    watched.run(*(lambda cost=cost: watched.loop(10, pace * cost / 10) for cost in (20, 300, 80)))
    for passed, left in watched.left:
        if passed > pace * 51:  # an eighth
            assert left == pytest.approx(pace * 400 - passed, rel=0.25, abs=0.02 * pace * 400)


def test_a_wrong_cost_of_the_running_stage_is_corrected_by_its_steps() -> None:
    """The network takes four times what is expected, and nothing else does."""
    watched = Watched()
    watched.run(lambda: watched.loop(10, 2), lambda: watched.loop(100, 12), lambda: watched.loop(8, 10))
    total = 20 + 1200 + 80
    errors = {passed: left - (total - passed) for passed, left in watched.left}
    assert errors[20] == pytest.approx(-900, abs=1)  # it cannot know
    half = [error for passed, error in errors.items() if 20 + 600 <= passed < 20 + 1200]
    assert max(map(abs, half)) < 0.25 * total  # the rest is still believed to be as slow as this stage
    assert min(left for _, left in watched.left) >= 0


def test_time_left_falls_while_a_step_runs_but_not_below_what_follows_it() -> None:
    watched = Watched([Stage("only", PROCESSOR, 100)])
    with watched.progress.stage():
        loop = steps(range(10), "step")
        next(loop)
        assert watched.progress.left() == 100
        watched.now = 6
        assert watched.progress.left() == 94
        watched.now = 50  # this step takes five times as long as expected
        assert watched.progress.left() == pytest.approx(90)
        next(loop)  # now it is known
        assert 90 < watched.progress.left() < 9 * 50


def test_steps_of_an_earlier_call_cost_nothing() -> None:
    """Two of six trainings are there, and ten of twenty epochs of the third."""
    watched = Watched([Stage("network", PROCESSOR, 600, left=4 / 6)])

    def work() -> None:
        for training in steps(range(6), "training"):
            if training < 2:
                skipped()
            else:
                begun = 10 if training == 2 else 0
                for _ in steps(range(begun, 20), "epoch", before=begun):
                    watched.work(2 * 5)  # half as fast as expected

    watched.run(work)
    total = 2 * 350
    assert watched.now == total
    for passed, left in watched.left:
        if passed > total / 4:
            assert left == pytest.approx(total - passed, rel=0.15, abs=25)
    assert "about 7 minutes left" in watched.lines[0]  # four trainings at the pace expected


def test_stages_of_an_earlier_call_cost_nothing_and_tell_no_pace() -> None:
    stages = [Stage("pictures", FILES, 20, left=0), Stage("network", PROCESSOR, 300, left=0), STAGES[2]]
    watched = Watched(stages)
    watched.run(lambda: watched.work(0.1), lambda: watched.work(0.1), lambda: watched.loop(8, 20))
    assert watched.lines[:3] == [
        "stage 1 of 3: pictures; about 80 seconds left, a first guess: nothing is measured yet",
        "stage 2 of 3: network; about 80 seconds left, a first guess: nothing is measured yet",
        "stage 3 of 3: rest; about 80 seconds left, a first guess: nothing is measured yet",
    ]
    assert watched.lines[3:-1] == [
        "stage 3 of 3: rest (step 4 of 8); about 2 minutes left",  # 100 seconds
        "stage 3 of 3: rest (step 7 of 8); about 40 seconds left",
    ]


def test_a_line_a_stage_and_at_most_one_a_minute_between() -> None:
    watched = Watched()
    said: list[float] = []

    def say(line: str) -> None:
        watched.lines.append(line)
        said.append(watched.now)

    watched.progress = Progress(STAGES, say, lambda: watched.now)
    watched.run(lambda: watched.loop(200, 0.1), lambda: watched.loop(100, 3), lambda: watched.loop(160, 0.5))
    begins = [line for line in watched.lines if re.fullmatch(r"stage \d of 3: \w+; .*", line)]
    assert [line.partition(";")[0] for line in begins] == [
        f"stage {n + 1} of 3: {s.title}" for n, s in enumerate(STAGES)
    ]
    between = [(at, line) for at, line in zip(said, watched.lines, strict=True) if line not in begins][:-1]
    assert len(between) == 300 // EVERY + 80 // EVERY
    for at, line in between:
        before = [time for time in said if time < at]
        assert at - before[-1] >= EVERY
        assert re.fullmatch(r"stage [23] of 3: \w+ \(step \d+ of \d+\); about [^,]* left", line)


def test_loops_inside_one_another_and_after_one_another() -> None:
    loops = Loops()
    outer = loops.begin("training", 4, 2, 0)  # four trainings, then one that costs as much as two
    assert loops.where == "training 1 of 5"
    inner = loops.begin("epoch", 10, 0, 0)
    loops.step(inner, 5)
    assert loops.done == pytest.approx(0.5 / 6)
    assert loops.where == "training 1 of 5, epoch 6 of 10"
    loops.step(inner, 10)
    another = loops.begin("mixture", 3, 0, 0)  # in the same training: nothing is taken back
    assert another == inner
    assert loops.done == pytest.approx(1 / 6)
    for done in (1, 2, 3, 4):
        loops.step(outer, done)
    assert loops.done == pytest.approx(4 / 6)
    assert loops.where == "training 5 of 5"
    last = loops.begin("epoch", 10, 0, 4)
    assert loops.done == pytest.approx((4 + 0.8) / 6)
    assert loops.free == pytest.approx(0.8 / 6)
    loops.step(last, 10)
    assert loops.done == pytest.approx(1)


def test_nobody_follows_outside_a_stage() -> None:
    watched = Watched()
    assert list(steps(iter("abc"), "letter")) == ["a", "b", "c"]
    skipped()
    assert not is_followed()
    watched.run(lambda: watched.loop(1, 1))
    assert not is_followed()
    with pytest.raises(ZeroDivisionError):
        watched.run(lambda: watched.loop(1, 1 // 0))
    assert not is_followed()


def test_a_stage_without_steps_is_over_when_it_ends() -> None:
    watched = Watched()
    with watched.progress.stage():
        watched.work(20)
    assert watched.progress.left() == pytest.approx(380)


def test_costs_known_later_replace_those_of_stages_to_come() -> None:
    watched = Watched()
    with watched.progress.stage():
        watched.loop(10, 2)
    assert watched.progress.left() == pytest.approx(380)
    watched.progress.plan([STAGES[0], Stage("network", PROCESSOR, 30), STAGES[2]])
    assert watched.progress.left() == pytest.approx(110)


def test_a_kind_of_work_has_its_own_pace() -> None:
    paces = Paces()
    assert paces.of(PROCESSOR) == 1
    paces = paces.after(FILES, 2000, 1000)
    assert paces.of(PROCESSOR) == paces.of(FILES) == pytest.approx(2, rel=0.01)
    paces = paces.after(PROCESSOR, 100, 1000)
    assert paces.of(PROCESSOR) == pytest.approx(0.1, rel=0.15)
    assert paces.of(FILES) == pytest.approx(2, rel=0.01)
