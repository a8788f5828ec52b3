"""What the card says of a bundle that was trained on few patients."""

from infer.bundle.manifest import Manifest

FEW = 30  # patients of the rarer class; with fewer the card warns


def few_patients(manifest: Manifest) -> list[str]:
    """What few patients mean; nothing where both classes have FEW patients."""
    data = manifest.provenance.data_summary
    number, name = min((data[name], name) for name in ("malignant", "reactive"))
    if number >= FEW:
        return []
    return [
        f"**Trained on few patients:** {number} are {name}, so that a single one of them moves a sensitivity or "
        f"specificity above by {1 / number:.0%}. Weights, calibration and thresholds are as uncertain as the intervals "
        "say, and may be worse on new patients."
    ]
