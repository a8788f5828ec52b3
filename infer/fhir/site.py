"""What a site asks for."""

from dataclasses import dataclass

from infer.fhir.codes import Codes
from infer.report.texts import Texts

R4, R5 = "r4", "r5"
VERSIONS = (R4, R5)


@dataclass(frozen=True)
class Site:
    """The same for all documents of a run."""

    version: str  # of FHIR: r4, r5
    system: str  # of the patients' identifiers
    codes: Codes
    texts: Texts
