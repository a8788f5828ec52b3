"""--metrics FILE: how the last run ended, for the textfile collector of Prometheus' node exporter.

The collector reads Prometheus' text format. The file is OpenMetrics, too: it keeps to what both know. So everything is
a gauge (a counter's name is not the same in both, and the collector refuses a file that declares an info), nothing has
a timestamp (it refuses those as well), and # UNIT and # EOF are comments to it. Every sample has the file's name as a
label: of two samples from two files that differ in nothing the exporter takes one.
"""

import contextlib
import datetime as dt
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infer import __version__
from infer.drift.history import check_place
from infer.errors import UsageError
from infer.machine.disk import replace_file
from infer.output.summary import Summary

LOG = logging.getLogger("lympho")
BEGINS = b"# HELP lympho_"
MODE = 0o644  # the exporter runs as another user, and there is no patient's value in it
Samples = Mapping[str, float]  # labels as written, with their braces -> value


@dataclass(frozen=True)
class Family:
    """A metric."""

    name: str  # ends with its unit, if it has one
    help: str
    samples: Samples
    unit: str = ""

    def lines(self) -> Iterator[str]:
        """As both formats write it."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} gauge"
        if self.unit:
            yield f"# UNIT {self.name} {self.unit}"
        for labels, value in self.samples.items():
            yield f"{self.name}{labels} {value!r}"


@dataclass
class Metrics:
    """What is known of a run so far."""

    path: Path | None
    started: dt.datetime
    summary: Summary = field(default_factory=Summary)
    bundle: str = ""  # ID; empty until it is loaded
    scoring: bool = False  # whether patients are counted yet
    drift: bool | None = None  # whether it was found; None: not known
    checked: bool = False  # whether the file may be written

    def check(self, outside: Iterable[tuple[str, Path]], others: Iterable[Path] = ()) -> None:
        """Make sure that the file may lie there; until then, and if it may not, it is not written.

        Args:
            outside: folders, each with what it is and why no file may lie there.
            others: files that the run reads, writes or removes.

        Raises:
            UsageError: it lies in one of these folders, is one of these files, or is somebody's file.
        """
        self.checked = False
        if self.path is None:
            return
        # Not Path's, which raise where a folder may not be entered: that is for `write` to say.
        something, a_file = os.path.exists(self.path), os.path.isfile(self.path)  # noqa: PTH110, PTH113
        if not self.path.name or (something and not a_file):
            raise UsageError(f"--metrics {self.path}: is no place for a file. Give a name ending in .prom")
        check_place(self.path, outside, others, "--metrics")
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            if not (file.read(len(BEGINS)) or BEGINS).startswith(BEGINS):
                raise UsageError(f"--metrics {self.path}: is a file of another kind. Choose another name")
        self.checked = True

    def write(self, ended: dt.datetime, code: int) -> None:
        """Replace the file, at once for whoever reads it. That it cannot be written is logged and changes nothing else.

        Args:
            code: the exit code.
        """
        if self.path is None or not self.checked:
            return
        text = "\n".join([*(line for family in self.families(ended, code) for line in family.lines()), "# EOF\n"])
        try:
            replace_file(Path(os.path.realpath(self.path)), text, MODE, for_all=True)
        except OSError as error:
            LOG.warning("--metrics %s: cannot be written (%s)", self.path, error.strerror)

    def families(self, ended: dt.datetime, code: int) -> list[Family]:
        """All that is known; what is not is left out."""
        begun, done, run = self.started.timestamp(), ended.timestamp(), self._labels()
        found = [
            Family("lympho_run_exit_code", "Exit code of the last run, as in the manual.", {run: code}),
            Family("lympho_run_start_timestamp_seconds", "When the last run started.", {run: begun}, "seconds"),
            Family("lympho_run_end_timestamp_seconds", "When the last run ended.", {run: done}, "seconds"),
            Family("lympho_run_duration_seconds", "Wall-clock time of the last run.", {run: done - begun}, "seconds"),
            Family(
                "lympho_build_info",
                "1, with the program's version and the bundle's ID; empty: not loaded.",
                {self._labels(version=__version__, bundle=self.bundle): 1},
            ),
        ]
        if self.scoring:
            found += self._counted()
        if self.drift is not None:
            found.append(Family("lympho_run_drift", "1 if drift was found, else 0.", {run: int(self.drift)}))
        return found

    def _labels(self, **more: str) -> str:
        return labels(run=self.path.stem if self.path else "", **more)

    def _counted(self) -> list[Family]:
        counted = self.summary.as_counts()
        unlike = {self._labels(): self.summary.unlike}
        return [
            Family(
                "lympho_run_patients",
                "Patients that the last run finished, by status.",
                {self._labels(status=status): number for status, number in counted["patients"].items()},
                "patients",
            ),
            Family(
                "lympho_run_decided_patients",
                "Scored patients among them, by decision.",
                {self._labels(decision=decision): number for decision, number in counted["decisions"].items()},
                "patients",
            ),
            Family("lympho_run_unlike_patients", "Patients unlike the training patients.", unlike, "patients"),
            Family(
                "lympho_run_pictures",
                "Pictures of these patients, by status.",
                {self._labels(status=status): number for status, number in counted["images"].items()},
                "pictures",
            ),
        ]


def labels(**values: str) -> str:
    """Labels as both formats write them."""
    escaped = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return "{" + ",".join(f'{name}="{value.translate(escaped)}"' for name, value in values.items()) + "}"
