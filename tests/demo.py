"""`make demo`: generates six synthetic patients, scores them with the shipped bundle and prints the results."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import click

from infer.output.csv import PREDICTIONS
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort

COLUMNS = ("patient_id", "status", "probability_malignant", "decision", "age_years", "images", "disagreement", "ood_p")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def demo(folder: Path) -> None:
    """Generate, score and show six patients in FOLDER, which is recreated."""
    shutil.rmtree(folder, ignore_errors=True)
    patients, out = folder / "patients", folder / "out"
    write_cohort(patients, make_patients(6, seed=7), seed=7, labels=False)
    code = subprocess.call(
        [
            *(sys.executable, "-m", "infer", str(patients), str(out), "--report"),
            *("--reference-date", REFERENCE_DATE.isoformat()),
        ]
    )
    if code:
        sys.exit(code)
    with (out / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    click.echo("\nSix drawn patients, scored with the bundle that ships. Drawn cells: the numbers mean nothing.")
    click.echo("No decision, because they are unlike the training patients (ood_p below .03).\n")
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in COLUMNS}
    for line in ({column: column for column in COLUMNS}, *rows):
        click.echo("  ".join(line[column].ljust(widths[column]) for column in COLUMNS))
    click.echo(
        f"\nPatients:    {patients}\nResults:     {out}/ (predictions.csv, images.csv, drift.json, run.json, run.log)"
    )
    click.echo(f"Pages:       {out / 'report' / 'index.html'}")


if __name__ == "__main__":
    demo()
