"""What gives the label away is found, and clean cohorts seldom raise an alarm. All tables are drawn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from infer.bundle.load import REFERENCE, load_bundle
from infer.pictures.measure import measured
from tests.synthetic import STAIN_SD_PATIENT, draw_cell
from tests.train.checked import looked
from train.checking.finding import Finding, Severity
from train.checking.giveaways import findings_of_giveaways, given_away, ranks, variables
from train.checking.likeness import findings_of_likeness
from train.checking.stains import findings_of_stains, two_groups
from train.checking.summaries import Summaries
from train.core.arrays import Floats, Labels

CORRECT, LOOK, FINE = Severity


def labels(patients: int, share: float = 0.5) -> Labels:
    return np.random.default_rng(patients).permutation((np.arange(patients) < share * patients).astype(np.int64))


def alarms(found: list[Finding]) -> list[str]:
    return [one.what for one in found if "can be told from" in one.what]


def test_clean_cohorts_raise_an_alarm_in_fewer_than_one_in_twenty() -> None:
    rng = np.random.default_rng(7)
    raised, looked_at = 0, 400
    for _ in range(looked_at):
        patients = int(rng.choice([40, 80, 150, 400]))
        of = (rng.random(patients) < rng.uniform(0.25, 0.75)).astype(np.int64)
        of[:10] = np.arange(10) % 2
        columns = {
            **{f"continuous {number}": rng.normal(size=patients) for number in range(5)},
            **{f"whole {number}": rng.integers(0, 4, patients).astype(float) for number in range(3)},
        }
        raised += bool(given_away(columns, of))
    assert raised / looked_at < 0.05
    assert raised > 0  # the level is no formality


def test_a_clean_cohort_is_told_to_be_one() -> None:
    found = findings_of_giveaways(looked(labels(100)))
    assert alarms(found) == []
    assert found[-1].what.endswith("(4 looked at)")  # the ID, the rows, dates, sizes in bytes


def test_an_id_that_tells_the_label() -> None:
    of = labels(60)
    given = looked(of)
    named = [f"{'RM'[label]}{place}" for place, label in enumerate(of)]
    (one,) = [one for one in findings_of_giveaways(replace(given, patient_ids=named)) if one.severity is LOOK]
    assert one.what.startswith("The label can be told from the ID: AUC 0.00 [0.00, 0.00]")


def test_a_table_sorted_by_label_and_files_of_two_days() -> None:
    of = labels(60)
    given = looked(of)
    lines = np.argsort(np.argsort(of, kind="stable")) + 2
    files = given.files.assign(modified=1.7e9 + 86_400 * of[given.owner])
    found = [
        one.what for one in findings_of_giveaways(replace(given, lines=lines, files=files)) if one.severity is LOOK
    ]
    assert [what.partition(":")[0] for what in found] == [
        "The label can be told from the order of rows",
        "The label can be told from the files' dates",
    ]


def test_more_pictures_of_malignant_patients_are_only_said() -> None:
    of = labels(80)
    given = looked(of, pictures=6)
    kept = np.flatnonzero((np.arange(len(given.names)) % 6 < 4) | (of[given.owner] == 1))
    fewer = replace(
        given,
        names=[given.names[at] for at in kept],
        owner=given.owner[kept],
        files=given.files.iloc[kept].reset_index(drop=True),
        measures=given.measures.iloc[kept].reset_index(drop=True) if given.measures is not None else None,
    )
    (one,) = [one for one in findings_of_giveaways(fewer) if "number of pictures: AUC 1.00" in one.what]
    assert one.severity is FINE


def test_the_area_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(2)
    of = labels(50)
    values: Floats = np.round(rng.normal(size=50) + 1.5 * of, 1).astype(np.float64)  # with ties
    (one,) = given_away({"told": values}, of)
    pairs = [(a > b) + (a == b) / 2 for a in values[of == 1] for b in values[of == 0]]
    assert one.area == pytest.approx(np.mean(pairs))
    assert one.low < one.area < one.high


def test_names_are_sorted_as_people_do() -> None:
    assert ranks(["P10", "P9", "P9", "A2"]).tolist() == [3, 2, 2, 0]


def shifted(given: Summaries, patients: Labels, by: float) -> Summaries:
    """Some patients with every colour brighter by so many levels."""
    assert given.measures is not None
    columns = ["red", "green", "blue", "slide_red", "slide_green", "slide_blue"]
    moved = given.measures.copy()
    moved[columns] += by * patients[given.owner][:, None]
    return replace(given, measures=moved)


@pytest.mark.parametrize("patients", [40, 150])
def test_two_stains_that_go_with_the_label_are_a_shortcut(patients: int) -> None:
    of = labels(patients)
    found = findings_of_stains(shifted(looked(of), of, 40))
    assert {one.severity for one in found} == {LOOK}
    assert all("Colour tells the label here" in one.todo for one in found)
    assert any("0% and 100% of them" in one.what or "100% and 0% of them" in one.what for one in found)


def test_two_stains_in_both_classes_are_no_shortcut() -> None:
    of = labels(80)
    other = np.zeros_like(of)
    for label in (0, 1):
        other[np.flatnonzero(of == label)[::2]] = 1
    found = findings_of_stains(shifted(looked(of), other, 40))
    assert found
    assert all("They do not go with the label" in one.todo for one in found)
    smaller = set(found[0].concerned[0].removeprefix("smaller group: ").split(", "))
    names = np.array(looked(of).patient_ids)
    assert smaller in (set(names[other == 1]), set(names[other == 0]))


@pytest.mark.parametrize(("shift", "groups"), [(0, 0), (45, 2)])
def test_two_stains_of_drawn_pictures(shift: int, groups: int) -> None:
    """The measures are those of pictures: 40 patients with three cells each, every third of another stain."""
    of, rng = labels(40), np.random.default_rng(4)
    other = np.arange(40) % 3 == 0
    rows = []
    for patient in range(40):
        stain = rng.normal(0, STAIN_SD_PATIENT, 3) - shift * other[patient] * np.array([0.9, 0.6, 0.3])
        rows += [measured(draw_cell(int(rng.integers(4)), rng, 112, stain)) for _ in range(3)]
    found = findings_of_stains(replace(looked(of), measures=pd.DataFrame(rows)))
    told = [one for one in found if "two groups of" in one.what]
    assert len(told) == groups
    assert all("two groups of 26 and 14 patients" in one.what for one in told)


def one_peak(kind: str, patients: int, rng: np.random.Generator) -> Floats:
    scale = np.array([9.0, 2.0, 1.0])
    first = {
        "round": rng.normal(size=patients),
        "skewed": rng.exponential(size=patients),
        "flat": rng.uniform(-1.7, 1.7, size=patients),
        "heavy tails": rng.standard_t(3, size=patients),
    }[kind]
    values = np.column_stack([first, rng.normal(size=(patients, 2))])
    turned: Floats = 150 + values * scale @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return turned


@pytest.mark.parametrize("kind", ["round", "skewed", "flat", "heavy tails"])
def test_one_broad_group_is_not_taken_for_two(kind: str) -> None:
    rng = np.random.default_rng(3)
    drawn = [one_peak(kind, patients, rng) for patients in (40, 130, 400) for _ in range(20)]
    assert sum(two_groups(colours) is not None for colours in drawn) <= 1


def test_pictures_like_the_bundles_are_said_to_be() -> None:
    manifest = load_bundle(REFERENCE).manifest
    (one,) = findings_of_likeness(looked(labels(60)), manifest)
    assert one.what.startswith("Colour, sharpness and scale are those of its training")


def test_another_magnification_is_named_with_its_size() -> None:
    manifest = load_bundle(REFERENCE).manifest
    given = looked(labels(60))
    assert given.measures is not None
    larger = given.measures.assign(**{name: given.measures[name] * 1.44 for name in ("cell_area", "nucleus_area")})
    (one,) = findings_of_likeness(replace(given, measures=larger), manifest)
    assert "size of the cells" in one.what
    assert "size of the nuclei" in one.what
    assert one.todo.startswith("Cells are 1.20 times as wide")
    middle = manifest.reference.usual.spans["nucleus_area"].middle
    (nucleus,) = [text for text in one.concerned if text.startswith("size of the nuclei")]
    assert f"instead of {middle:.3g}" in nucleus
    assert one.severity is FINE


def test_pictures_of_another_size_than_the_bundles() -> None:
    manifest = load_bundle(REFERENCE).manifest
    given = looked(labels(60))
    small = replace(given, files=given.files.assign(width=128, height=128))
    assert any("128 x 128" in one.what for one in findings_of_likeness(small, manifest))
    assert not any("128 x 128" in one.what for one in findings_of_likeness(small, manifest, (224, 224)))


def test_what_is_looked_at_is_known_of_every_patient() -> None:
    given = looked(labels(30))
    assert all(len(values) == 30 and np.isfinite(values).all() for values in variables(given).values())
