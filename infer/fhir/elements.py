"""Data types of FHIR that several resources have, the same in R4 and R5."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from infer.fhir.codes import AI_ASSERTED, Code

Json = dict[str, Any]
NO_REASON = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def coding(code: Code) -> Json:
    """A Coding."""
    built: Json = msgspec.to_builtins(code)
    return built


def concept(text: str, codes: Sequence[Code] = ()) -> Json:
    """A CodeableConcept: always with text, and with the codes that there are."""
    return ({"coding": [coding(code) for code in codes]} if codes else {}) | {"text": text}


def of_patient(system: str, patient: str) -> Json:
    """A patient, by identifier alone."""
    return {"type": "Patient", "identifier": {"system": system, "value": patient}}


def reference(kind: str, resource_id: str) -> Json:
    """Another resource, by the place that its PUT gives it: servers need rewrite urn:uuid only for what they name."""
    return {"reference": f"{kind}/{resource_id}"}


def authored() -> Json:
    """The label of what software has authored."""
    return {"security": [coding(AI_ASSERTED)]}


def attachment(content_type: str, content: str, **more: str) -> Json:
    """An Attachment that holds its content."""
    data = base64.b64encode(content.encode("utf-8", "backslashreplace")).decode("ascii")
    return {"contentType": content_type, **more, "data": data}


def transaction(bundle_id: str, resources: Sequence[Json]) -> Json:
    """A Bundle that puts each resource in its place: a second time changes nothing."""
    return {
        "resourceType": "Bundle",
        "id": bundle_id,
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"urn:uuid:{resource['id']}",
                "resource": resource,
                "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"},
            }
            for resource in resources
        ],
    }
