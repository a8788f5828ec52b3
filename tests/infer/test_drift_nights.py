"""The test over nights, and what is said of it."""

import math
from pathlib import Path

import numpy as np
import pytest

from infer.drift.history import Line, append_history, read_history, tonights_line
from infer.drift.measures import TITLES
from infer.drift.night import summed_scores, tonight
from infer.drift.nights import ALARM, log_e_value, over_nights, with_history
from infer.drift.report import as_record, sentence_of_nights
from tests.drift_rates import CHANGED, TRAINING, WITH_TIES, WITHOUT_TIES, first_alarm, values
from tests.infer.test_drift import ONE_TO_FIFTY, night_of


def line(night: int, patients: int, **scores: float) -> Line:
    """A run whose patients have this mean score."""
    sums = {key: (score * patients, patients) for key, score in scores.items()}
    return tonights_line(f"2031-05-{night:02}T02:00:00+00:00", "bundle", f"run {night}", patients, sums)


def test_evidence_is_the_ratio_of_two_normal_densities() -> None:
    """30 patients with the sum 21: its SD is 6.31 if nothing changed, 16.3 if there is drift."""
    unchanged = (1 + 10 / 130) * (30 + 900 / 130)
    drifting = unchanged + 900 * 0.5**2
    density = {
        variance: math.exp(-(21**2) / 2 / variance) / math.sqrt(2 * math.pi * variance)
        for variance in (unchanged, drifting)
    }
    assert math.exp(log_e_value(21, 30, 130)) == pytest.approx(density[drifting] / density[unchanged])
    assert log_e_value(0, 0, 130) == 0


