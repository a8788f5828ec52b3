"""Whether the column CENTRE can be used, and whether a centre tells the label."""

from infer.cohort.patient import Cohort, Patient
from infer.errors import CohortError
from train.checking.finding import Finding, correct, fine, look
from train.data.labelled import centres_of


def findings_of_centres(cohort: Cohort, labelled: list[Patient]) -> list[Finding]:
    """Nothing without the column; the labelled patients of each centre by class."""
    try:
        centres = centres_of(cohort, labelled)
    except CohortError as error:
        return [correct("centres", str(error), "Name one centre for each labelled patient.")]
    if centres is None:
        return []
    labels: dict[str, list[str]] = {}
    for centre, patient in zip(centres, labelled, strict=True):
        labels.setdefault(centre, []).append(patient.label)
    rows = [f"{name}: {of.count('1')} malignant, {of.count('0')} reactive" for name, of in sorted(labels.items())]
    one_class = [name for name, of in sorted(labels.items()) if len(set(of)) == 1]
    if len(labels) > 1 and one_class:
        what = f"{len(one_class)} of {len(labels)} centres have patients of one class only: {', '.join(one_class)}"
        todo = (
            "Add patients of the other class from there, or leave the centre out: its stain and camera would tell the "
            "label, and figures would look better than the model is."
        )
        return [look("centres", what, todo, rows)]
    return [fine("centres", f"Patients of {len(labels)} centres", concerned=rows)]
