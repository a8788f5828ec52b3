"""What all pages of a run have in common: facts that are the same however often the run was started."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infer.bundle.manifest import Manifest, OperatingPoint
from infer.bundle.reference import Reference
from infer.output.journal import Header
from infer.report.texts import Texts, shown


@dataclass(frozen=True)
class Same:
    """Patients that share pictures, all of them; one alone has the same picture more than once."""

    patients: tuple[str, ...]
    pictures: int


@dataclass(frozen=True)
class About:
    """The run, its bundle and its patients."""

    point: OperatingPoint
    weights: Mapping[str, float]  # by member
    sizes: str  # of the training pictures
    patients: int  # in the table
    counts: Mapping[str, int]  # by status and decision
    facts: tuple[tuple[str, str], ...]  # title and value
    version: str
    bundle: str
    reference: Reference
    unlike: int = 0  # patients unlike the training patients
    ood: str = "refer"  # what became of them
    disagreeing: int = 0  # patients left undecided because the models disagree
    same: Mapping[str, tuple[Same, ...]] = field(default_factory=dict)  # by patient
    linked: bool = True  # to the index


def about_run(record: Mapping[str, Any], header: Header, manifest: Manifest, texts: Texts) -> About:
    """What the pages say of the run.

    Args:
        record: run.json.
    """
    device, identity = record["device"], header.identity
    version, bundle = str(record["program"]["version"]), identity.bundle[:12]
    summary = manifest.provenance.data_summary
    trained = texts(
        "facts.training", patients=texts.number(summary["patients"]), malignant=texts.number(summary["malignant"])
    )
    facts = {
        "bundle": bundle,
        "version": f"lympho {version}",
        "point": identity.operating_point,
        "date": header.date,
        "device": f"{texts.name('devices', device['provider'])}, {device['precision']}",
        "patients": texts.number(record["cohort"]["patients"]),
        "trained": trained,
        **_adapted(manifest, texts),
        "holds": texts("facts.prevalence", share=texts.percent(record["bundle"]["prevalence"])),
    }
    return About(
        point=manifest.ensemble.operating_points[identity.operating_point],
        weights=manifest.ensemble.weights,
        sizes=manifest.drift.sizes,
        patients=record["cohort"]["patients"],
        counts={**record["patients"], **record["decisions"]},
        facts=tuple((texts(f"facts.{name}"), shown(value)) for name, value in facts.items()),
        version=version,
        bundle=bundle,
        reference=manifest.reference,
        unlike=record["patients_unlike_training"],
        ood=identity.ood,
        disagreeing=record["patients_disagreeing"],
        same=_same(record["same_pictures"]),
    )


def _adapted(manifest: Manifest, texts: Texts) -> dict[str, str]:
    """Whose patients a bundle was adapted to, if it was."""
    if manifest.adapted is None:
        return {}
    patients, malignant = map(texts.number, (manifest.adapted.patients, manifest.adapted.malignant))
    return {"adapted": texts("facts.training", patients=patients, malignant=malignant)}


def _same(found: list[dict[str, Any]]) -> dict[str, tuple[Same, ...]]:
    """By patient. Each group is there once, however many patients it has: a whole cohort may share pictures."""
    of_patient: defaultdict[str, list[Same]] = defaultdict(list)
    for one in found:
        same = Same(tuple(one["patients"]), one["pictures"])
        for patient in same.patients:
            of_patient[patient].append(same)
    return {patient: tuple(same) for patient, same in of_patient.items()}
