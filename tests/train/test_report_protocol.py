"""The report's split, the selected epoch, and what is printed next to the report's own results."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from tests.synthetic import make_patients, write_cohort
from tests.train.bags import make_bags
from tests.train_fixtures import DATE, clear_cut, train
from train.core.checkpoint import load_dimensions
from train.data.bags import load_crops
from train.evaluation.report_protocol import LABEL, divisions
from train.experiments import classifiers
from train.members.naive_bayes import evaluate_naive_bayes, patient_features, read_cell_classes
from train.members.recipes import SMALL


def test_patients_are_divided_in_the_order_of_their_ids_as_strings() -> None:
    """P10 comes before P9: so were the report's deep models split; naive Bayes uses the order of the file."""
    rng = np.random.default_rng(0)
    bags = make_bags(rng.permutation([0] * 12 + [1] * 28).tolist(), [1] * 40)
    ids = [f"P{number}" for number in rng.permutation(40)]
    bags = replace(bags, patient_ids=ids)
    table = pd.DataFrame({"id": ids, "label": bags.labels}).sort_values("id")
    training, validation = train_test_split(
        table["id"].to_numpy(), test_size=0.2, random_state=42, stratify=table["label"]
    )
    split, *folds = divisions(bags)
    assert [ids[index] for index in split.training] == training.tolist()
    assert [ids[index] for index in split.validation] == validation.tolist()
    expected = StratifiedKFold(5, shuffle=True, random_state=42).split(table, table["label"])
    for fold, (_, held_out) in zip(folds, expected, strict=True):
        assert [ids[index] for index in fold.validation] == table["id"].iloc[held_out].tolist()
        assert not set(fold.training) & set(fold.validation)
    assert sorted(np.concatenate([fold.validation for fold in folds])) == list(range(40))


OPTIONS = ("--recipe", "small", "--epochs", "3", "--images-per-patient", "2", "--backbone", "width-16-half-input")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    patients = [clear_cut(patient, 3) for patient in make_patients(40, 3, images=(3, 4))]
    write_cohort(folder / "patients", patients, seed=3)
    call = train(
        "evaluate", folder / "patients", folder / "run", *DATE, *OPTIONS,
        "--protocol", "report", "--model", "baseline", "--model", "moe",
    )  # fmt: skip
    assert call.code == 0, call.errors
    assert "optimistic" in call.output
    return folder / "run"


@pytest.mark.parametrize("model", ["baseline", "moe"])
def test_the_figures_are_those_of_the_best_epoch(evaluated: Path, model: str) -> None:
    facts = json.loads((evaluated / "report/metrics.json").read_text())
    assert facts["protocol"] == LABEL
    assert facts["moe_late_fit"].startswith("not made")
    figures = facts["models"][model]
    best = []
    for name in ("split", *(f"fold-{number}" for number in range(5))):
        history = pd.read_csv(evaluated / "report" / model / f"{name}.history.csv")
        assert len(history) == 3
        rates = history[["validation_true_negative_rate", "validation_true_positive_rate"]]
        assert history["validation_balanced_accuracy"].tolist() == pytest.approx(rates.mean(axis=1).tolist())
        best.append(history["validation_balanced_accuracy"].max())
        assert figures["best_epoch"][name] == history["validation_balanced_accuracy"].argmax()
        assert load_dimensions(evaluated / "report" / model / f"{name}.safetensors")
    assert figures["validation"] == best[0]
    assert figures["folds"] == best[1:]
    assert figures["folds_mean"] == pytest.approx(sum(best[1:]) / 5)
    assert figures["folds_spread"] == pytest.approx(float(np.std(best[1:])))


def test_what_the_report_states_is_repeated(evaluated: Path) -> None:
    """Table 2 and section 3.3 of Collin and Le Chenadec."""
    stated = json.loads((evaluated / "report/metrics.json").read_text())["stated_in_report"]
    assert stated["baseline"]["validation"] == 0.73978
    assert stated["scan"] == {"training": 0.89027, "validation": 0.89130, "folds_mean": None}
    assert stated["moe"] == {"training": 0.883333, "validation": 0.93478, "folds_mean": 0.94392}


def test_scan_needs_its_classes(evaluated: Path) -> None:
    call = train("evaluate", evaluated.parent / "patients", evaluated, *DATE, *OPTIONS, "--protocol", "report")
    assert call.code == 2
    assert "has no cell classes. Run `python -m train scan` first" in call.errors


def test_from_the_trained_networks_to_the_reports_table_and_figures(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report's numbers are of the SCAN with its own network; its figure 5 shows the classes of the member."""
    few = [("GaussianNB", GaussianNB), ("KNeighborsClassifier", KNeighborsClassifier)]
    monkeypatch.setattr(classifiers, "all_estimators", lambda type_filter: few)
    patients, run = evaluated.parent / "patients", tmp_path / "run"
    shutil.copytree(evaluated, run)
    report = ("--protocol", "report")
    for command, *more in (("cells",), ("scan",), ("naive-bayes", *report, "--compare"), ("evaluate", *report)):
        call = train(command, patients, run, *DATE, *OPTIONS, *more)
        assert call.code == 0, call.errors
    drawn = train("figures", patients, run)
    assert drawn.code == 0, drawn.errors
    pictures = {path.name[:9] for path in (run / "figures").glob("*.png")}
    assert pictures == {f"figure-{number:02}" for number in range(2, 11)}

    bags = load_crops(run)
    base = patient_features(bags, read_cell_classes(run / "scan/classes.csv", bags))
    expected = evaluate_naive_bayes(base, bags.labels, "report", SMALL.bayes)
    found = json.loads((run / "report/metrics.json").read_text())["models"]
    assert set(found) == {"baseline", "scan", "moe"}
    assert found["scan"]["training"] == expected.training_balanced_accuracy
    assert found["scan"]["validation"] == expected.validation_balanced_accuracy
    assert found["scan"]["folds"] == expected.fold_balanced_accuracy
    assert json.loads((run / "naive_bayes/metrics.json").read_text()) == asdict(expected)
    table = pd.read_csv(run / "figures/table-2.csv").set_index("model")
    assert table.index.tolist() == ["baseline", "scan", "moe"]
    assert table.loc["scan", "ours_validation"] == expected.validation_balanced_accuracy
    scores = pd.read_csv(run / "naive_bayes/classifiers.csv")
    assert set(scores["classifier"]) == {"GaussianNB", "KNeighborsClassifier"}

    shown = pd.read_csv(run / "figures/figure-05-classes.csv")
    of_member, of_scan = (pd.read_csv(run / folder / "classes.csv") for folder in ("cells", "scan"))
    assert len(shown.merge(of_member)) == len(shown) > len(shown.merge(of_scan))
