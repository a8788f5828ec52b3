"""The fast statistics against slow ones of SciPy's, which the runtime does not have."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from infer.drift import compare
from infer.drift.compare import SPREAD_WEIGHT, holm, p_values, pool
from infer.drift.nights import TAU, WIDER, log_e_value
from infer.drift.scores import Floats, normal_scores, rank_scores
from tests.drift_rates import LEVELS, TRAINING

WIDE = 1 + WIDER / TRAINING  # the variance of a score if nothing changed


def slow_scores(pooled: Floats) -> Floats:
    """Every rank's score, and of equal values the mean of theirs, one by one."""
    ranks = stats.rankdata(pooled, method="ordinal")
    by_rank = stats.norm.ppf(ranks / (len(pooled) + 1))
    return np.array([by_rank[pooled == value].mean() for value in pooled])


def slow_p(training: Floats, tonight: Floats, deals: int) -> tuple[float, float]:
    """The statistic, by its moments over all deals, and p by SciPy's permutation test."""
    scores = slow_scores(np.concatenate((training, tonight)))
    n, m = len(training), len(tonight)

    def statistic(_: Floats, of_tonight: Floats, axis: int) -> Floats:
        parts = []
        for power, weight in ((1, 1.0), (2, SPREAD_WEIGHT)):
            values = scores**power
            variance = np.var(values, ddof=1) * n * m / (n + m)
            difference = (of_tonight**power).sum(axis=axis) - m * values.mean()
            parts.append(weight * np.abs(difference) / np.sqrt(variance))
        return np.asarray(np.maximum(*parts))

    found = stats.permutation_test(
        (scores[:n], scores[n:]), statistic, vectorized=True, alternative="greater", n_resamples=deals, rng=1
    )
    return float(found.statistic), float(found.pvalue)


SAMPLES = {
    "no change": lambda rng: (rng.standard_normal(130), rng.standard_normal(20)),
    "shifted": lambda rng: (rng.standard_normal(130), rng.standard_normal(20) + 0.6),
    "spread": lambda rng: (rng.standard_normal(130), rng.standard_normal(60) * 1.4),
    "larger than the training": lambda rng: (rng.standard_normal(130), rng.standard_normal(300) - 0.25),
    "tied": lambda rng: (np.maximum(0, rng.standard_normal(130)), np.maximum(0, rng.standard_normal(40) + 0.5)),
    "0 or 1": lambda rng: (rng.integers(0, 2, 130) * 1.0, (rng.random(40) < 0.7) * 1.0),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_statistic_and_p_are_those_of_a_permutation_test(name: str) -> None:
    training, tonight = SAMPLES[name](np.random.default_rng(11))
    pair = pool(training, tonight)
    statistic, p = slow_p(training, tonight, 20_000)
    assert pair.statistic == pytest.approx(statistic, abs=1e-9)
    assert p_values([pair], len(tonight))[0] == pytest.approx(p, abs=4 * math.sqrt(p / 20_000) + 0.15 * p)


def test_p_is_exact_where_all_deals_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ENOUGH", compare.DRAWS)
    training, tonight = np.array([1.0, 4, 4, 6, 7, 9]), np.array([4.0, 8, 10, 11])
    _, p = slow_p(training, tonight, 10**6)  # all 210 deals
    assert p_values([pool(training, tonight)], 4)[0] == pytest.approx(p, abs=0.006)


@pytest.mark.parametrize(("patients", "others"), [(20, 2), (20, 3), (60, 4)])
def test_a_constant_measure_is_fishers_exact_test(patients: int, others: int) -> None:
    tonight = np.repeat([1.0, 0.0], [others, patients - others])
    table = [[others, patients - others], [0, TRAINING]]
    assert p_values([pool(np.zeros(TRAINING), tonight)], patients)[0] == pytest.approx(
        stats.fisher_exact(table).pvalue, rel=0.3
    )


def test_rank_scores_are_scipys() -> None:
    rng = np.random.default_rng(2)
    for pooled in (rng.standard_normal(2_130), rng.standard_normal(150).round()):
        assert rank_scores(pooled) == pytest.approx(slow_scores(pooled), abs=1e-12)


def test_scores_are_means_of_the_normal_between_the_levels_that_share_a_value() -> None:
    reference = np.sort(np.random.default_rng(3).integers(0, 12, 50) * 1.0)
    for value in np.unique(reference):
        places = np.flatnonzero(reference == value)
        low, high = stats.norm.ppf((places[0] / 50, (places[-1] + 1) / 50))
        mean = integrate.quad(lambda z: z * stats.norm.pdf(z), low, high)[0] / (len(places) / 50)
        expected = stats.norm.ppf(LEVELS[places[0]]) if len(places) == 1 else mean
        assert normal_scores(np.array([value]), reference)[0] == pytest.approx(expected, abs=1e-6)


def test_evidence_is_the_ratio_of_the_integrals_over_the_mean() -> None:
    """The likelihood of 40 patients with the sum 18, integrated over the means that either hypothesis allows."""
    total, patients = 18.0, 40

    def marginal(variance: float) -> float:
        def joint(mean: float) -> float:
            given = stats.norm.pdf(total, mean * patients, math.sqrt(WIDE * patients))
            return float(given * stats.norm.pdf(mean, 0, math.sqrt(variance)))

        return float(integrate.quad(joint, -5, 5, points=[0, total / patients])[0])

    ratio = marginal(WIDE / TRAINING + TAU**2) / marginal(WIDE / TRAINING)
    assert math.exp(log_e_value(total, patients, TRAINING)) == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize(("total", "patients", "more"), [(0.0, 0, 1), (18.0, 40, 1), (-7.0, 9, 30)])
def test_evidence_is_a_martingale_if_nothing_changed(total: float, patients: int, more: int) -> None:
    """Its mean after more patients, given those so far, is what it is now."""
    variance = 1 / (TRAINING + patients)  # of the mean score, given those so far
    following = stats.norm(more * total * variance, math.sqrt(WIDE * (more + more**2 * variance)))

    def weighted(further: float) -> float:
        return math.exp(log_e_value(total + further, patients + more, TRAINING)) * float(following.pdf(further))

    middle, spread = following.mean(), 40 * following.std()
    expected = integrate.quad(weighted, middle - spread, middle + spread, points=[middle], limit=500)[0]
    assert expected == pytest.approx(math.exp(log_e_value(total, patients, TRAINING)), rel=1e-6)


@pytest.mark.parametrize("training", [40, 130, 520])
def test_scores_vary_more_the_fewer_training_patients_there_are(training: int) -> None:
    """By 10 / training patients, both among patients and, times their number, among training samples."""
    rng = np.random.default_rng(6)
    patients = stats.norm.ppf((np.arange(1_000) + 0.5) / 1_000)
    scores = np.array(
        [normal_scores(patients, np.quantile(rng.standard_normal(training), LEVELS)) for _ in range(4_000)]
    )
    assert scores.var(axis=1).mean() == pytest.approx(1 + WIDER / training, abs=0.02)
    assert scores.mean(axis=1).var() * training == pytest.approx(1 + WIDER / training, abs=0.08)


def test_holm_is_the_closed_test_of_all_subsets() -> None:
    """Holm's adjusted p is the largest Bonferroni p of all sets of hypotheses that hold this one."""
    p = np.random.default_rng(5).uniform(0, 0.3, 9)
    subsets = [[at for at in range(9) if number >> at & 1] for number in range(1, 2**9)]
    slow = [max(min(1, len(some) * p[some].min()) for some in subsets if at in some) for at in range(9)]
    assert holm(p.tolist()) == pytest.approx(slow)
