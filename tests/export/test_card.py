"""The model card reports the results, including bad ones."""

import hashlib
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from export.card.figures import claims
from export.card.write import ANSWERS, CardWords, write_card
from export.members.cells import CellsExport
from export.members.member import MemberCard
from export.pipeline import _nested_is_current
from infer.bundle.manifest import (
    SCHEMA,
    Calibration,
    Drift,
    Ensemble,
    Magnification,
    Manifest,
    OperatingPoint,
    Provenance,
    Reduced,
    SelfTest,
    encode,
)
from infer.bundle.reference import Spread
from infer.cohort.plausible import Plausible, Range
from tests.bundles import MEMBERS
from tests.infer.manifests import APPEARANCE, REFERENCE
from train.evaluation.nested.models import OUTSIDE
from train.members.training import digest

Figures = dict[str, dict[str, float]]
SETS = (*MEMBERS, *(f"{name}, pictures only" for name in MEMBERS), "ensemble", "clinical GaussianNB")

SHIPPED_MEMBERS = ("count cut-off", "clinical GaussianNB", *MEMBERS)
POINTS = ("balanced", "sensitivity-95", "sensitivity-98")
FOLDERS = {"scan": "cells", "moe": "moe", "imagenet": "imagenet"}  # of the members that write down their numbers
OPTIONS = {"seed": 4, "recipe": {"baseline": {"batch_images": 128}}}  # of the run; the baseline has its numbers there


def good_figures() -> Figures:
    """All requirements are met; all numbers differ, so that each can be found in the text."""
    figures: Figures = {}
    for number, name in enumerate(SETS):
        auc = 0.9 + number / 1000 if name != "ensemble" else 0.951
        figures[name] = {
            "balanced_accuracy": 0.8 + number / 1000,
            "auc": auc,
            "auc_low": auc - 0.1,
            "auc_high": auc + 0.04,
            "grey_zone_auc": 0.7 + number / 1000,
            "grey_zone_auc_low": 0.6 + number / 1000,
            "grey_zone_auc_high": 0.75 + number / 1000,
            "grey_zone_patients": 64,
            "grey_zone_malignant": 24,
        }
    for number, name in enumerate(POINTS):
        figures[f"operating point {name}"] = {
            "referred": 0.11 + number / 100,
            "malignant_called_malignant": 0.81 + number / 100,
            "malignant_called_reactive": 0.21 + number / 100,
            "reactive_called_reactive": 0.71 + number / 100,
            "reactive_called_malignant": 0.31 + number / 100,
        }
    figures["influence"] = {"baseline": 0.05, "scan": 0.2, "moe": 0.3, "imagenet": 0.4}
    gate = {"quantile_05": 0.2, "quantile_25": 0.3, "quantile_50": 0.4, "quantile_75": 0.5, "quantile_95": 0.6}
    return figures | {"moe gate": gate}


def manifest(weights: tuple[float, ...] = (0.2, 0.3, 0.4, 0.1)) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        provenance=Provenance(
            code_version="9.8.7",
            created="2026-01-02",
            recipe="small",
            seed=4,
            reference_date="2019-07-01",
            table_sha256="0" * 64,
            data_summary={"patients": 130, "malignant": 90, "reactive": 40, "images": 10622},
            options={"moe.fit.epochs": "30"},
        ),
        graphs={},
        opset=20,
        crop_size=112,
        magnification=Magnification(network_size=224, pixel_size=None),
        members={name: {} for name in MEMBERS},
        ensemble=Ensemble(
            calibration={name: Calibration(1.25, -0.5) for name in MEMBERS},
            weights=dict(zip(MEMBERS, weights, strict=True)),
            operating_points={name: OperatingPoint(0.4 - n / 10, 0.6) for n, name in enumerate(POINTS)},
        ),
        reference=REFERENCE,
        plausible=Plausible(Range(0, 120), Range(0, 1000), 10),
        drift=Drift([]),
        self_test=SelfTest(1, 0, [], {}, {}),
        int8=None,
    )


def words(folder: Path) -> CardWords:
    """Short ones, but for those of the cell classes."""
    cells = CellsExport.__new__(CellsExport)  # its words need no network
    return CardWords(
        3.2e-7,
        [
            MemberCard("baseline", "a net", "with medians", training=("Its class weight is 2.",)),
            replace(cells.card(folder), described="bayes"),
            MemberCard("moe", "some experts", "its image expert", caveats=("Its gate relies on pictures.",)),
            MemberCard("imagenet", "photographs", "alone", details=("Its weights are published.",)),
        ],
        ["Rounding moves it by 4.1e-05."],
        partial(_nested_is_current, folder),
    )


