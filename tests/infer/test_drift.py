"""One night against the training patients."""

import re
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from infer.drift.compare import holm, p_values, pool
from infer.drift.measures import TITLES, Values, in_order
from infer.drift.night import FEWEST, Compared, Drift, summed_scores, tonight
from infer.drift.report import as_record, sentence
from infer.drift.scores import normal_scores, quantiles, rank_scores, training_values
from tests import drift_rates
from tests.drift_rates import LEVELS, TRAINING, WITH_TIES, WITHOUT_TIES

ONE_TO_FIFTY = [float(number) for number in range(1, 51)]


def night_of(**measures: Sequence[float]) -> Values:
    """As many patients as the longest measure has values."""
    values = Values()
    for number in range(max(map(len, measures.values()))):
        values.add({key: all_of[number] for key, all_of in measures.items() if number < len(all_of)}, 0.5, "refer")
    return values


def compare(training: Sequence[float], patients: Sequence[float]) -> Compared:
    """One measure alone."""
    drift = tonight({"blue": list(training)}, TRAINING, night_of(blue=patients))
    return drift.measures[0]


def test_a_patients_values_go_to_their_measures_and_gaps_stay_gaps() -> None:
    values = Values()
    values.add({"red": 200.0, "green": 95.0}, 0.75, "malignant")
    values.add({"red": 180.0, "green": float("nan")}, 0.25, "reactive")
    assert values.patients == 2
    assert list(values.of("red")) == [200.0, 180.0]
    assert list(values.of("green")) == [95.0]
    assert list(values.of("probability")) == [0.75, 0.25]
    assert [list(values.of(f"decision_{one}")) for one in ("malignant", "reactive", "refer")] == [
        [1, 0],
        [0, 1],
        [0, 0],
    ]
    assert list(values.of("blue")) == []
    with pytest.raises(ValueError, match=r"^Malignant: is not one of malignant, reactive, refer$"):
        values.add({}, 0.5, "Malignant")


def test_measures_come_in_the_order_of_their_titles_and_unknown_ones_last() -> None:
    assert in_order({"sex", "zebra", "red", "share_10", "share_2", "aardvark"}) == [
        "red", "share_2", "share_10", "sex", "aardvark", "zebra",
    ]  # fmt: skip


def test_training_patients_are_rebuilt_from_their_quantiles() -> None:
    training = np.sort(np.random.default_rng(0).gamma(2, 3, TRAINING))
    rebuilt = training_values(np.quantile(training, LEVELS), TRAINING)
    assert np.abs(rebuilt[3:-3] - training[3:-3]).max() < 0.6  # of values from 0 to 30
    assert np.abs(np.quantile(rebuilt, LEVELS) - np.quantile(training, LEVELS)).max() < 0.4


def test_nobody_is_rebuilt_between_tied_quantiles() -> None:
    assert training_values(np.array([0.0] * 27 + [1.0] * 23), TRAINING).tolist() == [0.0] * 70 + [1.0] * 60
    rebuilt = training_values(np.array([0.0] * 25 + [5.0, *range(10, 34)], np.float64), TRAINING)
    assert np.count_nonzero(rebuilt == 0) == 65
    assert not ((rebuilt > 0) & (rebuilt < 5)).any()


def test_scores_are_where_a_value_stands_among_the_training_patients() -> None:
    at = np.array([0.0, 1.0, 25.5, 50.0, 99.0])
    tail = 2.66521  # the mean of N(0, 1) above its 99th percentile
    assert normal_scores(at, np.array(ONE_TO_FIFTY)) == pytest.approx([-tail, -2.32635, 0, 2.32635, tail], abs=1e-5)
    half = normal_scores(np.array([0.0, 1.0]), np.repeat([0.0, 1.0], 25))
    assert half == pytest.approx([-0.79788, 0.79788], abs=1e-5)  # sqrt(2 / pi)
    one_in_five = normal_scores(np.array([0.0, 1.0]), np.repeat([0.0, 1.0], [40, 10]))
    assert one_in_five == pytest.approx([-0.34996, 1.39981], abs=1e-5)
    assert normal_scores(np.array([94.0, 95.0, 96.0]), np.full(50, 95.0)) == pytest.approx([-tail, 0, tail], abs=1e-5)


