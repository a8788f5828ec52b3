"""Batches of crops from several patients."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from infer.engine.fallback import Engine
from infer.engine.networks import Seen
from infer.pictures.look import Crop
from infer.scoring.bag import Bag

DRY_RUN = 64  # batch size in a dry run, which only counts pictures

_Item = tuple[Bag, int, Crop]  # a picture's place in its bag


class Batches:
    """Batches of crops from several patients, some of them in parallel."""

    def __init__(self, engine: Engine | None) -> None:
        self._engine = engine
        self.size = engine.batch_size if engine else DRY_RUN
        self.callers = engine.callers if engine else 1
        self._items: list[_Item] = []
        self._under_way: deque[tuple[list[_Item], Future[Seen]]] = deque()
        self._pool = ThreadPoolExecutor(self.callers, thread_name_prefix="networks")

    def add(self, bag: Bag, index: int, crop: Crop) -> None:
        self._items.append((bag, index, crop))
        if len(self._items) == self.size:
            self._submit()
            while len(self._under_way) > self.callers:  # one extra batch is queued, so that no thread is idle
                self._collect()

    def flush(self) -> None:
        self._submit()
        while self._under_way:
            self._collect()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        items, self._items = self._items, []
        if not items:
            return
        if self._engine is None:
            for bag, _, _ in items:
                bag.scored += 1
            return
        images = np.stack([crop for _, _, crop in items])
        clinical = np.stack([bag.clinical.vector() for bag, _, _ in items])
        self._under_way.append((items, self._pool.submit(self._engine.score_pictures, images, clinical)))

    def _collect(self) -> None:
        """Add the oldest batch to its patients, in the order of the pictures, so that sums are reproducible."""
        items, future = self._under_way.popleft()
        seen = future.result()
        members = self._engine.members if self._engine else ()
        finite = _finite(seen, len(items))
        for row, (bag, index, _) in enumerate(items):
            bag.finite &= bool(finite[row])
            if not bag.sums:
                bag.sums = {member.name: member.begin() for member in members}
            values: dict[str, float | int] = {}
            for member in members:
                values |= member.add(bag.sums[member.name], seen[member.name], row)
            bag.images[index].values = values
            bag.scored += 1


def _finite(seen: Seen, number: int) -> npt.NDArray[np.bool_]:
    """Whether all of each picture's outputs are finite: (N,)."""
    finite = np.ones(number, dtype=bool)
    for outputs in seen.values():
        for values in outputs.values():
            finite &= np.isfinite(values).reshape(number, -1).all(axis=1)
    return finite