def row(model: str, group: str, figure: str, value: float) -> dict[str, object]:
    """A row of the nested protocol's performance table."""
    facts = {"model": model, "repeats": 1, "group": group, "patients": 64, "malignant": 24, "figure": figure}
    return facts | {"value": value, "low": value - 0.05, "high": value + 0.04}


def nested_figures() -> dict[str, object]:
    """A small RUN/nested/figures.json; all numbers differ."""
    lacking = tuple(f"ensemble without {name}" for name in MEMBERS)
    models = ("clinical logistic", "ensemble", "ImageNet mean", *SHIPPED_MEMBERS, *lacking)
    difference = {"model": "ImageNet mean", "against": "clinical logistic", "repeats": 5, "group": "all"}
    without = {"model": "ensemble", "repeats": 5, "group": "all"}
    grey = {**without, "group": "grey zone: count <= 7.68"}
    point = {"operating_point": "sensitivity-95", "label": "malignant", "decision": "refer"}
    return {
        "facts": {
            "protocol": "5 outer folds",
            "cell classes": "inductive: SCAN on each fold's own pictures",
            "chosen inside": "calibration",
            "chosen outside": "the numbers of the recipe",
            "models": "14 single ones",
            "recipe": "small, seed 4, 130 patients",
            "code": "2 versions, predictions of earlier ones may be among the figures: abc, def",
            **{f"{name}_sha256": hashlib.sha256(name.encode()).hexdigest() for name in FOLDERS},
            "baseline_sha256": digest({"baseline": {"batch_images": 128}, "seed": 4}),
        },
        "performance": [
            row(model, group, figure, 0.5 + 0.1 * n + 0.01 * g + 0.001 * f)
            for n, model in enumerate(models)
            for g, group in enumerate(("all", "grey zone: count <= 7.68", "women"))
            for f, figure in enumerate(("balanced_accuracy", "auc", "avoided_per_100_when_keeping_95", "brier_score"))
        ],
        "differences": [
            {**difference, "figure": "auc", "value": 0.017, "low": 0.002, "high": 0.036},
            {**difference, "figure": "brier_score", "value": 0.333, "low": 0.3, "high": 0.4},
            {**without, "against": "ensemble without moe", "figure": "auc", "value": 0.0, "low": 0.0, "high": 0.0},
            {**grey, "against": "ensemble without imagenet", "figure": "auc", "value": 0.19, "low": 0.11, "high": 0.27},
            {
                **grey,
                "against": "ensemble without scan",
                "figure": "brier_score",
                "value": 0.44,
                "low": 0.4,
                "high": 0.5,
            },
        ],
        "operating_points": [
            {"model": "ensemble", **point, "value": 0.123, "low": 0.1, "high": 0.2},
            {"model": "moe + ImageNet", **point, "value": 0.456, "low": 0.4, "high": 0.5},
        ],
        "chosen": [
            {"model": "scan", "repeat": 0, "outer": 0, "threshold": 0.5},
            {"model": "ensemble without moe", "weights": {"baseline": 0.9, "scan": 0.05, "imagenet": 0.05}},
            {"model": "ensemble", "weights": {"baseline": 0.1, "scan": 0.0, "moe": 0.3, "imagenet": 0.6}},
            {"model": "ensemble", "weights": {"baseline": 0.4, "scan": 0.0, "moe": 0.0, "imagenet": 0.6}},
            {"model": "ensemble", "weights": {"baseline": 0.1, "scan": 0.3, "moe": 0.0, "imagenet": 0.6}},
        ],
    }


def write_nested(folder: Path, found: dict[str, object]) -> None:
    """RUN/nested/figures.json, beside the numbers that the members were trained with."""
    (folder / "nested").mkdir()
    (folder / "nested/figures.json").write_text(json.dumps(found))
    (folder / "options.json").write_text(json.dumps(OPTIONS))
    for name in FOLDERS:
        write_numbers(folder, name, name.encode())