@pytest.mark.parametrize("key", TITLES)
def test_the_training_patients_own_scores_have_mean_0_and_variance_1_at_most(key: str) -> None:
    training = np.quantile(WITH_TIES[key](np.random.default_rng(5), 100_000), LEVELS)
    scores = normal_scores(WITH_TIES[key](np.random.default_rng(6), 100_000), training)
    assert abs(scores.mean()) < 0.03
    assert scores.var() < 1.03


def test_equal_values_share_the_mean_of_their_ranks_scores() -> None:
    assert rank_scores(np.array([3.0, 1.0, 3.0])) == pytest.approx([0.33724, -0.67449, 0.33724], abs=1e-5)


def test_p_is_the_share_of_deals_that_are_as_uneven() -> None:
    """Four against three without ties: the highest three in one sample, one of 35 deals; so are the lowest three."""
    pair = pool(np.array([1.0, 2, 3, 4]), np.array([5.0, 6, 7]))
    assert pair.direction == "higher"
    assert p_values([pair], 3) == [pytest.approx(2 / 35, abs=0.01)]


@pytest.mark.parametrize(
    ("patients", "others", "expected"),
    [(20, 3, 0.00207), (20, 4, 0.00024), (100, 5, 0.01506), (100, 8, 0.00115)],
)
def test_of_a_constant_measure_p_is_fishers(patients: int, others: int, expected: float) -> None:
    """C(m, k) / C(n + m, k): all k patients with another value are tonight's."""
    found = compare([95.0] * 50, [80.0] * others + [95.0] * (patients - others))
    assert found.p == pytest.approx(expected, rel=0.35 if expected < 0.001 else 0.15)
    assert found.direction == "lower"
    assert compare([95.0] * 50, [95.0] * patients).p == 1


def test_holm_multiplies_the_smallest_p_by_all_and_never_falls() -> None:
    assert holm([0.03, 0.01, 0.02, 0.9]) == pytest.approx([0.06, 0.04, 0.06, 0.9])
    assert holm([0.4, 0.5]) == [0.8, 0.8]
    assert holm([]) == []


def test_a_shift_is_named_and_the_rest_is_not() -> None:
    rng = np.random.default_rng(3)
    drift = tonight(drift_rates.reference(WITH_TIES, rng), TRAINING, drift_rates.values(WITH_TIES, rng, 100, shift=1.0))
    assert [one.key for one in drift.changed] == ["blue"]
    assert sentence(drift) == "Tonight's patients differ from the training patients: blue higher (p < .001)."
    (blue,) = (one for one in drift.measures if one.key == "blue")
    assert blue.patients == 100
    assert blue.mean == pytest.approx(1, abs=0.25)
    assert blue.training_mean == pytest.approx(0, abs=0.2)
    assert [one.key for one in drift.measures] == list(TITLES)


@pytest.mark.parametrize(
    ("shift", "factor", "direction"),
    [(-1.2, 1.0, "lower"), (1.2, 1.0, "higher"), (0.0, 2.5, "more varied"), (0.0, 0.3, "less varied")],
)
def test_the_direction_is_that_of_the_change(shift: float, factor: float, direction: str) -> None:
    rng = np.random.default_rng(4)
    patients = rng.standard_normal(60) * factor + shift
    found = compare(np.quantile(rng.standard_normal(TRAINING), LEVELS).tolist(), patients.tolist())
    assert (found.direction, found.changed) == (direction, True)


def test_below_twenty_patients_nothing_is_told_and_no_value_leaves() -> None:
    few = tonight({"red": ONE_TO_FIFTY}, TRAINING, night_of(red=[500.0] * (FEWEST - 1)))
    assert not few.changed
    assert sentence(few) == "19 patients: too few to tell (20 needed)."
    record = as_record(few, TRAINING)["measures"]["red"]
    assert (record["mean"], record["median"], record["p"], record["adjusted_p"], record["direction"]) == (
        None, None, None, None, "",
    )  # fmt: skip
    enough = tonight({"red": ONE_TO_FIFTY}, TRAINING, night_of(red=[500.0] * FEWEST))
    assert sentence(enough) == "Tonight's patients differ from the training patients: red higher (p < .001)."


