"""Turns one row of the table into a patient: complete, or with the reason why not."""

from infer.cohort.patient import Clinical, Patient, Verdict
from infer.cohort.plausible import Plausible
from infer.cohort.sexes import Sex
from infer.cohort.table import CENTRE, Row, number
from infer.reasons import Reason


def patient_of_row(
    row: Row, age: float | Verdict, sample: str, sex: Sex | None, times: int, plausible: Plausible
) -> Patient:
    """The patient of a row.

    Args:
        age: in years, or the reason why there is none.
        sample: ISO date of the sample; empty: not known.
        times: number of rows with this ID.
    """
    patient_id = row.cells["ID"]
    label, centre = row.cells.get("LABEL", ""), row.cells.get(CENTRE, "")
    verdict = _bad_id(patient_id, row.line, times)
    clinical = verdict or _clinical(row, age, sex, plausible)
    if isinstance(clinical, Verdict):
        return Patient(patient_id, row.line, None, clinical, label, centre)
    return Patient(patient_id, row.line, clinical, None, label, centre, sample)


def _bad_id(patient_id: str, line: int, times: int) -> Verdict | None:
    if not patient_id:
        return Verdict.of(Reason.ID_MISSING, line=line)
    if patient_id in (".", "..") or not patient_id.isprintable() or "/" in patient_id or "\\" in patient_id:
        return Verdict.of(Reason.ID_UNUSABLE, line=line)
    if times > 1:
        return Verdict.of(Reason.ID_DUPLICATE, times=times)
    return None


def _clinical(row: Row, age: float | Verdict, sex: Sex | None, plausible: Plausible) -> Clinical | Verdict:
    cells = row.cells
    if sex is None:
        return Verdict.of(Reason.SEX_MISSING, line=row.line)
    if not cells["LYMPH_COUNT"]:
        return Verdict.of(Reason.COUNT_MISSING, line=row.line)
    count = number(cells["LYMPH_COUNT"])
    if count is None:
        return Verdict.of(Reason.COUNT_UNREADABLE, line=row.line)
    if count <= 0 or count not in plausible.lymph_count:
        hint = "; it looks like cells per microlitre, 10^9/L is expected" if count > plausible.lymph_count.high else ""
        return Verdict.of(Reason.COUNT_IMPLAUSIBLE, line=row.line, hint=hint)
    if isinstance(age, Verdict):
        return age
    if age not in plausible.age_years:
        return Verdict.of(Reason.AGE_IMPLAUSIBLE, line=row.line)
    return Clinical(female=sex == "female", lymph_count=count, age_years=age)
