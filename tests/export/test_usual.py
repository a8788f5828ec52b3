"""When a patient is unlike the training patients: the share held up out of fold, and floors."""

import numpy as np
import pytest
from msgspec import structs

from export.usual import JUDGED, LIMIT, make_usual
from infer.bundle.reference import problems
from infer.scoring.unusual import likeness
from tests.infer.manifests import REFERENCE
from train.core.arrays import Floats


def drawn(rng: np.random.Generator, patients: int) -> dict[str, Floats]:
    """Three measures, one skewed; an age; one that is not judged."""
    return {
        "sharpness": rng.normal(1, 0.1, patients),
        "nucleus_area": rng.lognormal(0, 0.5, patients),
        "red": rng.normal(180, 8, patients),
        "age_years": rng.uniform(20, 90, patients),
        "lymph_count": rng.lognormal(2, 0.8, patients),
        "sex": rng.integers(0, 2, patients).astype(float),
    }


def test_new_patients_of_the_same_hospital_are_held_up_as_rarely_as_the_limit_says() -> None:
    """Over 200 bundles of 130 patients; the limit admits three ranks of 131, 2.3%, and the ranges a little more."""
    rng = np.random.default_rng(0)
    held_up = []
    for _ in range(200):
        usual = make_usual(drawn(rng, 130))
        new = drawn(rng, 100)
        rows = [{name: float(of[index]) for name, of in new.items()} for index in range(100)]
        held_up += [bool(likeness(row, usual).unusual) for row in rows]
    assert 0.018 < np.mean(held_up) < 0.035


def test_the_training_patients_are_judged_by_all_the_others() -> None:
    """A slow reference: the quantiles of the others, for each patient and measure."""
    measures = drawn(np.random.default_rng(1), 25)
    usual = make_usual(measures)
    scores = []
    for patient in range(25):
        largest = 0.0
        for name in ("sharpness", "nucleus_area", "red"):
            others = np.delete(measures[name], patient)
            low, middle, high = np.quantile(others, [0.01, 0.5, 0.99])
            if name == "red":
                low, high = min(low, middle - 1), max(high, middle + 1)
            value = measures[name][patient]
            by = (value - middle) / (high - middle) if value >= middle else (middle - value) / (middle - low)
            largest = max(largest, by)
        scores.append(largest)
    assert usual.scores == pytest.approx(sorted(scores), rel=5e-4)  # of rounded quantiles
    assert usual.spans.keys() == {"sharpness", "nucleus_area", "red"}
    age, count = measures["age_years"], measures["lymph_count"]
    assert usual.ranges["age_years"].low == pytest.approx(age.min() - 5, rel=1e-5)
    assert usual.ranges["age_years"].high == pytest.approx(age.max() + 5, rel=1e-5)
    assert usual.ranges["lymph_count"].low == pytest.approx(count.min() / 1.25, rel=1e-5)
    assert usual.ranges["lymph_count"].high == pytest.approx(count.max() * 1.25, rel=1e-5)


def test_what_hardly_varies_in_training_does_not_make_everybody_unusual() -> None:
    measures = drawn(np.random.default_rng(2), 130)
    measures |= {"slide_blue": np.full(130, 204.0), "jpeg_quality": np.full(130, 95.0)}
    measures["features_outside"] = np.random.default_rng(3).normal(0.5, 0.1, 130)
    usual = make_usual(measures)
    typical = {name: float(np.median(of)) for name, of in measures.items()}

    def unusual(**changed: float) -> tuple[str, ...]:
        return likeness(typical | changed, usual).unusual

    assert unusual() == unusual(slide_blue=205.0) == unusual(jpeg_quality=100.0) == unusual(jpeg_quality=88.0) == ()
    assert unusual(slide_blue=212.0) == ("slide_blue high",)
    assert unusual(jpeg_quality=30.0) == ("jpeg_quality low",)
    assert unusual(features_outside=1.5) == ("features_outside high",)
    assert unusual(features_outside=0.0) == ()  # nearer to the training patients than most of them
    assert unusual(age_years=0.5, lymph_count=0.9) == ("age_years low", "lymph_count low")


@pytest.mark.parametrize("patients", [5, 20, 40, 130])
def test_the_section_is_valid_however_few_patients_there_were(patients: int) -> None:
    usual = make_usual(drawn(np.random.default_rng(3), patients))
    assert list(problems(structs.replace(REFERENCE, patients=patients, usual=usual), set(JUDGED))) == []
    assert usual.limit == LIMIT or 1 / (1 + patients) < usual.limit
    far = likeness({"sharpness": 100.0, "age_years": 50.0, "lymph_count": 8.0}, usual)
    assert far.unusual == ("sharpness high",)
