"""What the run says of drift: its patients against the training patients, and all nights' in a history."""

import hashlib
from pathlib import Path
from typing import Any

from infer.bundle.load import Bundle
from infer.bundle.manifest import OperatingPoint
from infer.drift.history import Line, append_history, check_place, read_history, tonights_line
from infer.drift.measures import DECISIONS, Values
from infer.drift.night import tonight
from infer.drift.nights import Nights, with_history
from infer.drift.report import as_record, sentence, sentence_of_nights
from infer.scoring.ensemble import decide
from infer.scoring.result import PatientResult

DRIFT = "drift.json"


class Watch:
    """Collects a run's patients, and compares them once all are there."""

    def __init__(
        self,
        bundle: Bundle,
        point: OperatingPoint,
        history: Path | None = None,
        cohort: Path = Path(),
        others: tuple[Path, ...] = (),
    ) -> None:
        """Read the history, so that a bad one stops the run before anything is scored.

        Args:
            point: by which the run decides.
            history: --history; None: the nights so far are not looked at.
            cohort: the patients' folder, where no history may lie.
            others: files that the run writes or removes, which a history may not be.

        Raises:
            HeldError, OutputError, UsageError: as `read_history` and `check_place`.
        """
        self._bundle, self._history = bundle.bundle_id, history
        known = bundle.manifest.reference
        self._patients = known.patients
        self._reference = known.measures | _decisions(known.measures["probability"], point)
        self._values = Values()
        self._fingerprints: list[str] = []
        self._earlier: tuple[Line, ...] = ()
        if history is not None:
            check_place(history, cohort, others)
            self._earlier = read_history(history, self._bundle)
        self.sentences: list[str] = []  # for the log
        self.changed = False  # whether tonight, or the nights so far, differ from the training patients

    def add(self, result: PatientResult) -> None:
        """Add a patient, in any order; one who was not scored does not count."""
        self._fingerprints.append(result.fingerprint)
        if result.scores:
            self._values.add(result.measures, result.scores.probability, result.scores.decision)

    def end(self, when: str) -> dict[str, Any]:
        """Compare, and append tonight's line to the history.

        Args:
            when: ISO date and time at which the run started.

        Returns:
            The content of drift.json.

        Raises:
            HeldError, OutputError, UsageError: as `append_history`.
        """
        drift = tonight(self._reference, self._patients, self._values)
        nights: Nights | None = None
        if self._history is not None:
            line = tonights_line(when, self._bundle, self._run_key(), drift.patients, drift.sums)
            nights, line = with_history(self._earlier, line, self._reference, self._patients)
            append_history(self._history, line)
        self.sentences = [sentence(drift), *([sentence_of_nights(nights)] if nights else [])]
        self.changed = bool(drift.changed) or bool(nights and nights.changed)
        return as_record(drift, self._patients, nights)

    def _run_key(self) -> str:
        """The same patients and pictures again, in a resumed run or another night, do not count twice."""
        return hashlib.sha256("".join(sorted(self._fingerprints)).encode()).hexdigest()[:32]


def _decisions(probabilities: list[float], point: OperatingPoint) -> dict[str, list[float]]:
    """Quantiles of the three decisions, each 0 or 1, from those of the probability: they depend on the thresholds."""
    made = [decide(probability, point) for probability in probabilities]
    return {f"decision_{one}": sorted(float(decision == one) for decision in made) for one in DECISIONS}
