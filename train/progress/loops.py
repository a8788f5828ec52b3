"""How much of a stage is done, from the steps of its loops."""

from dataclasses import dataclass


@dataclass
class Loop:
    """A loop that has begun."""

    name: str  # of one step
    number: int  # of steps, with those of an earlier call, without what follows the loop
    more: float  # what follows the loop, as a multiple of one step
    done: int

    @property
    def total(self) -> float:
        """All of it, in steps."""
        return max(self.number + self.more, 1e-9)

    @property
    def present(self) -> float:
        """The present step, as a multiple of one step; 0 once everything is done."""
        return 1.0 if self.done < self.number else self.more if self.done == self.number else 0.0

    @property
    def place(self) -> str:
        """For people: epoch 12 of 36."""
        last = self.number + (self.more > 0)
        return f"{self.name} {min(self.done + 1, last)} of {last}"


class Loops:
    """The loops of one stage. Shares are of the whole stage, between 0 and 1."""

    def __init__(self) -> None:
        self._open: list[Loop] = []
        self.done = 0.0  # share that is done; it never falls, whatever the loops do
        self.free = 0.0  # share that an earlier call did

    def begin(self, name: str, number: int, more: float, before: int) -> int:
        """A loop begins, in the present step of the loop before it. Returns its depth."""
        while self._open and not self._open[-1].present:  # that one is over, not around this one
            self._open.pop()
        self.free += self._around(len(self._open)) * before / max(number + more, 1e-9)
        self._open.append(Loop(name, number, more, before))
        self._update()
        return len(self._open) - 1

    def step(self, depth: int, done: int) -> None:
        """So many steps of the loop at this depth are done; loops inside it are over."""
        if depth < len(self._open):
            del self._open[depth + 1 :]
            self._open[depth].done = done
            self._update()

    def skip(self) -> None:
        """The present step of the innermost loop costs nothing."""
        self.free += self._around(len(self._open)) if self._open else 0.0

    @property
    def left_after_step(self) -> float:
        """Share that is left once the present step of the innermost loop is done."""
        return max(1 - self.done - self._around(len(self._open)), 0.0)

    @property
    def where(self) -> str:
        """The present steps, for people: training 2 of 6, epoch 12 of 36."""
        return ", ".join(one.place for one in self._open)

    def _around(self, depth: int) -> float:
        """Share that the present steps of the loops above this depth are: inside them is the loop at this depth."""
        share = 1.0
        for loop in self._open[:depth]:
            share *= loop.present / loop.total
        return share

    def _update(self) -> None:
        share = sum(self._around(depth) * loop.done / loop.total for depth, loop in enumerate(self._open))
        self.done = min(max(self.done, share), 1.0)