def card(folder: Path, figures: Figures, of: Manifest, about: str = "") -> str:
    for name, content in (
        ("ensemble/metrics.json", figures),
        ("cells/neighbours.json", {"own_patient_share": 0.083, "own_patient_share_by_chance": 0.021}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "crops").mkdir(exist_ok=True)
    (folder / "crops/rejected.csv").write_text("patient_id,image,reason\nP1,a.jpg,empty\nP2,b.jpg,too_small\n")
    return write_card(folder, of, encode(of), words(folder), about)


def test_the_card_says_what_int8_changes(tmp_path: Path) -> None:
    int8 = Reduced({}, {}, patients=25, largest_change=0.00345, changed_decisions=0)
    with_int8 = msgspec.structs.replace(manifest(), int8=int8)
    text = " ".join(card(tmp_path, good_figures(), with_int8).split())
    assert "- On a CPU the networks of scan, moe, imagenet that see pictures compute in int8;" in text
    assert "Of 25 patients scored both ways, 0 got a different decision at any operating point;" in text
    assert "no probability changed by more than 0.0034." in text
    assert "- All results below are for float32." in text
    assert "All graphs compute in float32" not in text
    alone = " ".join(card(tmp_path, good_figures(), manifest()).split())
    assert "- All graphs compute in float32." in alone
    assert "int8" not in alone


def test_the_card_names_its_bundle_and_where_it_comes_from(tmp_path: Path) -> None:
    text = " ".join(card(tmp_path, good_figures(), manifest()).split())
    for part in (
        hashlib.sha256(encode(manifest())).hexdigest(),
        "lympho 9.8.7",
        "130 patients (90 malignant, 40 reactive) with 10622 pictures",
        "two birth dates",
        "ages at 2019-07-01",
        "recipe `small`, seed 4",
        "`moe.fit.epochs` = 30",
        "3.2e-07 at most",
        "Rounding moves it by 4.1e-05.",
        "Four members: a net; bayes; some experts; and photographs. The result is",
        "All graphs compute in float32.",
        "64 patients, 24 of them malignant; above it 66 of 66 are malignant",
        "8.3% of a cell's nearest neighbours among the backbone's features come from its own patient",
        "by chance 2.1% would",
        "none from another hospital. Cell classes are inductive: learnt without the pictures of the patients they are",
        "It is not a medical device",
        "could not be used. No missing value was imputed. Its class weight is 2.",
        "- Its weights are published.",
        "`pictures only`: baseline: with medians; scan: a model without sex, count and age; moe: its image expert;",
        "Its gate relies on pictures.",
    ):
        assert part in text


@pytest.mark.parametrize("name", SETS)
def test_every_figure_stands_in_the_table(tmp_path: Path, name: str) -> None:
    values = good_figures()[name]
    row = (
        f"| {name} | {values['balanced_accuracy']:.3f} "
        f"| {values['auc']:.3f} [{values['auc_low']:.3f}, {values['auc_high']:.3f}] "
        f"| {values['grey_zone_auc']:.3f} [{values['grey_zone_auc_low']:.3f}, {values['grey_zone_auc_high']:.3f}] |"
    )
    assert row in card(tmp_path, good_figures(), manifest()).splitlines()


def test_weights_gate_and_operating_points_stand_in_it(tmp_path: Path) -> None:
    text = card(tmp_path, good_figures(), manifest())
    lines = text.splitlines()
    assert "| scan | 0.300 | 1.250 | -0.500 | 0.200 |" in lines
    assert "| sensitivity-98 | 0.2000 | 0.6000 | 13.0% | 83.0% / 23.0% | 73.0% / 33.0% |" in lines
    assert "0.200 / 0.300 / 0.400 / 0.500 / 0.600" in " ".join(text.split())


def test_the_bound_on_disagreement_stands_in_it(tmp_path: Path) -> None:
    figures = good_figures() | {"disagreement": {"bound": 0.75, "referred": 0.0625}}
    plain = manifest()
    bounded = msgspec.structs.replace(plain, ensemble=msgspec.structs.replace(plain.ensemble, disagreement=0.7125))
    text = " ".join(card(tmp_path, figures, bounded).split())
    assert (
        "on whom the members of weight 0.05 or more lie more than 0.7125 apart is referred at every operating point"
        in text
    )
    assert "on 95% of the training patients, out of fold, they lie no further apart. Cross-fitted, 6.2%" in text
    assert "apart is referred" not in card(tmp_path, figures, plain)


def test_all_claims_hold_for_good_figures(tmp_path: Path) -> None:
    text = card(tmp_path, good_figures(), manifest())
    assert text.count("- holds: ") == len(claims(good_figures(), manifest())) == 6
    assert "FAILS" not in text


@pytest.mark.parametrize(
    ("name", "change", "failing"),
    [
        (
            "moe, pictures only",
            {"auc_low": 0.5},
            ["moe, pictures only: AUC 0.906 [0.500, 0.946] is above chance"],
        ),
        (
            "baseline, pictures only",
            {"auc_low": 0.4},
            ["baseline, pictures only: AUC 0.904 [0.400, 0.944] is above chance"],
        ),
        (
            "scan, pictures only",
            {"auc_low": 0.4},
            ["scan, pictures only: AUC 0.905 [0.400, 0.945] is above chance"],
        ),
        (
            "imagenet, pictures only",
            {"auc_low": 0.4},
            ["imagenet, pictures only: AUC 0.907 [0.400, 0.947] is above chance"],
        ),
        ("moe gate", {"quantile_95": 0.24}, ["the moe gate is not constant"]),
        ("clinical GaussianNB", {"auc": 0.96}, ["0.960 on the same folds"]),
        ("ensemble", {"auc": 0.907}, ["the ensemble's AUC 0.907"]),
    ],
)
def test_a_claim_that_fails_is_said_to_fail(
    tmp_path: Path, name: str, change: dict[str, float], failing: list[str]
) -> None:
    figures = good_figures()
    figures[name] |= change
    failed = [line for line in card(tmp_path, figures, manifest()).splitlines() if "**FAILS**" in line]
    assert len(failed) == len(failing)
    assert all(claim in line for claim, line in zip(failing, failed, strict=True))


def test_a_member_may_have_no_weight(tmp_path: Path) -> None:
    """It is no failure: the folds chose the weights."""
    figures = good_figures()
    figures["influence"]["scan"] = 0.0
    text = card(tmp_path, figures, manifest((0.4, 0.0, 0.5, 0.1)))
    assert "FAILS" not in text
    assert "| scan | 0.000 | 1.250 | -0.500 | 0.000 |" in text.splitlines()


def test_a_grey_zone_without_auc_is_said_to_have_none(tmp_path: Path) -> None:
    figures = good_figures()
    for name in ("grey_zone_auc", "grey_zone_auc_low", "grey_zone_auc_high"):
        del figures["moe"][name]
    line = next(line for line in card(tmp_path, figures, manifest()).splitlines() if line.startswith("| moe | 0.8"))
    assert line.endswith("| undefined, the zone has only one class |")


def test_nested_figures_stand_in_it_where_the_protocol_has_run(tmp_path: Path) -> None:
    write_nested(tmp_path, nested_figures())
    text = card(tmp_path, good_figures(), manifest())
    lines = text.splitlines()
    part, weights, points = section_of_weights(text)
    found = [
        line for line in part if line.startswith("| ensemble (1x) | 0.600 [0.550, 0.640] | 0.601 [0.551, 0.641] |")
    ]
    grey = [line for line in part if line.startswith("| ensemble (1x) | 0.610 [0.560, 0.650] | 0.611 [0.561, 0.651] |")]
    assert len(found) == len(grey) == 1
    avoided = [line for line in part if line.startswith("| ensemble (1x) | ") and "0.602 [0.552, 0.642]" in line]
    assert len(avoided) == 1
    for model in SHIPPED_MEMBERS:
        assert len([line for line in part if line.startswith(f"| {model} (1x) | ")]) == 3
        assert not [line for line in weights if line.startswith(f"| {model} (1x) | ")]
    joined = " ".join(text.split())
    assert "Recipe small, seed 4, 130 patients. Code 2 versions, predictions of earlier ones may be among" in joined
    (women, _) = [line for line in lines if line.startswith("| women: 64, 24 malignant | ")]
    assert women.startswith("| women: 64, 24 malignant | 0.521 [0.471, 0.561] | 0.621 [0.571, 0.661] | ")
    assert "| ImageNet mean | clinical logistic | 5 | all | 0.017 [0.002, 0.036] |" in part
    assert "0.333" not in text  # only differences in AUC are shown
    assert "| sensitivity-95 | malignant | refer | 0.123 [0.100, 0.200] |" in points
    assert "0.456" not in text  # only operating points of the shipped ensemble are shown
    assert not any(line.startswith("| ImageNet mean (") for line in lines)
    assert "Not available for this bundle" not in text


def section_of_weights(text: str) -> tuple[list[str], list[str], list[str]]:
    """The lines of the nested evaluation: before the weights, on the weights, and after."""
    whole = text.split("### Nested evaluation\n")[1].split("\n### ")[0]
    before, _, rest = whole.partition("Weights of the ensemble, ")
    weights, _, after = rest.partition("Operating points:\n")
    return before.splitlines(), weights.splitlines(), after.splitlines()


def test_weights_over_the_folds_stand_in_it(tmp_path: Path) -> None:
    write_nested(tmp_path, nested_figures())
    text = " ".join(card(tmp_path, good_figures(), manifest()).split())
    assert (
        "Weights of the ensemble, mean [smallest to largest] over the outer folds: baseline 0.20 [0.10 to 0.40], "
        "scan 0.10 [0.00 to 0.30], moe 0.10 [0.00 to 0.30], imagenet 0.60 [0.60 to 0.60]." in text
    )


def test_the_ensemble_stands_in_it_with_and_without_each_member(tmp_path: Path) -> None:
    write_nested(tmp_path, nested_figures())
    before, weights, _ = section_of_weights(card(tmp_path, good_figures(), manifest()))
    everybody = weights.index("With and without each member, all:")
    grey = weights.index("With and without each member, grey zone: count <= 7.68:")
    lost = weights.index("Difference in AUC from the ensemble without a member, paired:")
    assert everybody < grey < lost
    for place, group in ((everybody, 0.0), (grey, 0.01)):
        expected = ["| model | balanced_accuracy | auc | brier_score |", "|---|---|---|---|"]
        for number, model in ((1, "ensemble"), *((9 + n, f"ensemble without {one}") for n, one in enumerate(MEMBERS))):
            values = [0.5 + 0.1 * number + group + 0.001 * figure for figure in (0, 1, 3)]
            cells = [f"{value:.3f} [{value - 0.05:.3f}, {value + 0.04:.3f}]" for value in values]
            expected.append(f"| {model} (1x) | {' | '.join(cells)} |")
        assert weights[place + 2 : place + 2 + len(expected)] == expected
        assert weights[place + 2 + len(expected)] == ""
    assert weights[lost + 2 :] == [
        "| model | against | repeats | group | value |",
        "|---|---|---|---|---|",
        "| ensemble | ensemble without moe | 5 | all | 0.000 [0.000, 0.000] |",
        "| ensemble | ensemble without imagenet | 5 | grey zone: count <= 7.68 | 0.190 [0.110, 0.270] |",
        "",
    ]
    # The table above these is of differences from sex, count and age alone.
    assert not [line for line in before if line.startswith("| ensemble | ensemble without")]


def test_without_nested_figures_it_says_so(tmp_path: Path) -> None:
    text = card(tmp_path, good_figures(), manifest())
    said = "Not available for this bundle. The results below are out-of-fold but not nested: they may be optimistic."
    assert said in " ".join(text.split())


def test_headings_are_model_cards_own_and_say_what_they_answer(tmp_path: Path) -> None:
    parts = card(tmp_path, good_figures(), manifest()).split("\n## ")
    assert [part.splitlines()[0] for part in parts[1:]] == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations", "The recipe",
    ]  # fmt: skip
    for part in parts[1:]:
        heading, _, first, *_ = part.splitlines()
        assert first.startswith("*TRIPOD+AI: ") == (heading in ANSWERS)
    assert "*TRIPOD+AI: predictors. STARD: index test. CLAIM: data.*" in parts[3]


