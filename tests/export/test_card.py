"""The model card reports the results, including bad ones."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from export.card.figures import claims
from export.card.write import ANSWERS, CardWords, write_card
from export.members.member import MemberCard
from export.members.scan import ScanExport
from infer.bundle.manifest import (
    SCHEMA,
    Calibration,
    Drift,
    Ensemble,
    Manifest,
    OperatingPoint,
    Provenance,
    Reduced,
    SelfTest,
    encode,
)
from infer.cohort.plausible import Plausible, Range
from tests.bundles import MEMBERS

Figures = dict[str, dict[str, float]]
SETS = (*MEMBERS, *(f"{name}, pictures only" for name in MEMBERS), "ensemble", "clinical GaussianNB")

SHIPPED_MEMBERS = ("count cut-off", "clinical GaussianNB", *MEMBERS)
POINTS = ("balanced", "sensitivity-95", "sensitivity-98")


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
        members={name: {} for name in MEMBERS},
        ensemble=Ensemble(
            calibration={name: Calibration(1.25, -0.5) for name in MEMBERS},
            weights=dict(zip(MEMBERS, weights, strict=True)),
            operating_points={name: OperatingPoint(0.4 - n / 10, 0.6) for n, name in enumerate(POINTS)},
        ),
        plausible=Plausible(Range(0, 120), Range(0, 1000), 10),
        drift=Drift([], []),
        self_test=SelfTest(1, 0, [], {}, {}),
        int8=None,
        float16=None,
    )


def words(folder: Path) -> CardWords:
    """Short ones, but for SCAN's."""
    scan = ScanExport.__new__(ScanExport)  # its words need no network
    return CardWords(
        3.2e-7,
        [
            MemberCard("baseline", "a net", "with medians", training=("Its class weight is 2.",)),
            replace(scan.card(folder), described="bayes"),
            MemberCard("moe", "some experts", "its image expert", caveats=("Its gate relies on pictures.",)),
            MemberCard("imagenet", "photographs", "alone", details=("Its weights are published.",)),
        ],
        ["Rounding moves it by 4.1e-05."],
        lambda facts: scan.nested_is_current(folder, facts),
    )


def row(model: str, group: str, figure: str, value: float) -> dict[str, object]:
    """A row of the nested protocol's performance table."""
    facts = {"model": model, "repeats": 1, "group": group, "patients": 64, "malignant": 24, "figure": figure}
    return facts | {"value": value, "low": value - 0.05, "high": value + 0.04}


def nested_figures() -> dict[str, object]:
    """A small RUN/nested/figures.json; all numbers differ."""
    models = ("clinical logistic", "ensemble", "ImageNet mean", *SHIPPED_MEMBERS)
    difference = {"model": "ImageNet mean", "against": "clinical logistic", "repeats": 5, "group": "all"}
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
            "classes_sha256": "",
        },
        "performance": [
            row(model, group, figure, 0.5 + 0.1 * n + 0.01 * g + 0.001 * f)
            for n, model in enumerate(models)
            for g, group in enumerate(("all", "grey zone: count <= 7.68", "women"))
            for f, figure in enumerate(("balanced_accuracy", "auc", "avoided_per_100_when_keeping_95"))
        ],
        "differences": [
            {**difference, "figure": "auc", "value": 0.017, "low": 0.002, "high": 0.036},
            {**difference, "figure": "brier_score", "value": 0.333, "low": 0.3, "high": 0.4},
        ],
        "operating_points": [
            {"model": "ensemble", **point, "value": 0.123, "low": 0.1, "high": 0.2},
            {"model": "moe + ImageNet", **point, "value": 0.456, "low": 0.4, "high": 0.5},
        ],
    }


