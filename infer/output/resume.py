"""After a cut: whether a run goes on from what was left, and which patients' results still stand.

The same bundle, options and rounding go on; a patient stands if neither its row nor a byte of its pictures changed.
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
from infer.scoring.patient import open_bag
from infer.scoring.result import ImageResult


@dataclass(frozen=True)
class Past:
    """What an earlier run left in the output folder for this one."""

    stored: Stored | None = None  # to go on from
    started_over: str = ""  # why an unfinished run is there and does not count, for run.json
    problem: OutputError | None = None  # it cannot be read: nothing may be written over it

    def if_same(self, identity: Identity) -> "Past":
        """This, or nothing if its results hang on something else than this run's."""
        if self.stored is None:
            return self
        before, now = asdict(self.stored.header.identity), asdict(identity)
        other = [name for name in now if before[name] != now[name]]
        return Past(started_over=f"the unfinished run had another {', '.join(other)}") if other else self


def find_past(folder: Path, asked: Identity, *, fresh: bool) -> Past:
    """Look for an unfinished run of the same identity; its numerics are known only later and are not compared.

    Args:
        fresh: start over whatever is there.
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
        return Past(started_over="the unfinished run's journal is of another program or damaged")
    return Past(stored).if_same(replace(asked, numerics=stored.header.identity.numerics))


def unchanged(cohort: Cohort, places: Mapping[str, Place], workers: int, settle: float) -> dict[int, int]:
    """Patients of the cohort that an earlier start finished and that are still what they were.

    All their pictures are read, none is decoded. Who failed is looked at again: what was missing may be there now.

    Args:
        places: the journal's, by patient.
        workers: reading threads.
        settle: seconds that a patient's folder must have been left alone.

    Returns:
        The patient's line in the table -> where its entry stands in the journal.
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
                bag.see(one)
            if bag.fingerprint == place.fingerprint:
                kept[patient.line] = place.offset
    return kept