def nested_is_shown(folder: Path) -> bool:
    """Whether the card of a run folder has the nested evaluation."""
    text = card(folder, good_figures(), manifest())
    shown = "| ensemble (1x)" in text
    assert ("Weights of the ensemble, mean" in text) == shown
    assert ("Not available for this bundle" in text) != shown
    return shown


def write_numbers(folder: Path, name: str, content: bytes) -> None:
    """What a member was fitted with."""
    (folder / FOLDERS[name]).mkdir(exist_ok=True)
    (folder / FOLDERS[name] / "numbers.json").write_bytes(content)


def test_nested_figures_of_these_members_are_shown(tmp_path: Path) -> None:
    """By the numbers in the run folder; a member that writes down none has them in the run's options."""
    write_nested(tmp_path, nested_figures())
    assert nested_is_shown(tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
def test_nested_figures_of_other_numbers_are_left_out(tmp_path: Path, name: str) -> None:
    write_nested(tmp_path, nested_figures())
    write_numbers(tmp_path, name, b"trained again")
    assert not nested_is_shown(tmp_path)


@pytest.mark.parametrize("other", [{"seed": 5}, {"recipe": {"baseline": {"batch_images": 64}}}])
def test_nested_figures_of_another_baseline_are_left_out(tmp_path: Path, other: dict[str, object]) -> None:
    write_nested(tmp_path, nested_figures())
    (tmp_path / "options.json").write_text(json.dumps(OPTIONS | other))
    assert not nested_is_shown(tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_nested_figures_that_do_not_tell_their_numbers_are_left_out(tmp_path: Path, name: str) -> None:
    """As those of earlier versions."""
    found = nested_figures()
    facts = found["facts"]
    assert isinstance(facts, dict)
    del facts[f"{name}_sha256"]
    write_nested(tmp_path, found)
    assert not nested_is_shown(tmp_path)


def test_what_was_left_out_and_what_nobody_said_is_told(tmp_path: Path) -> None:
    text = " ".join(card(tmp_path, good_figures(), manifest()).split())
    assert "patients with LABEL -1 and 2 pictures that could not be used" in text
    assert "This program does not know who was recruited" in text
    assert "Added by the exporter: Nothing." in text


def test_what_the_exporter_knows_stands_in_it(tmp_path: Path) -> None:
    assert "\n\nOne centre, one stain.\n\n" in card(tmp_path, good_figures(), manifest(), " One centre, one stain.\n")


def test_the_classes_of_cells_are_described_in_words(tmp_path: Path) -> None:
    spreads = {f"share_{number}": Spread(0.0, 0.125, 0.5) for number in range(4)}
    many = {"reactive": spreads, "malignant": {**spreads, "share_1": Spread(0.1, 0.2, 0.3)}}
    reference = msgspec.structs.replace(REFERENCE, by_label=many, appearance=APPEARANCE)
    text = card(tmp_path, good_figures(), msgspec.structs.replace(manifest(), reference=reference))
    rows = [line for line in text.splitlines() if line.startswith(("| 0 |", "| 1 |", "| 2 |", "| 3 |"))]
    assert rows == [
        "| 0 | 20 | 200 | 12% [0%, 50%] | 12% [0%, 50%] | small cell, low nucleus-to-cytoplasm ratio, pale chromatin, "
        "even chromatin, irregular outline | 20.0% | 60.0% | 1.400 | 0.200 | 0.800 |",
        "| 1 | 21 | 201 | 12% [0%, 50%] | 20% [10%, 30%] | large cell, high nucleus-to-cytoplasm ratio, dense "
        "chromatin, uneven chromatin, round outline | 60.0% | 90.0% | 1.800 | 0.500 | 0.990 |",
        "| 2 | 22 | 202 | 12% [0%, 50%] | 12% [0%, 50%] | like most | 40.0% | 75.0% | 1.600 | 0.350 | 0.950 |",
        "| 3 |  |  | 12% [0%, 50%] | 12% [0%, 50%] | too rare in the training to be described |  |  |  |  |  |",
    ]
    words = " ".join(text.split())
    assert "whose quartiles are: cell 30.0% / 40.0% / 50.0%; nucleus 65.0% / 75.0% / 85.0%; density 1.500" in words
    assert "judged by no expert" in words
    assert "Classes of cells" not in card(tmp_path, good_figures(), manifest())


@pytest.mark.parametrize(
    ("patients", "malignant", "sentence"),
    [
        (64, 24, "All 66 of these patients above it are malignant."),
        (60, 22, "Of these patients, 2 of 70 above it are reactive: here it is a subgroup like any other."),
        (130, 90, "None of these patients lies above it: here the zone is everybody."),
    ],
)
def test_what_the_grey_zone_is_worth_is_told_from_these_patients(
    tmp_path: Path, patients: int, malignant: int, sentence: str
) -> None:
    """Another hospital's card once said that above it every patient of the public cohort is malignant."""
    figures = good_figures()
    figures["ensemble"] |= {"grey_zone_patients": patients, "grey_zone_malignant": malignant}
    found = nested_figures()
    found["facts"]["chosen outside"] = OUTSIDE  # type: ignore[index]
    write_nested(tmp_path, found)
    text = " ".join(card(tmp_path, figures, manifest()).split())
    assert f"it was derived from the labels of the patients that the program was developed on. {sentence}" in text
    assert OUTSIDE in text
    assert not re.search("public|Lyon", text, re.IGNORECASE)
