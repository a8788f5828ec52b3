"""The image's SBOM (CycloneDX 1.6), made while it is built from what is really in it: `/app/sbom.cdx.json`.

The same content gives the same bytes: no random serial number, no other clock than SOURCE_DATE_EPOCH.
"""

import datetime as dt
import hashlib
import json
import sysconfig
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from export.supply.debian import components_of_base
from export.supply.installed import archives_of, components_of_packages
from infer import __version__
from infer.bundle.load import CHECKSUMS, Bundle, load_bundle
from infer.output.audit import program_digest

SPEC = "1.6"
NAMESPACE = uuid.UUID("5b6e3f43-0d0e-5f0e-9d0a-6c796d70686f")  # of this project's documents; any fixed one will do
OF_BASE = ("usr/local/lib/python3*/site-packages", "usr/local/lib/python3*/dist-packages")  # beside Debian's packages
ROOT_REF, PROGRAM_REF = "lympho-infer", "lympho"
Component = dict[str, Any]


def write_sbom(path: Path, components: Iterable[Component], base: str, when: dt.datetime) -> None:
    """Write an SBOM.

    Args:
        components: all that the image holds, in any order, each with a `bom-ref` of its own.
        base: the base image's name, as the build was given it.
        when: the time that the document gives as its own.

    Raises:
        OSError: it cannot be written.
    """
    ordered = sorted(components, key=lambda one: (one["type"], str(one["bom-ref"])))
    content: dict[str, Any] = {
        "metadata": {
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "export.supply.sbom", "version": __version__}]},
            "component": {
                "type": "container",
                "bom-ref": ROOT_REF,
                "name": ROOT_REF,
                "version": __version__,
                "properties": [{"name": "lympho:base_image", "value": base}],
            },
        },
        "components": ordered,
        "dependencies": [
            {"ref": ROOT_REF, "dependsOn": sorted(str(one["bom-ref"]) for one in ordered)},
        ],
        # What a wheel or the base has compiled into itself may not be known to anybody.
        "compositions": [{"aggregate": "incomplete", "assemblies": [ROOT_REF]}],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": SPEC, "serialNumber": f"urn:uuid:{serial}", "version": 1}
    path.write_text(json.dumps(head | content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def program() -> Component:
    """The program itself."""
    return {
        "type": "application",
        "bom-ref": PROGRAM_REF,
        "name": "lympho",
        "version": __version__,
        "description": "Scores folders of patients: reactive or malignant lymphocytosis. Not a medical device.",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [{"name": "lympho:program_digest", "value": program_digest()}],  # as in run.json's identity
    }


def of_bundle(bundle: Bundle) -> Component:
    """The bundle, every file of it a part."""
    listed = (bundle.folder / CHECKSUMS).read_bytes()
    files = {name: digest for digest, _, name in (line.partition("  ") for line in listed.decode().splitlines())}
    files[CHECKSUMS] = hashlib.sha256(listed).hexdigest()
    manifest, reference = bundle.manifest, f"bundle:{bundle.bundle_id}"
    properties = {
        "lympho:bundle_id": bundle.bundle_id,
        "lympho:bundle_schema": str(manifest.schema),
        "lympho:weak": manifest.provenance.weak,
        "lympho:adapted_from": manifest.adapted.source if manifest.adapted else "",
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": "lympho bundle",
        "version": bundle.short_id,
        "description": "Reactive or malignant lymphocytosis, from pictures of cells, sex, age and count.",
        "hashes": [_hash(bundle.bundle_id)],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "classification",
                "modelArchitecture": "weighted ensemble: " + ", ".join(manifest.ensemble.weights),
                "inputs": [{"format": "pictures of cells"}, {"format": "sex, age, lymphocyte count"}],
                "outputs": [{"format": "probability of malignancy"}],
            }
        },
        "components": [
            {"type": "file", "bom-ref": f"{reference}/{name}", "name": name, "hashes": [_hash(files[name])]}
            for name in sorted(files)
        ],
        "properties": [{"name": name, "value": value} for name, value in properties.items() if value],
    }


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path), required=True, help="What `pip install --report` wrote.")
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="The image's bundle; it is checked.")
@click.option("--base", required=True, help="The base image's name.")
@click.option("--epoch", type=int, required=True, help="SOURCE_DATE_EPOCH: seconds since 1970.")
def command(out: Path, report: Path, bundle: Path, base: str, epoch: int) -> None:
    """Write the SBOM of the image that is being built to OUT. A damaged bundle ends the build."""
    root = Path("/")
    archives = archives_of(json.loads(report.read_text(encoding="utf-8")))
    of_base = [folder for pattern in OF_BASE for folder in sorted(root.glob(pattern))]
    components = [
        program(),
        of_bundle(load_bundle(bundle)),
        *components_of_packages([Path(sysconfig.get_path("purelib"))], archives),
        *components_of_packages(of_base, {}),
        *components_of_base(root),
    ]
    write_sbom(out, components, base, dt.datetime.fromtimestamp(epoch, dt.UTC))


if __name__ == "__main__":
    command()
