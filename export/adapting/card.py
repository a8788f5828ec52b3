"""The model card of an adapted bundle: what was adapted, on whom, how good before and after; then the old card."""

import hashlib
import re
from collections.abc import Mapping
from math import isfinite

from export.adapting.figures import DECIDED, BeforeAndAfter, Effect
from export.adapting.local import Local
from export.adapting.points import FOLDS, REPEATS, malignant_needed
from export.adapting.recalibration import FEWEST, FEWEST_FOR_SLOPE, FEWEST_OF_A_CLASS, PREVALENCE, SLOPE
from export.card.write import wrapped
from infer.bundle.load import CARD, Bundle
from infer.bundle.manifest import Adapted, Manifest
from infer.scoring.ensemble import SMALLEST_SAY
from train.core.performance import Estimate
from train.core.texts import number
from train.evaluation.validation.intervals import wilson


def adapted_card(
    bundle: Bundle,
    manifest: Manifest,
    manifest_bytes: bytes,
    local: Local,
    found: Effect | None,
    sensitivities: Mapping[str, float],
) -> str:
    """The card as Markdown.

    Args:
        bundle: that was adapted.
        manifest: of the new bundle, which was adapted.
        manifest_bytes: the same as written, whose SHA-256 is the new bundle's ID.
        local: the patients.
        found: None if only the prevalence was fitted.
        sensitivities: of the operating points, as asked for.
    """
    made = manifest.adapted
    if made is None:
        raise ValueError("the manifest does not say on whom it was adapted")
    parts = [
        "# Model card",
        f"Bundle `{hashlib.sha256(manifest_bytes).hexdigest()}`,\nmade {made.created} by lympho {made.code_version} "
        f"from bundle\n`{bundle.bundle_id}`.",
        "## Adapted to a hospital's own patients",
        *_whom(made, local),
        _what(manifest, made),
        *(_tables(manifest, local, found) if found else []),
        "\n".join(f"- {sentence}" for sentence in _limits(manifest, made, local, sensitivities)),
        "## The card of the bundle that was adapted",
        "Networks, training and training patients are the same. Operating points, calibration and figures are those of "
        "before.",
        _demoted((bundle.folder / CARD).read_text(encoding="utf-8")),
    ]
    return "\n\n".join(wrapped(part) for part in parts) + "\n"


def _whom(made: Adapted, local: Local) -> list[str]:
    known = (
        "no picture of theirs is among the training pictures"
        if local.told
        else "whether the networks were trained on them is not known"
    )
    left_out = f" {local.left_out} patients whom the bundle was trained on were left out." if local.left_out else ""
    low, high = wilson(local.prevalence, made.patients)
    return [
        f"{made.patients} patients with a known diagnosis, {made.malignant} of them malignant ({local.prevalence:.0%} "
        f"[{low:.0%}, {high:.0%}]); {known}.{left_out} The table's SHA-256 is `{made.table_sha256}`."
    ]


def _what(manifest: Manifest, made: Adapted) -> str:
    by = manifest.ensemble.recalibration
    moved = f"log odds become {by.slope:.3f} x log odds {by.intercept:+.3f}" if by else "nothing moves"
    share = f"Probabilities hold where {100 * made.prevalence:.3g}% of the patients are malignant"
    if made.fitted == PREVALENCE:
        return (
            f"Only the prevalence was adapted: {moved}. {share}. Thresholds moved along, so no threshold decides "
            f"otherwise. More needs {FEWEST} patients, {FEWEST_OF_A_CLASS} of each class."
        )
    without = "" if made.fitted == SLOPE else f" The slope needs {FEWEST_FOR_SLOPE} patients of each class."
    return f"Fitted: {made.fitted}. After the weighted mean, {moved}. {share}.{without}"


def _tables(manifest: Manifest, local: Local, found: Effect) -> list[str]:
    rows = ["| | before | after |", "|---|---|---|"]
    rows += [f"| {title} | {_cells(one)} |" for title, one in found.calibration.items()]
    rows.append(f"| patients left undecided for their pictures | {found.held_up[0]} | {found.held_up[1]} |")
    points = ["| operating point | reactive below | malignant from | | before | after |", "|---|---|---|---|---|---|"]
    for name, figures in found.points.items():
        point = manifest.ensemble.operating_points[name]
        for title in DECIDED:
            first = title == DECIDED[0]
            thresholds = f"{point.refer_low:.3g} | {point.refer_high:.3g}" if first else " | "
            points.append(f"| {f'`{name}`' if first else ''} | {thresholds} | {title} | {_cells(figures[title])} |")
    return [
        f"Before: the bundle as it was, on these patients. After: cross-fitted, {REPEATS} times {FOLDS} folds, so each "
        "patient is judged by a fit without that patient. 95% intervals by bootstrap over patients. Patients left "
        "undecided for their pictures, or because the members disagree, count as referred. Calibration and Brier score "
        f"hold at these patients' {local.prevalence:.0%}.",
        "\n".join(rows),
        "\n".join(points),
    ]


def _limits(manifest: Manifest, made: Adapted, local: Local, sensitivities: Mapping[str, float]) -> list[str]:
    said = [
        f"`{name}`: nobody is called reactive. To promise this sensitivity takes "
        f"{malignant_needed(sensitivities[name])} malignant patients."
        for name, point in manifest.ensemble.operating_points.items()
        if point.refer_low == 0.0 and name in sensitivities
    ]
    if made.reference:
        said.append(
            "`ood_p`, `unusual` and drift compare with these patients. Wherever scoring says *training patients* in "
            "this respect, these are meant."
        )
    else:
        said.append("`ood_p`, `unusual` and drift compare with the training patients, as before.")
    if manifest.ensemble.disagreement is not None:
        said.append(
            f"A patient on whom the members of weight {SMALLEST_SAY} or more lie more than "
            f"{manifest.ensemble.disagreement:.3g} apart is left "
            "undecided, as before: their probabilities are compared before they are recalibrated "
            "(`disagreement_of_weighted`)."
        )
    if made.pixel_size is not None:
        said.append(f"Score with `--pixel-size {made.pixel_size:g}`, as these patients were; another one is refused.")
    if manifest.int8:
        said.append(
            f"In int8, of {manifest.int8.patients} patients scored both ways, none got a different decision at any of "
            f"these operating points; no probability changed by more than {manifest.int8.largest_change:.4f}."
        )
    else:
        said.append(
            "All graphs compute in float32: int8 was not proven for these decisions (`--reduced`). The validation "
            f"computed in {local.precision}."
        )
    said.append("Adapted to one hospital, stain and analyser: elsewhere, validate again. Not a medical device.")
    return said


def _cells(one: BeforeAndAfter) -> str:
    after = "not measured: too few malignant patients in four folds" if one.after is None else interval(one.after)
    return f"{'new' if one.before is None else interval(one.before)} | {after}"


def interval(of: Estimate | None) -> str:
    """A figure with its interval."""
    if of is None:
        return "none"
    if not isfinite(of.value):
        return "cannot be told"
    return f"{number(of.value)} [{number(of.low)}, {number(of.high)}]"


def _demoted(card: str) -> str:
    """The old card below this one's heading."""
    return re.sub(r"^(#+ )", r"##\1", card.strip(), flags=re.MULTILINE)
