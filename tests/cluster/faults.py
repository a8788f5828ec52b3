"""Actors with a fault, which the driver starts in place of the real one. In a module: Ray pickles their names alone."""

import os
import signal

from infer.cluster.scorer import Scorer
from infer.cluster.work import Answer, answer_text, patient_of
from infer.engine.fallback import Engine
from infer.reasons import Reason
from infer.scoring.result import PatientResult

POISON = "S003"
BLIND = "LYMPHO_TEST_BLIND"  # in the environment of a node whose share is gone in mid-run
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


class Blind(Scorer):
    """On one node finds no folder of any patient, as where a share is no longer mounted."""

    def score(self, patient: str) -> str:
        if not os.environ.get(BLIND):
            return super().score(patient)
        name = patient_of(patient).patient_id
        reason = Reason.FOLDER_MISSING.text(hint="")
        return answer_text(Answer(PatientResult(name, Reason.FOLDER_MISSING.status, reason, None, None, ())))


class Disobedient(Scorer):
    """Its networks fail at their first batch, on every node."""

    def _numerics(self, engine: Engine) -> str:
        numerics = super()._numerics(engine)

        def fail(*_: object) -> None:
            raise MemoryError("for the test")

        engine.score_pictures = fail  # type: ignore[method-assign, assignment]
        return numerics
