"""Actors with a fault, which the driver starts in place of the real one. In a module: Ray pickles their names alone."""

import os
import signal

from infer.cluster.scorer import Scorer
from infer.cluster.work import patient_of
from infer.engine.fallback import Engine

POISON = "S003"
ROUNDS = "LYMPHO_TEST_ROUNDS"  # in the environment of a node whose processors round otherwise
OTHER = "0" * 64


class Poisoned(Scorer):
    """Dies whenever one patient is in its hands, as from a lack of memory."""

    def score(self, patient: str) -> str:
        if patient_of(patient).patient_id == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(patient)


class Rounding(Scorer):
    """Rounds as the others do, and on one node says that it does not."""

    def _numerics(self, engine: Engine) -> str:
        numerics = super()._numerics(engine)
        return OTHER if os.environ.get(ROUNDS) else numerics


class Disobedient(Scorer):
    """Its networks fail at their first batch, on every node."""

    def _numerics(self, engine: Engine) -> str:
        numerics = super()._numerics(engine)

        def fail(*_: object) -> None:
            raise MemoryError("for the test")

        engine.score_pictures = fail  # type: ignore[method-assign, assignment]
        return numerics
