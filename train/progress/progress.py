"""Follows a training through its stages, and says at which it is and how long the rest will take."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from infer.machine.times import about, in_words
from train.progress.estimate import Paces, Stage, pace_of_stage, seconds_of
from train.progress.loops import Loops
from train.progress.report import followed_by

EVERY = 60.0  # seconds between two lines, at least, but for the one with which a stage begins


class Progress:
    """Stages one after the other. Work inside `stage` reports by `train.progress.report.steps`."""

    def __init__(
        self, stages: Sequence[Stage], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            stages: all stages, in order.
            say: takes each line.
            clock: seconds, from whenever.
        """
        self._stages, self._say, self._clock = list(stages), say, clock
        self._paces = Paces()
        self._loops = Loops()
        self._current = -1  # index of the stage that is running
        self._start = self._began = self._reported = self._said = clock()

    def plan(self, stages: Sequence[Stage]) -> None:
        """Costs known better by now, of the same stages; those that are over or running keep theirs."""
        self._stages = [*self._stages[: self._current + 1], *stages[self._current + 1 :]]

    @contextmanager
    def stage(self) -> Iterator[None]:
        """The next stage, from its beginning to its end. The last one's end is said, with the time that all took."""
        self._current += 1
        self._loops = Loops()
        self._began = self._reported = self._clock()
        self._line("")
        with followed_by(self):
            yield
        self._loops.done, self._reported = 1.0, self._clock()
        self._paces = self._measured()
        if self._current == len(self._stages) - 1:
            self._say(f"all {len(self._stages)} stages done in {in_words(self._clock() - self._start)}")

    def left(self) -> float:
        """Seconds until everything is done, as far as can be told now; never below 0."""
        later = self._stages[self._current + 1 :]
        if self._current < 0 or self._loops.done == 1:
            return seconds_of(later, self._paces)
        stage, loops, paces = self._stages[self._current], self._loops, self._measured()
        pace = pace_of_stage(stage, self._paces.of(stage.kind), self._reported - self._began, self._worked())
        # Since the last step ended the rest has shrunk with time, but not below what follows the present step.
        now = pace * stage.cost * min(stage.left, 1 - loops.done) - (self._clock() - self._reported)
        after = pace * stage.cost * min(stage.left, loops.left_after_step)
        return max(now, after, 0.0) + seconds_of(later, paces)

    def _worked(self) -> float:
        """Share of the running stage that was done here."""
        return max(min(self._stages[self._current].left, self._loops.done - self._loops.free), 0.0)

    def _measured(self) -> Paces:
        """The paces, with the finished steps of the running stage."""
        stage = self._stages[self._current]
        return self._paces.after(stage.kind, self._reported - self._began, stage.cost * self._worked())

    def begin(self, name: str, number: int, more: float, before: int) -> int:
        """As `train.progress.report.Follower` says."""
        return self._loops.begin(name, number, more, before)

    def step(self, depth: int, done: int) -> None:
        """As `train.progress.report.Follower` says."""
        self._loops.step(depth, done)
        self._reported = self._clock()
        if self._reported - self._said >= EVERY:
            self._line(self._loops.where)

    def skip(self) -> None:
        """As `train.progress.report.Follower` says."""
        self._loops.skip()

    def _line(self, where: str) -> None:
        self._said = self._clock()
        title = self._stages[self._current].title
        place = f"{title} ({where})" if where else title
        rest = f"{about(self.left())} left"
        if not self._measured().measured:
            rest += ", a first guess: nothing is measured yet"
        self._say(f"stage {self._current + 1} of {len(self._stages)}: {place}; {rest}")