def test_a_measure_that_too_few_patients_have_is_not_compared() -> None:
    reference = {"red": ONE_TO_FIFTY, "green": [95.0] * 50}
    drift = tonight(reference, TRAINING, night_of(red=ONE_TO_FIFTY, green=[20.0] * 19))
    assert [(one.key, one.patients, one.p is None) for one in drift.measures] == [
        ("red", 50, False),
        ("green", 19, True),
    ]
    assert drift.measures[0].adjusted_p == drift.measures[0].p  # one test, not two


def test_sums_are_of_five_patients_or_more() -> None:
    values = night_of(red=[50.0] * 5, blue=[50.0, 1.0, 1.0, 1.0])
    sums = summed_scores({"red": ONE_TO_FIFTY, "blue": ONE_TO_FIFTY}, values)
    assert {key: (round(total, 4), count) for key, (total, count) in sums.items()} == {"red": (11.6317, 5)}


def test_the_order_of_patients_changes_nothing() -> None:
    rng = np.random.default_rng(8)
    reference = drift_rates.reference(WITH_TIES, rng)
    drawn = {key: draw(rng, 2_500) for key, draw in WITH_TIES.items()}  # more than are compared

    def in_this_order(order: npt.NDArray[np.int64]) -> Drift:
        return tonight(reference, TRAINING, night_of(**{key: all_of[order].tolist() for key, all_of in drawn.items()}))

    assert in_this_order(np.arange(2_500)) == in_this_order(rng.permutation(2_500))


def test_false_alarms_do_not_depend_on_the_number_of_patients() -> None:
    """Wide bounds around 5%, for 100 nights each; the slow test has narrow ones."""
    for patients in (20, 100, 500):
        nights, measures = drift_rates.false_alarms(WITHOUT_TIES, patients, 100, seed=0)
        assert 0.01 <= nights <= 0.1
        assert 0.04 <= measures <= 0.06
    assert drift_rates.false_alarms(WITH_TIES, 5, 20, seed=0) == (0, 0)


def test_forty_five_thousand_patients_take_a_second() -> None:
    rng = np.random.default_rng(9)
    values = Values()
    row = dict.fromkeys(TITLES, 0.0)
    for number in range(45_000):
        row["blue"] = float(number)
        values.add(row, 0.5, "refer")
    reference = drift_rates.reference(WITH_TIES, rng)
    started = time.process_time()
    drift = tonight(reference, TRAINING, values)
    assert time.process_time() - started < 5  # 1 second on an idle core
    assert drift.changed


@pytest.mark.parametrize("bad", [[1.0], [1.0, float("nan")], [2.0, 1.0]])
def test_a_bad_reference_is_refused_by_name(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=re.escape("red: must be two or more finite quantiles in ascending order")):
        quantiles("red", bad)
    with pytest.raises(ValueError, match=r"^red: "):
        tonight({"red": bad}, TRAINING, Values())
    with pytest.raises(ValueError, match=r"^1 training patients: must be two or more$"):
        tonight({"red": ONE_TO_FIFTY}, 1, Values())


def test_a_sentence_names_five_measures_and_counts_the_rest() -> None:
    night = night_of(
        **{key: [99.0] * 30 for key in ("red", "green", "blue", "lymph_count", "age_years", "sex", "pictures")}
    )
    keys = ("red", "green", "blue", "lymph_count", "age_years", "sex", "pictures")
    drift = tonight(dict.fromkeys(keys, ONE_TO_FIFTY), TRAINING, night)
    assert sentence(drift) == (
        "Tonight's patients differ from the training patients: red higher, green higher, blue higher, "
        "lymphocyte count higher, age higher and 2 more (p < .001)."
    )


def test_a_patient_who_was_measured_and_got_no_probability_counts_for_the_measures_alone() -> None:
    """Refused as unlike the training patients (--ood refuse)."""
    values = Values()
    for index in range(20):
        values.add({"red": float(index)}, None, None)
        values.add({"red": 5.0}, 0.5, "refer")
    assert values.patients == 40
    assert [len(list(values.of(key))) for key in ("red", "probability", "decision_refer")] == [40, 20, 20]
