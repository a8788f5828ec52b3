"""Makes a new bundle of a finished one and the validation of it: the same graphs, other probabilities and decisions."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from export.adapting.card import adapted_card
from export.adapting.figures import Effect, effect
from export.adapting.local import Local, read_local
from export.adapting.points import USUAL, choose_points, cross_fit
from export.adapting.recalibration import FEWEST, PREVALENCE, recalibrate, what_can_be_fitted
from export.adapting.reference import local_reference, recalibrated_clinical, with_sizes
from export.manifest import with_reduced
from export.publish import check_target, publish
from export.usual import held_up_by_others
from infer import __version__
from infer.bundle.load import CARD, CHECKSUMS, Bundle, checksums
from infer.bundle.manifest import MANIFEST, Adapted, Manifest, encode, graph_files, load_members
from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.cohort.sexes import parse_sex_codes
from infer.errors import UsageError
from infer.options import check_prevalence
from infer.scoring.prevalence import at_prevalence
from infer.scoring.prevalence import recalibrate as moved_by

FEWEST_FOR_PREVALENCE = 10  # patients


@dataclass(frozen=True)
class AdaptOptions:
    """What is asked for beside the patients."""

    prevalence: float | None = None  # share of malignant patients among those to be scored; None: the validation's
    sensitivities: Mapping[str, float] = field(default_factory=lambda: USUAL)  # operating point -> sensitivity
    reduced: Path | None = None  # the validation's patients, to prove int8 on; None: float32 alone
    replace: bool = False
    seed: int = 0


def adapt(bundle: Bundle, validation: Path, folder: Path, asked: AdaptOptions) -> tuple[Bundle, Effect | None]:
    """Adapt a bundle.

    Args:
        bundle: as it was trained.
        validation: what `python -m train validate` wrote of it.
        folder: of the new bundle.

    Returns:
        The new bundle; its figures before and after, if more than the prevalence was fitted.

    Raises:
        UsageError: the bundle was adapted before, it shows no skill on these patients, int8 cannot be tried, or as
            `read_local`.
        ParityError: int8 changes one of the patients too much.
        CohortError: the patients of `reduced` cannot be read.
    """
    folder = folder.resolve()
    if folder == bundle.folder.resolve():
        raise UsageError(
            f"{folder}: is the bundle that is to be adapted, which is needed again later. Name another folder"
        )
    check_target(folder, asked.replace)
    check_prevalence("--prevalence", asked.prevalence)
    if bundle.manifest.adapted:
        raise UsageError(
            f"{bundle.folder}: was adapted already. Validate and adapt the bundle it was made from, "
            f"{bundle.manifest.adapted.source[:12]}"
        )
    local = read_local(validation, bundle)
    what = what_can_be_fitted(local.labels)
    _demand_skill(validation, local, asked.seed)
    if what == PREVALENCE:
        _demand_usual_points(asked)
        manifest, found = at_prevalence(bundle.manifest, local.prevalence), None
    else:
        manifest, found = _fitted(bundle.manifest, local, what, asked)
    manifest = msgspec.structs.replace(
        manifest,
        adapted=Adapted(
            source=bundle.bundle_id,
            code_version=__version__,
            created=dt.datetime.now(dt.UTC).date().isoformat(),
            fitted=what,
            prevalence=local.prevalence,
            patients=len(local.labels),
            malignant=int(local.labels.sum()),
            table_sha256=local.table_sha256,
            seen=local.seen,
            pixel_size=local.options["pixel_size"],
            reference=what != PREVALENCE,
        ),
    )
    if asked.prevalence is not None:
        manifest = at_prevalence(manifest, asked.prevalence)
    manifest, graphs = with_precision(bundle, manifest, local, asked)
    data = encode(manifest)
    card = adapted_card(bundle, manifest, data, local, found, asked.sensitivities)
    files = {**graphs, MANIFEST: data, CARD: card.encode()}
    return publish({**files, CHECKSUMS: checksums(files)}, folder), found


def _fitted(manifest: Manifest, local: Local, what: str, asked: AdaptOptions) -> tuple[Manifest, Effect]:
    fitted = recalibrate(local.probability, local.labels, manifest.prevalence, what)
    crossed = cross_fit(local.probability, local.labels, manifest.prevalence, what, asked.sensitivities, asked.seed)
    clinical = recalibrated_clinical(manifest, local, what)
    moved = moved_by(manifest, fitted.calibration, clinical)
    reference = local_reference(manifest, local, crossed.probability.mean(axis=0), clinical)
    held_up = held_up_by_others(local.measures, reference.usual.limit)
    points = choose_points(fitted.of(local.probability), local.labels, asked.sensitivities)
    return (
        msgspec.structs.replace(
            moved,
            ensemble=msgspec.structs.replace(moved.ensemble, operating_points=points),
            reference=reference,
            drift=with_sizes(manifest.drift, local),
        ),
        effect(local, manifest.ensemble.operating_points, points, crossed, held_up, asked.seed),
    )


def _demand_skill(validation: Path, local: Local, seed: int) -> None:
    """Few patients can hardly show skill; but they can show that there is none."""
    found = local.auc(seed)
    number = len(local.labels)
    if number < FEWEST_FOR_PREVALENCE:
        raise UsageError(
            f"{validation}: has {number} patients, and {FEWEST_FOR_PREVALENCE} are needed to adapt to. Validate on "
            "more, or say --prevalence when scoring"
        )
    if not (found.low > 0.5 or (number < FEWEST and found.high > 0.5)):
        raise UsageError(
            f"{validation}: no skill is shown: the bundle ranks these patients no better than chance (AUC "
            f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]). Do not use it here"
        )


def _demand_usual_points(asked: AdaptOptions) -> None:
    further = asked.sensitivities.keys() - USUAL.keys()
    if further:
        raise UsageError(
            f"--operating-point {min(further)}: with so few patients thresholds cannot be chosen, only the prevalence. "
            "Leave it out, or validate on more patients"
        )


def with_precision(
    bundle: Bundle, manifest: Manifest, local: Local, asked: AdaptOptions
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and its graphs, with int8 only if it is proven anew: thresholds and slope are others."""
    plain = graph_files(load_members(manifest), ())
    graphs = {name: data for name, data in bundle.graphs.items() if name in plain}
    manifest = msgspec.structs.replace(
        manifest, int8=None, graphs={name: digest for name, digest in manifest.graphs.items() if name in plain}
    )
    if asked.reduced is None:
        return manifest, graphs
    if bundle.manifest.int8 is None:
        raise UsageError(f"{bundle.folder}: has no graphs in int8, so --reduced has nothing to try")
    if local.options["pixel_size"] is not None:
        raise UsageError("--reduced: cannot be proven on pictures that were validated with --pixel-size. Leave it out")
    cohort = _cohort(asked.reduced, manifest, local)
    if cohort.table_sha256 != local.table_sha256:
        raise UsageError(
            f"--reduced {asked.reduced}: its table is not the validation's. Give the patients of VALIDATION"
        )
    return with_reduced(manifest, bundle.graphs, cohort, "int8"), bundle.graphs


def _cohort(folder: Path, manifest: Manifest, local: Local) -> Cohort:
    """The validation's patients, read as they were then."""
    options = local.options
    codes = options["sex_codes"]
    return read_cohort(
        folder,
        manifest.plausible,
        annotations=Path(options["annotations"]) if options["annotations"] else None,
        reference_date=local.reference_date,
        date_format=options["date_format"],
        sample_date_format=options["sample_date_format"],
        sex_codes=parse_sex_codes(codes) if codes is not None else None,
    )
