"""Codes: the few that are certain, and those that a site chooses (--codes). Where there is none, there is text.

A file of codes is TOML: a name of `Codes`, and one code or a list of codes for it.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from infer.errors import UsageError

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
_SIGNS = r"[!#-;=?-\[\]_a-z~]"  # that a URI may have: ASCII alone
# Of the kinds that systems have, each as its own rules write it: one that is mistyped is another system.
URI = re.compile(
    r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+"
    r"|urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    rf"|urn:(?!oid:|uuid:)[A-Za-z0-9][A-Za-z0-9-]+:{_SIGNS}+"
    rf"|https?://[A-Za-z0-9\[]{_SIGNS}*"
)
CODE = re.compile(r"\S+( \S+)*")  # FHIR's code: no space at its ends, none doubled


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A FHIR Coding."""

    system: str
    code: str
    display: str = ""


class Codes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The codes of what has a place for one."""

    # "Lymphocytes [#/volume] in Blood": says nothing of the method, which the table does not state.
    lymphocyte_count: tuple[Code, ...] = (Code(LOINC, "26474-7", "Lymphocytes [#/volume] in Blood"),)
    probability: tuple[Code, ...] = ()  # Observation.code
    risk_assessment: tuple[Code, ...] = ()  # RiskAssessment.code
    outcome: tuple[Code, ...] = ()  # RiskAssessment.prediction.outcome
    report: tuple[Code, ...] = ()  # DiagnosticReport.code
    report_category: tuple[Code, ...] = ()  # DiagnosticReport.category
    device_type: tuple[Code, ...] = ()  # Device.type
    model_card: tuple[Code, ...] = ()  # DocumentReference.type


LABORATORY = Code("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory", "Laboratory")
# HL7's AI Transparency guide: the label of a resource that software has authored.
AI_ASSERTED = Code(
    "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "AIAST", "Artificial Intelligence asserted"
)
AUTHOR = Code("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "author", "Author")
NO_VALUE = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
NOT_PERFORMED, ERROR = Code(NO_VALUE, "not-performed", "Not Performed"), Code(NO_VALUE, "error", "Error")


def read_codes(path: Path | None) -> Codes:
    """The codes of a file; without one the defaults.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    if path is None:
        return Codes()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        codes = msgspec.convert({name: _as_list(value) for name, value in content.items()}, Codes)
    except OSError as error:
        raise UsageError(f"--codes {path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise UsageError(f"--codes {path}: is nested too deep. The manual says what such a file may hold") from error
    except ValueError as error:  # TOML's, UTF-8's and msgspec's errors are ValueErrors
        raise UsageError(f"--codes {path}: {error}. The manual says what such a file may hold") from error
    for name in Codes.__struct_fields__:
        for code in getattr(codes, name):
            if not (URI.fullmatch(code.system) and CODE.fullmatch(code.code) and code.code.isprintable()):
                raise UsageError(
                    f"--codes {path}, {name}: system must be a URI that begins with urn: or http, such as {LOINC}, and "
                    "code a line of text without spaces around it. Correct them"
                )
            if code.display and not (code.display.strip() == code.display and code.display.isprintable()):
                raise UsageError(
                    f"--codes {path}, {name}: display must be a line of text without spaces around it. Correct it, or "
                    "leave it out"
                )
    if not codes.lymphocyte_count:
        raise UsageError(f"--codes {path}, lymphocyte_count: is empty. Give a code, or leave the line out")
    return codes


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def check_system(system: str) -> None:
    """An identifier system must be an absolute URI.

    Raises:
        UsageError: it is none.
    """
    if not URI.fullmatch(system):
        raise UsageError(
            f"--fhir-identifier-system {system}: is no URI that begins with urn: or https://. Give that of your "
            "patient IDs, such as urn:oid:1.2.3.4 or https://hospital.example/patient-id"
        )