def card(folder: Path, figures: Figures, of: Manifest, about: str = "") -> str:
    for name, content in (
        ("ensemble/metrics.json", figures),
        ("scan/neighbours.json", {"own_patient_share": 0.083, "own_patient_share_by_chance": 0.021}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "crops").mkdir(exist_ok=True)
    (folder / "crops/rejected.csv").write_text("patient_id,image,reason\nP1,a.jpg,empty\nP2,b.jpg,too_small\n")
    return write_card(folder, of, encode(of), words(folder), about)


def test_the_card_says_what_other_precisions_change(tmp_path: Path) -> None:
    int8 = Reduced({}, {}, patients=25, largest_change=0.00345, changed_decisions=0)
    float16 = Reduced({}, {}, patients=26, largest_change=0.00123, changed_decisions=0)
    both = msgspec.structs.replace(manifest(), int8=int8, float16=float16)
    text = " ".join(card(tmp_path, good_figures(), both).split())
    of_int8, _, of_float16 = text.partition(
        "On a GPU the networks of baseline, moe, imagenet that see pictures compute in float16"
    )
    assert "Of 25 patients scored both ways, 0 got a different decision" in of_int8
    assert "no probability changed by more than 0.0034." in of_int8
    assert "Of 26 patients scored both ways, 0 got a different decision" in of_float16
    assert "no probability changed by more than 0.0012." in of_float16
    alone = " ".join(card(tmp_path, good_figures(), manifest()).split())
    assert "- All graphs compute in float32." in alone
    assert "float16" not in alone


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
        "8.3% of a cell's nearest neighbours",
        "by chance 2.1% would",
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


def test_all_claims_hold_for_good_figures(tmp_path: Path) -> None:
    text = card(tmp_path, good_figures(), manifest())
    assert text.count("- holds: ") == len(claims(good_figures(), manifest())) == 7
    assert "FAILS" not in text


@pytest.mark.parametrize(
    ("name", "change", "weights", "failing"),
    [
        (
            "moe, pictures only",
            {"auc_low": 0.5},
            (0.2, 0.3, 0.4, 0.1),
            ["moe, pictures only: AUC 0.906 [0.500, 0.946] is above chance"],
        ),
        (
            "baseline, pictures only",
            {"auc_low": 0.4},
            (0.2, 0.3, 0.4, 0.1),
            ["baseline, pictures only: AUC 0.904 [0.400, 0.944] is above chance"],
        ),
        (
            "scan, pictures only",
            {"auc_low": 0.4},
            (0.2, 0.3, 0.4, 0.1),
            ["scan, pictures only: AUC 0.905 [0.400, 0.945] is above chance"],
        ),
        (
            "imagenet, pictures only",
            {"auc_low": 0.4},
            (0.2, 0.3, 0.4, 0.1),
            ["imagenet, pictures only: AUC 0.907 [0.400, 0.947] is above chance"],
        ),
        ("moe gate", {"quantile_95": 0.24}, (0.2, 0.3, 0.4, 0.1), ["the moe gate is not constant"]),
        ("ensemble", {}, (0.4, 0.0, 0.5, 0.1), ["every member has weight"]),
        ("clinical GaussianNB", {"auc": 0.96}, (0.2, 0.3, 0.4, 0.1), ["0.960 on the same folds"]),
        ("influence", {"moe": 0.049}, (0.2, 0.3, 0.4, 0.1), ["every member has weight and moves the ensemble"]),
        ("ensemble", {"auc": 0.907}, (0.2, 0.3, 0.4, 0.1), ["the ensemble's AUC 0.907"]),
    ],
)
def test_a_claim_that_fails_is_said_to_fail(
    tmp_path: Path, name: str, change: dict[str, float], weights: tuple[float, ...], failing: list[str]
) -> None:
    figures = good_figures()
    figures[name] |= change
    failed = [line for line in card(tmp_path, figures, manifest(weights)).splitlines() if "**FAILS**" in line]
    assert len(failed) == len(failing)
    assert all(claim in line for claim, line in zip(failing, failed, strict=True))


def test_a_grey_zone_without_auc_is_said_to_have_none(tmp_path: Path) -> None:
    figures = good_figures()
    for name in ("grey_zone_auc", "grey_zone_auc_low", "grey_zone_auc_high"):
        del figures["moe"][name]
    line = next(line for line in card(tmp_path, figures, manifest()).splitlines() if line.startswith("| moe | 0.8"))
    assert line.endswith("| undefined, the zone has only one class |")


def test_nested_figures_stand_in_it_where_the_protocol_has_run(tmp_path: Path) -> None:
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested/figures.json").write_text(json.dumps(nested_figures()))
    text = card(tmp_path, good_figures(), manifest())
    lines = text.splitlines()
    found = [
        line for line in lines if line.startswith("| ensemble (1x) | 0.600 [0.550, 0.640] | 0.601 [0.551, 0.641] |")
    ]
    grey = [
        line for line in lines if line.startswith("| ensemble (1x) | 0.610 [0.560, 0.650] | 0.611 [0.561, 0.651] |")
    ]
    assert len(found) == len(grey) == 1
    avoided = [line for line in lines if line.startswith("| ensemble (1x) | ") and "0.602 [0.552, 0.642]" in line]
    assert len(avoided) == 1
    for model in SHIPPED_MEMBERS:
        assert len([line for line in lines if line.startswith(f"| {model} (1x) | ")]) == 3
    joined = " ".join(text.split())
    assert "Recipe small, seed 4, 130 patients. Code 2 versions, predictions of earlier ones may be among" in joined
    (women, _) = [line for line in lines if line.startswith("| women: 64, 24 malignant | ")]
    assert women.startswith("| women: 64, 24 malignant | 0.521 [0.471, 0.561] | 0.621 [0.571, 0.661] | ")
    assert "| ImageNet mean | clinical logistic | 5 | all | 0.017 [0.002, 0.036] |" in lines
    assert "0.333" not in text  # only differences in AUC are shown
    assert "| sensitivity-95 | malignant | refer | 0.123 [0.100, 0.200] |" in lines
    assert "0.456" not in text  # only operating points of the shipped ensemble are shown
    assert not any(line.startswith("| ImageNet mean (") for line in lines)
    assert "In the nested evaluation, models that use SCAN or SimCLR are inductive: SCAN on each fold's own" in joined
    assert "Not available for this bundle" not in text


def test_inductive_figures_stand_beside_the_others(tmp_path: Path) -> None:
    assert "inductive" not in card(tmp_path, good_figures(), manifest()).lower()
    (tmp_path / "nested_inductive").mkdir()
    found = nested_figures()
    difference = {"model": "ensemble", "against": "clinical logistic", "repeats": 1, "group": "all", "figure": "auc"}
    found["differences"] = [*found["differences"], {**difference, "value": 0.031, "low": 0.004, "high": 0.062}]  # type: ignore[misc]
    (tmp_path / "nested_inductive/figures.json").write_text(json.dumps(found))
    text = card(tmp_path, good_figures(), manifest())
    part = text.split("### Nested evaluation, inductive")[1].split("\n### ")[0]
    assert "inductive: SCAN on each fold's own pictures" in " ".join(part.split())
    assert "| ensemble (1x) | 0.600 [0.550, 0.640] | 0.601 [0.551, 0.641] |" in part
    assert "| ensemble (1x) | 0.610 [0.560, 0.650] | 0.611 [0.561, 0.651] |" in part
    assert "| ensemble | clinical logistic | 1 | all | 0.031 [0.004, 0.062] |" in part
    assert len([line for line in part.splitlines() if line.startswith("| scan (1x)")]) == 2
    assert "| moe (1x)" not in part  # its results do not depend on SCAN
    assert "| ImageNet mean" not in part


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


@pytest.mark.parametrize(
    ("evaluated", "shown"),
    [(b"as they are", True), (b"before SCAN was trained again", False), (None, False)],
)
def test_nested_figures_of_other_cell_classes_are_left_out(
    tmp_path: Path, evaluated: bytes | None, shown: bool
) -> None:
    found = nested_figures()
    digest = "" if evaluated is None else hashlib.sha256(evaluated).hexdigest()
    found["facts"] = {**found["facts"], "classes_sha256": digest}  # type: ignore[dict-item]
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested/figures.json").write_text(json.dumps(found))
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/classes.csv").write_bytes(b"as they are")
    text = card(tmp_path, good_figures(), manifest())
    assert ("Not available for this bundle" in text) != shown
    assert ("| ensemble (1x)" in text) == shown


def test_what_was_left_out_and_what_nobody_said_is_told(tmp_path: Path) -> None:
    text = " ".join(card(tmp_path, good_figures(), manifest()).split())
    assert "patients with LABEL -1 and 2 pictures that could not be used" in text
    assert "This program does not know who was recruited" in text
    assert "Added by the exporter: Nothing." in text


def test_what_the_exporter_knows_stands_in_it(tmp_path: Path) -> None:
    assert "\n\nOne centre, one stain.\n\n" in card(tmp_path, good_figures(), manifest(), " One centre, one stain.\n")
