"""Writes RUN/training.html: one file, no script, nothing from outside. It holds patients' pictures."""

import json
from pathlib import Path

from infer import __version__
from train.core.files import write_text
from train.core.html import as_png, environment
from train.core.performance import Predictions
from train.core.provenance import code_note
from train.core.texts import interval, number
from train.evaluation.validation.figures import CLINICAL, ENSEMBLE, calibration_curve, decision_curve
from train.evaluation.validation.page import calibration_plot, decision_plot
from train.page import histories, tables
from train.page.finished_run import FinishedRun, read_run, title_of
from train.page.judged import Judged, judge
from train.page.said import flatters, next_steps, verdict, warnings
from train.page.sample_cells import read_classes

PAGE = "training.html"
TEMPLATES = Path(__file__).parent / "templates"


def write_page(run: Path) -> Path:
    """Write the page of a finished run, and return its path.

    Raises:
        UsageError: as `read_run`.
    """
    path = run / PAGE
    write_text(path, render(read_run(run)))
    return path


def render(found: FinishedRun) -> str:
    """The page as HTML."""
    judged = judge(found)
    labels = found.bags.labels
    curve = decision_curve(
        {
            name: [Predictions(labels, values, values >= 0.5)]
            for name, values in ((ENSEMBLE, found.probability), (CLINICAL, found.clinical[judged.clinical_name]))
        }
    )
    return (
        environment(TEMPLATES)
        .get_template("training.html.j2")
        .render(
            verdict=verdict(found, judged),
            flatters=flatters(found),
            warnings=warnings(found, judged),
            patients=tables.patients(found),
            models=tables.models(found, judged),
            pull=found.metrics.get("pull of the weights", {}).get("towards equal ones"),
            folds=tables.folds(found, judged),
            disagreement=number(found.ensemble.disagreement) if found.ensemble.disagreement is not None else "",
            points=[(one.name, tables.thresholds(one), tables.confusion(one)) for one in judged.confusion],
            calibration=as_png(calibration_plot(calibration_curve(labels, found.probability))),
            calibrated=_calibrated(judged),
            curve=as_png(decision_plot(curve, {CLINICAL: "sex, age and count alone"})),
            learning=_learning(found),
            without_curves=[one.title for one in found.members if one.name not in histories.read_histories(found.run)],
            classes=read_classes(found.run, found.bags),
            steps=next_steps(found),
            facts=_facts(found),
        )
    )


def _calibrated(judged: Judged) -> str:
    slope, intercept = (judged.calibration[name] for name in ("calibration_slope", "calibration_intercept"))
    return (
        f"Slope {interval(vars(slope))} (1 is ideal), calibration in the large "
        f"{interval(vars(intercept), signed=True)} (0 is ideal)."
    )


def _learning(found: FinishedRun) -> list[tuple[str, bool, int, str, str]]:
    """Of each network with curves: title, whether validation is among them, trainings, plot, a note."""
    return [
        (
            title_of(name),
            histories.has_validation(curves),
            len(curves),
            as_png(histories.draw(curves)),
            histories.NOTES.get(name, ""),
        )
        for name, curves in histories.read_histories(found.run).items()
    ]


def _facts(found: FinishedRun) -> list[tuple[str, str]]:
    options = json.loads((found.run / "options.json").read_text())
    return [
        ("Run folder", str(found.run)),
        ("Recipe", options["recipe"]["name"]),
        ("Random seed", str(options["seed"])),
        ("Ages taken at", found.bags.facts.get("reference_date", "unknown")),
        ("Pictures", f"{len(found.bags.crops)}, {found.rejected} rejected"),
        ("Program", f"lympho {__version__}, code {code_note(found.run)}"),
    ]
