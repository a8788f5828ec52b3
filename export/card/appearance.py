"""What the card says of the classes of cells: how many have them, and what their cells look like, in words."""

from infer.bundle.appearance import FEWEST_PATIENTS, FEWEST_PICTURES, MEASURED
from infer.bundle.manifest import Manifest
from infer.bundle.reference import LABELS, Spread
from infer.members.scan import share_of
from infer.report.appearance import in_words
from infer.report.texts import Texts

TITLES = dict(zip(MEASURED, ("cell", "nucleus", "density", "unevenness", "roundness"), strict=True))
SHARES = frozenset(MEASURED[:2])  # are per cent


def cell_classes(manifest: Manifest) -> list[str]:
    """The section; nothing for a bundle without classes."""
    appearance = manifest.reference.appearance
    if appearance is None:
        return []
    texts = Texts("en")
    spreads = [manifest.reference.by_label[label] for label in LABELS]
    rows = [
        f"| class | patients | pictures | {' | '.join(f'share, {label}' for label in LABELS)} | its cells "
        f"| {' | '.join(TITLES.values())} |",
        "|---" * (6 + len(MEASURED)) + "|",
    ]
    for number in range(len(spreads[0])):
        name = share_of(number)
        if any(name not in of_label for of_label in spreads):
            break
        one = appearance.classes.get(name)
        counts = [f"{one.patients}", f"{one.pictures}"] if one else ["", ""]
        measured = [_shown(title, one.medians[title]) if one else "" for title in MEASURED]
        shares = [_share(of_label[name], texts) for of_label in spreads]
        rows.append(f"| {' | '.join([str(number), *counts, *shares, in_words(appearance, name, texts), *measured])} |")
    everything = "; ".join(
        f"{TITLES[name]} {' / '.join(_shown(name, value) for value in appearance.quartiles[name])}" for name in MEASURED
    )
    return [
        "### Classes of cells",
        "They are found without labels and have no names. What their cells look like was measured by a program on the "
        "outlined cells of the training pictures, and judged by no expert: cell, share of the picture; nucleus, share "
        "of the cell; density, mean optical density of the nucleus in green light; unevenness, its standard deviation "
        "within the nucleus; roundness of the outline, 1 for a disc. Medians over the class's pictures. A word stands "
        "where the median lies outside the middle half of all training pictures, whose quartiles are: "
        f"{everything}. A class is not described if fewer than {FEWEST_PATIENTS} patients or {FEWEST_PICTURES} "
        "pictures have it, or if half of these are one patient's. Share: of a patient's pictures, median [10%, 90%].",
        "\n".join(rows),
    ]


def _share(spread: Spread, texts: Texts) -> str:
    low, middle, high = (texts.percent(value) for value in (spread.low, spread.median, spread.high))
    return f"{middle} [{low}, {high}]"


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name in SHARES else f"{value:.3f}"
