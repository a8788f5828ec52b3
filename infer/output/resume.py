"""Resuming an interrupted run: whether it can be resumed, and which patients' results are still valid.

Bundle, options and rounding must be the same. A patient is kept if neither its row nor a byte of its pictures changed.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from infer.cohort.patient import Cohort
from infer.errors import OutputError
from infer.output.folder import unfinished, unfinished_size
from infer.output.journal import Identity, Place, Stored
from infer.pictures.decode import try_picture
from infer.scoring.bag import open_bag
from infer.scoring.result import ImageResult


@dataclass(frozen=True)
class Past:
    """The unfinished run found in the output folder, if any."""

    stored: Stored | None = None  # the unfinished run to resume
    started_over: str = ""  # why an existing unfinished run is not resumed, for run.json
    problem: OutputError | None = None  # it cannot be read, so it must not be overwritten

    def if_same(self, identity: Identity) -> "Past":
        """This, or nothing to resume if its results were computed under a different identity."""
        if self.stored is None:
            return self
        before, now = asdict(self.stored.header.identity), asdict(identity)
        other = [name for name in now if before[name] != now[name]]
        return Past(started_over=f"the unfinished run had another {', '.join(other)}") if other else self


def find_past(folder: Path, asked: Identity, *, fresh: bool) -> Past:
    """Look for an unfinished run with the same identity; numerics are not compared, because they are known only later.

    Args:
        fresh: start over in any case.
    """
    try:
        size = unfinished_size(folder)
        if not size:
            return Past()
        if fresh:
            return Past(started_over="--fresh")
        stored = unfinished(folder)
    except OutputError as error:
        return Past(problem=error)
    if stored is None:
        return Past(started_over="the unfinished run's journal is damaged or from another program version")
    return Past(stored).if_same(replace(asked, numerics=stored.header.identity.numerics))


def unchanged(cohort: Cohort, places: Mapping[str, Place], workers: int, settle: float) -> dict[int, int]:
    """Patients of the cohort that an earlier start finished and that are unchanged since.

    All their pictures are read, but not decoded. Failed patients are scored again: what was missing may exist now.

    Args:
        places: by patient, from the journal.
        workers: number of reading threads.
        settle: seconds for which a patient's folder must have been unchanged.

    Returns:
        The patient's line in the table -> the offset of its entry in the journal.
    """
    root = cohort.folder.resolve()
    kept: dict[int, int] = {}
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read") as pool:
        for patient in cohort.patients:
            place = places.get(patient.patient_id)
            if place is None or place.status == "failed":
                continue
            bag = open_bag(cohort.folder, root, patient, settle)

            def content(image: ImageResult, folder: Path = bag.folder) -> str:
                return try_picture(folder / image.image, root)[0]

            for one in pool.map(content, bag.images):
                bag.add_to_fingerprint(one)
            if bag.fingerprint == place.fingerprint:
                kept[patient.line] = place.offset
    return kept
