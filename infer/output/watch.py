"""What the run says of drift: its patients against the training patients, and all nights' in a history."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infer.bundle.load import Bundle
from infer.bundle.manifest import OperatingPoint
from infer.drift.history import Line, append_history, check_place, read_history, tonights_line
from infer.drift.measures import DECISIONS, Values
from infer.drift.night import summed_scores, tonight
from infer.drift.nights import Nights, over_nights, with_history
from infer.drift.report import as_record, sentence, sentence_of_nights
from infer.scoring.ensemble import decide
from infer.scoring.result import PatientResult

DRIFT = "drift.json"
DIGITS = 16  # of a patient's digest in the history


class Watch:
    """Collects a run's patients, and compares them once all are there."""

    def __init__(
        self,
        bundle: Bundle,
        point: OperatingPoint,
        history: Path | None = None,
        outside: Iterable[tuple[str, Path]] = (),
        others: Iterable[Path] = (),
    ) -> None:
        """Read the history, so that a bad one stops the run before anything is scored.

        Args:
            point: by which the run decides.
            history: --history; None: the nights so far are not looked at.
            outside: folders where no history may lie, each with what it is and why.
            others: files that the run writes or removes, which a history may not be.

        Raises:
            HeldError, OutputError, UsageError: as `read_history` and `check_place`.
        """
        self._bundle, self._history = bundle.bundle_id, history
        known = bundle.manifest.reference
        self._point = point
        self._patients = known.patients
        self._reference = known.measures | _decisions(known.measures["probability"], point)
        self._values, self._new = Values(), Values()
        self._earlier: tuple[Line, ...] = ()
        if history is not None:
            check_place(history, outside, others)
            self._earlier = read_history(history, self._bundle)
        self._seen = {one for line in self._earlier for one in line.seen}
        self._digests: list[str] = []  # of patients who are in no earlier line
        self._line: Line | None = None  # to be appended
        self.said: list[tuple[str, bool]] = []  # each sentence, and whether it tells of drift

    @property
    def changed(self) -> bool:
        """Whether tonight, or the nights so far, differ from the training patients."""
        return any(changed for _, changed in self.said)

    def add(self, result: PatientResult) -> None:
        """Add a patient, in any order; one whose pictures no network has seen does not count."""
        if not result.measures:
            return
        scores = result.scores
        # What the probability alone would decide, as in training. A patient refused as unusual has been measured, too.
        decision = decide(scores.probability, self._point) if scores else None
        patient = result.measures, scores.probability if scores else None, decision
        self._values.add(*patient)
        # Of the pictures alone: a patient's age and name may change from night to night.
        digest = hashlib.sha256("".join(result.contents).encode()).hexdigest()[:DIGITS]
        if digest not in self._seen:
            self._seen.add(digest)
            self._digests.append(digest)
            self._new.add(*patient)

    def compare(self, when: str) -> dict[str, Any]:
        """Compare the patients, and with a history all nights'.

        Args:
            when: ISO date and time at which the run started.

        Returns:
            The content of drift.json.
        """
        drift = tonight(self._reference, self._patients, self._values)
        self.said = [(sentence(drift), bool(drift.changed))]
        nights = self._nights(when) if self._history is not None else None
        if nights:
            self.said.append((sentence_of_nights(nights), bool(nights.changed)))
        return as_record(drift, self._patients, nights)

    def remember(self) -> None:
        """Append the line to the history: once the results are in place, which it must not cost.

        Raises:
            HeldError, OutputError, UsageError: as `append_history`.
        """
        if self._history is not None and self._line is not None:
            append_history(self._history, self._line)

    def _nights(self, when: str) -> Nights:
        if not self._digests:
            return over_nights(self._earlier, self._reference, self._patients)
        seen = tuple(sorted(self._digests))
        run = hashlib.sha256("".join(seen).encode()).hexdigest()[: 2 * DIGITS]
        sums = summed_scores(self._reference, self._new)
        line = tonights_line(when, self._bundle, run, self._new.patients, sums, seen)
        nights, self._line = with_history(self._earlier, line, self._reference, self._patients)
        return nights


def _decisions(probabilities: list[float], point: OperatingPoint) -> dict[str, list[float]]:
    """Quantiles of the three decisions, each 0 or 1, from those of the probability: they depend on the thresholds."""
    made = [decide(probability, point) for probability in probabilities]
    return {f"decision_{one}": sorted(float(decision == one) for decision in made) for one in DECISIONS}