def test_evidence_of_no_change_falls_and_stays() -> None:
    falling = [log_e_value(0, patients, 130) for patients in (1, 10, 100, 1_000, 100_000)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(-0.5 * math.log(1 + 0.25 * 130 / (1 + 10 / 130)), abs=0.01)


def test_the_training_samples_own_error_never_grows_into_an_alarm() -> None:
    """2 SDs of the mean of 130: however many patients have that mean, it may be the training patients'."""
    nights = over_nights([line(night, 10_000, red=2 / math.sqrt(130)) for night in range(1, 32)], ["red"], 130)
    assert nights.measures[0].patients == 310_000
    assert nights.measures[0].e_value < 2
    assert not nights.changed
    assert sentence_of_nights(nights) == "31 runs in the history (310000 patients): no drift found."


def test_a_lasting_change_raises_an_alarm_that_stays() -> None:
    same = [line(night, 10, red=0.0, blue=0.0) for night in (1, 2)]
    changed = [line(night, 10, red=-1.0, blue=0.05) for night in range(3, 9)]
    back = [line(night, 10, red=0.5, blue=0.0) for night in range(9, 20)]
    reference = ["blue", "red"]
    before, during, after = (
        over_nights(lines, reference, 130) for lines in (same, same + changed, same + changed + back)
    )
    assert not before.changed
    assert [(one.key, one.direction, one.since[:10]) for one in during.changed] == [("red", "lower", "2031-05-05")]
    assert during.evidence > ALARM > after.evidence
    assert [one.since[:10] for one in after.changed] == ["2031-05-05"]
    assert sentence_of_nights(during) == (
        "8 runs in the history (80 patients): patients differ from the training patients, found on 2031-05-05: "
        "red lower."
    )


def test_an_alarm_takes_more_where_there_are_more_measures() -> None:
    night = [line(1, 30, red=0.75)]  # e: 295
    assert over_nights(night, ["red"], 130).changed
    assert not over_nights(night, list(TITLES), 130).changed


def test_tonight_counts_once_also_when_its_line_is_there() -> None:
    earlier, mine = [line(1, 10, red=0.5)], line(2, 8, red=0.5)
    nights, written = with_history(earlier, mine, ["red"], 130)
    assert (nights.runs, nights.patients, nights.measures[0].patients) == (2, 18, 18)
    assert written.evidence == pytest.approx(math.exp(log_e_value(9, 18, 130)))
    assert (written.run, written.alarm) == ("run 2", False)
    again, _ = with_history([*earlier, written], mine, ["red"], 130)
    assert again == nights


def test_what_the_file_gives_back_says_the_same(tmp_path: Path) -> None:
    """A run that is killed after its line was appended, and starts again."""
    path, reference = tmp_path / "history.jsonl", {"red": ONE_TO_FIFTY}
    for night in (1, 2):
        sums = summed_scores(reference, night_of(red=[40.0, 45.0, 30.0, 49.0, 33.0, 41.5]))
        mine = tonights_line(f"2031-05-{night:02}", "bundle", f"run {night}", 6, sums)
        nights, written = with_history(read_history(path, "bundle"), mine, reference, TRAINING)
        assert append_history(path, written)
    again, rewritten = with_history(read_history(path, "bundle"), mine, reference, TRAINING)
    assert (again, rewritten) == (nights, written)
    assert (again.runs, again.patients) == (2, 12)
    assert not append_history(path, rewritten)


def test_a_measure_that_a_night_lacks_waits() -> None:
    nights = over_nights([line(1, 10, red=0.5), line(2, 3)], ["red", "blue"], 130)
    assert [(one.key, one.patients, one.e_value) for one in nights.measures][1] == ("blue", 0, 1.0)
    assert nights.patients == 10  # three are too few to count


def test_the_record_says_what_was_found() -> None:
    reference, values_tonight = {"red": ONE_TO_FIFTY}, night_of(red=[50.0] * 30)
    drift, sums = tonight(reference, TRAINING, values_tonight), summed_scores(reference, values_tonight)
    nights = over_nights([tonights_line("2031-05-01T02:00:00+00:00", "b", "r", 30, sums)], ["red"], TRAINING)
    record = as_record(drift, TRAINING, nights)
    assert record["changed"] is True
    assert record["measures"]["red"]["training_median"] == 25.5
    assert record["measures"]["red"] | {"p": 0, "adjusted_p": 0} == {
        "title": "red", "patients": 30, "mean": 50.0, "median": 50.0, "training_mean": 25.5, "training_median": 25.5,
        "p": 0, "adjusted_p": 0, "changed": True, "direction": "higher",
    }  # fmt: skip
    assert record["nights"]["changed"] is True
    assert record["nights"]["measures"]["red"]["mean_score"] == pytest.approx(2.3263, abs=1e-4)
    assert record["nights"]["measures"]["red"]["since"] == "2031-05-01T02:00:00+00:00"
    assert as_record(drift, TRAINING)["nights"] is None


def test_looking_every_night_for_300_nights_does_not_cry_wolf() -> None:
    """Training patients drawn anew each time; 200 hospitals of each kind here, 1,000 in the slow test."""
    rng = np.random.default_rng(0)
    for hospital in (WITH_TIES, WITHOUT_TIES):
        alarms = [first_alarm(hospital, rng, 300, 5)[0] for _ in range(200)]
        assert np.count_nonzero(alarms) <= 10


def test_a_shift_of_half_an_sd_is_found_among_all_measures() -> None:
    rng = np.random.default_rng(1)
    first = [first_alarm(WITH_TIES, rng, 60, 5, shift=0.5) for _ in range(40)]
    found = [night for night, right in first if night and right]
    assert len(found) >= 28
    assert np.median(found) <= 40


def test_a_night_of_few_patients_counts_over_nights() -> None:
    rng = np.random.default_rng(2)
    reference = {
        key: np.quantile(draw(rng, TRAINING), np.arange(0.01, 1, 0.02)).tolist() for key, draw in WITH_TIES.items()
    }
    lines = []
    for night in range(1, 16):
        seven = values(WITH_TIES, rng, 7, shift=1.2)
        assert not tonight(reference, TRAINING, seven).enough
        lines.append(tonights_line(f"2031-05-{night:02}", "b", f"{night}", 7, summed_scores(reference, seven)))
    nights = over_nights(lines, reference, TRAINING)
    assert nights.changed[0].key == CHANGED
    assert nights.changed[0].since <= "2031-05-03"
    assert nights.patients == 105
