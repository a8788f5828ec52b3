"""What is said of drift: a record for drift.json, and a sentence each of tonight and of all nights.

Nothing here is a patient's: means and medians are of 20 patients or more.
"""

from collections.abc import Sequence
from typing import Any

from infer.drift.compare import DRAWS
from infer.drift.night import ALPHA, FEWEST, Compared, Drift
from infer.drift.nights import ALARM, Nights, OverNights

MOST_NAMED = 5  # measures in a sentence
SMALLEST_NAMED = 0.001  # p; below it only that it is below


def as_record(drift: Drift, training_patients: int, nights: Nights | None = None) -> dict[str, Any]:
    """The content of drift.json.

    Returns:
        `patients`, `patients_needed`, `training_patients`, `alpha`, `draws`, `enough`, `changed` (whether any measure
        did), `sentence`; `measures` by key, in order: `title`, `patients` (that have a value), `mean`, `median`,
        `training_mean`, `training_median`, `p`, `adjusted_p`, `changed`, `direction`. With fewer than 20 patients
        `mean`, `median`, `p` and `adjusted_p` are null, and `direction` is empty. `nights` is null without a history.
        With one: `runs`, `patients`, `evidence` and `alarm_from`, `changed`, `sentence`, and `measures` by key:
        `title`, `patients`, `mean_score`, `e_value`, `since`, `direction` (only after an alarm, else empty).
    """
    return {
        "patients": drift.patients,
        "patients_needed": FEWEST,
        "training_patients": training_patients,
        "alpha": ALPHA,
        "draws": DRAWS,
        "enough": drift.enough,
        "changed": bool(drift.changed),
        "sentence": sentence(drift),
        "measures": {
            one.key: {
                "title": one.title,
                "patients": one.patients,
                "mean": one.mean,
                "median": one.median,
                "training_mean": one.training_mean,
                "training_median": one.training_median,
                "p": one.p,
                "adjusted_p": one.adjusted_p,
                "changed": one.changed,
                "direction": one.direction,
            }
            for one in drift.measures
        },
        "nights": nights and _of_nights(nights),
    }


def sentence(drift: Drift) -> str:
    """What to say of tonight."""
    if not drift.enough:
        return f"{_patients(drift.patients)}: too few to tell ({FEWEST} needed)."
    if not drift.changed:
        return f"No drift found ({_patients(drift.patients)})."
    largest = max(one.adjusted_p or 0 for one in drift.changed[:MOST_NAMED])
    return f"Tonight's patients differ from the training patients: {_named(drift.changed)} ({_p(largest)})."


def sentence_of_nights(nights: Nights) -> str:
    """What to say of all nights."""
    over = f"{nights.runs} run{'s' * (nights.runs != 1)} in the history ({_patients(nights.patients)})"
    if not nights.changed:
        return f"{over}: no drift found."
    since = nights.changed[0].since
    return f"{over}: patients differ from the training patients, found on {since[:10]}: {_named(nights.changed)}."


def _of_nights(nights: Nights) -> dict[str, Any]:
    return {
        "runs": nights.runs,
        "patients": nights.patients,
        "evidence": nights.evidence,
        "alarm_from": ALARM,
        "changed": bool(nights.changed),
        "sentence": sentence_of_nights(nights),
        "measures": {
            one.key: {
                "title": one.title,
                "patients": one.patients,
                "mean_score": one.mean_score,
                "e_value": one.e_value,
                "since": one.since,
                "direction": one.direction if one.since else "",
            }
            for one in nights.measures
        },
    }


def _named(measures: Sequence[Compared] | Sequence[OverNights]) -> str:
    named = [f"{one.title} {one.direction}" for one in measures[:MOST_NAMED]]
    more = len(measures) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _patients(count: int) -> str:
    return f"{count} patient{'s' * (count != 1)}"


def _p(p: float) -> str:
    if p < SMALLEST_NAMED:
        return "p < .001"
    return f"p = {p:.3f}".replace("0.", ".")
