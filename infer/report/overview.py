"""What stands on the first page of the index only: counts, histogram, drift, facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infer.bundle.manifest import AGREEING
from infer.drift.measures import DECISIONS as DECIDED
from infer.report.about import About
from infer.report.charts import BINS, Histogram, Zone, bin_of, histogram, share, zones
from infer.report.entry import Entry
from infer.report.texts import Texts, shown

ZERO_OR_ONE = {"sex", *(f"decision_{one}" for one in DECIDED)}  # whose values are 0 or 1
DECISIONS = ("malignant", "refer", "reactive", "refused", "failed")


@dataclass(frozen=True)
class DriftTable:
    """Tonight's measures beside the training patients'."""

    sentence: str
    rows: tuple[tuple[str, ...], ...]  # measure, median or share, the same in training, p, adjusted p, changed
    nights: str


@dataclass(frozen=True)
class Overview:
    """What stands on the first page only."""

    counts: tuple[tuple[str, str, str], ...]  # decision, in words, patients
    unlike: str  # how many are unlike the training patients; empty if nobody is
    disagreeing: str  # of how many the models disagree too much; empty if of nobody
    histogram: Histogram | None
    histogram_alt: str
    bars: tuple[str, ...]  # each bar in words
    zones: tuple[Zone, ...]
    low: tuple[str, str]  # threshold: place, words
    high: tuple[str, str]
    drift: DriftTable | None
    facts: tuple[tuple[str, str], ...]


def overview_of(scored: Sequence[Entry], about: About, drift: Mapping[str, Any] | None, texts: Texts) -> Overview:
    """The overview of a night.

    Args:
        drift: as infer.drift.report writes it; None: nothing is known.
    """
    bins = [0] * BINS
    for entry in scored:
        bins[bin_of(entry.probability or 0.0)] += 1
    low, high = texts.probability(about.point.refer_low), texts.probability(about.point.refer_high)
    counts = {name: texts.number(about.counts[name]) for name in DECISIONS}
    alt = {name: counts[name] for name in ("reactive", "refer", "malignant")}
    edges = [texts.number(edge / BINS, 2) for edge in range(BINS + 1)]
    bars = (texts("index.bar", low=edges[i], high=edges[i + 1], patients=texts.number(n)) for i, n in enumerate(bins))
    return Overview(
        counts=tuple((name, texts(f"decisions.{name}"), counts[name]) for name in DECISIONS),
        unlike=texts(f"index.unlike_{about.ood}", patients=texts.number(about.unlike)) if about.unlike else "",
        disagreeing=_disagreeing(about, texts),
        histogram=histogram(bins) if scored else None,
        histogram_alt=texts("index.histogram_alt", low=low, high=high, **alt),
        bars=tuple(bars),
        zones=zones(about.point),
        low=(share(about.point.refer_low), texts("index.threshold_low", low=low)),
        high=(share(about.point.refer_high), texts("index.threshold_high", high=high)),
        drift=_drift(drift, texts) if drift else None,
        facts=about.facts,
    )


def _disagreeing(about: About, texts: Texts) -> str:
    if not about.disagreeing:
        return ""
    return texts("index.disagreeing", patients=texts.number(about.disagreeing), share=texts.percent(AGREEING))


def _drift(drift: Mapping[str, Any], texts: Texts) -> DriftTable:
    def number(value: float | None) -> str:
        return "" if value is None else texts.number(value, 3)

    rows = []
    for key, one in drift["measures"].items():
        chances = ("" if one[name] is None else texts.probability(one[name]) for name in ("p", "adjusted_p"))
        changed = texts("drift.yes" if one["changed"] else "drift.no")
        name = shown(texts.name("measures", key))
        typical = ("mean", "training_mean") if key in ZERO_OR_ONE else ("median", "training_median")
        rows.append((name, *(number(one[of]) for of in typical), *chances, changed))
    return DriftTable(_tonight(drift, texts), tuple(rows), _nights(drift["nights"], texts) if drift["nights"] else "")


def _tonight(drift: Mapping[str, Any], texts: Texts) -> str:
    patients = texts.number(drift["patients"])
    if not drift["enough"]:
        return texts("drift.few", patients=patients, needed=texts.number(drift["patients_needed"]))
    changed = {key: one for key, one in drift["measures"].items() if one["changed"]}
    return texts("drift.differ", measures=_named(changed, texts)) if changed else texts("drift.none", patients=patients)


def _nights(nights: Mapping[str, Any], texts: Texts) -> str:
    many = {"runs": texts.number(nights["runs"]), "patients": texts.number(nights["patients"])}
    changed = {key: one for key, one in nights["measures"].items() if one["since"]}
    if not changed:
        return texts("drift.nights_none", **many)
    since = min(str(one["since"]) for one in changed.values())[:10]
    return texts("drift.nights_differ", since=since, measures=_named(changed, texts), **many)


def _named(changed: Mapping[str, Mapping[str, Any]], texts: Texts) -> str:
    """Measures with what has become of them."""
    return ", ".join(
        texts(f"drift.{one['direction'].replace(' ', '_')}", measure=shown(texts.name("measures", key)))
        for key, one in changed.items()
    )
