"""The columns of predictions.csv and images.csv, each declared once with its meaning and its value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from infer.bundle.manifest import OperatingPoint
from infer.column import Column
from infer.members.member import Member
from infer.reasons import REJECTED
from infer.scoring.result import ImageResult, PatientResult

Of = TypeVar("Of")
USED = "used"


@dataclass(frozen=True)
class Field(Generic[Of]):
    """A column and how to get its value from a row."""

    column: Column
    value: Callable[[Of], object]  # returns None for an empty cell

    def text(self, row: Of, decimal: str = ".") -> str:
        """The cell's text. Text that a spreadsheet would take for a formula gets a leading apostrophe."""
        value = self.value(row)
        cell = self.column.text(value)
        if isinstance(value, float):
            cell = cell.replace(".", decimal)
        return f"'{cell}" if isinstance(value, str) and cell.startswith(FORMULA) else cell


FORMULA = ("=", "+", "-", "@", "\t", "\r")
PatientField = Field[PatientResult]
Picture = tuple[PatientResult, ImageResult]
PictureField = Field[Picture]


@dataclass(frozen=True)
class Basis:
    """What all of a run's decisions rest on."""

    bundle: str  # short ID
    point: OperatingPoint
    date: str  # ISO: at which ages were taken for patients without a sample date
    ended: str  # ISO date, UTC: when the run ended
    disagreement: float | None = None  # above which nobody is decided; None: no bound


def prediction_fields(members: Sequence[Member[Any]], basis: Basis) -> list[PatientField]:
    """The columns of predictions.csv, in order.

    Args:
        members: the bundle's members.
    """
    middle, behind_bundle, last = (
        [field for member in members if member.place_of_columns == place for field in _of_member(member)]
        for place in ("middle", "behind bundle", "last")
    )
    return [
        PatientField(Column("patient_id", "Patient ID from the table"), lambda result: result.patient_id),
        PatientField(Column("status", "scored, refused or failed"), lambda result: result.status),
        PatientField(
            Column("reason", "Why the patient has no probability: code and sentence"), lambda result: result.reason
        ),
        PatientField(
            Column("probability_malignant", "Probability of malignancy from the ensemble", "", ".6f"),
            lambda result: result.scores and result.scores.probability,
        ),
        PatientField(
            Column("decision", "malignant, reactive or refer, at the chosen operating point"),
            lambda result: result.scores and result.scores.decision,
        ),
        PatientField(
            Column(
                "age_years",
                "Age at the sample date, or at the reference date if there is none",
                "years",
                ".2f",
            ),
            lambda result: result.age_years if result.scores else None,
        ),
        PatientField(
            Column("images", "Pictures found in the patient's folder", "pictures", "d"),
            lambda result: len(result.images) if result.scores else None,
        ),
        PatientField(
            Column("images_rejected", "Pictures among them that could not be used", "pictures", "d"),
            lambda result: result.rejected if result.scores else None,
        ),
        *middle,
        PatientField(
            Column("disagreement", "Largest minus smallest probability among the members", "", ".6f"),
            lambda result: result.scores and result.scores.disagreement,
        ),
        PatientField(Column("bundle", "First 12 characters of the bundle ID"), lambda result: basis.bundle),
        *behind_bundle,
        PatientField(
            Column("ood_p", "Conformal p-value: share of patients at least as unusual as this one", "", ".4f"),
            lambda result: result.scores and result.scores.ood_p,
        ),
        PatientField(
            Column("unusual", "What is unlike the training patients, the most unlike first; empty if nothing is"),
            lambda result: ", ".join(result.unusual) if result.scores else None,
        ),
        PatientField(Column("sex", "F or M, as the table was read"), lambda result: result.scores and _sex(result)),
        PatientField(
            Column("lymph_count", "Lymphocyte count, as the table was read", "10^9/L", "g"),
            lambda result: result.measures.get("lymph_count") if result.scores else None,
        ),
        PatientField(
            Column("refer_low", "Below this probability the decision is reactive", "", ".6f"),
            lambda result: basis.point.refer_low if result.scores else None,
        ),
        PatientField(
            Column("refer_high", "From this probability on it is malignant", "", ".6f"),
            lambda result: basis.point.refer_high if result.scores else None,
        ),
        PatientField(
            Column("reference_date", "Date at which ages are taken for patients without a sample date"),
            lambda result: basis.date if result.scores else None,
        ),
        *(PatientField(column, _patient_value(column.name)) for member in members for column in member.columns_at_end),
        PatientField(
            Column("refer_disagreement", "Above this disagreement_of_weighted nobody is decided", "", ".6f"),
            lambda result: basis.disagreement if result.scores else None,
        ),
        PatientField(
            Column(
                "disagreement_of_weighted",
                "Disagreement among members of weight .05 or more, before --prevalence and adaptation",
                "",
                ".6f",
            ),
            lambda result: result.scores and result.scores.disagreement_of_weighted,
        ),
        PatientField(Column("run_ended", "Day on which the run ended (UTC)"), lambda result: basis.ended),
        *last,
    ]


def _sex(result: PatientResult) -> str | None:
    return {1.0: "F", 0.0: "M"}.get(result.measures.get("sex", -1.0))


def image_fields(members: Sequence[Member[Any]]) -> list[PictureField]:
    """The columns of images.csv, in order. Pictures of patients without a probability have no numbers.

    Args:
        members: the bundle's members.
    """
    return [
        PictureField(Column("patient_id", "Patient ID from the table"), lambda row: row[0].patient_id),
        PictureField(Column("image", "File name in the patient's folder"), lambda row: row[1].image),
        PictureField(Column("status", "used or rejected"), lambda row: REJECTED if row[1].reason else USED),
        PictureField(Column("reason", "Why the picture was rejected: code and sentence"), lambda row: row[1].reason),
        *(PictureField(column, _picture_value(column.name)) for member in members for column in member.picture_columns),
        PictureField(
            Column(
                "influence",
                "Log odds of malignancy with this picture minus without it; above 0: it speaks for malignant",
                "",
                ".6f",
            ),
            lambda row: row[1].influence if row[0].scores else None,
        ),
    ]


def _of_member(member: Member[Any]) -> list[PatientField]:
    probability = PatientField(
        member.probability_column(), lambda result: result.scores and result.scores.members[member.name]
    )
    return [probability, *(PatientField(column, _patient_value(column.name)) for column in member.patient_columns)]


def _patient_value(name: str) -> Callable[[PatientResult], object]:
    return lambda result: result.scores and result.scores.further[name]


def _picture_value(name: str) -> Callable[[Picture], object]:
    return lambda row: row[1].values.get(name) if row[0].scores else None
