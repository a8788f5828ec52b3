"""What all documents of a run have in common."""

from dataclasses import dataclass

from infer.fhir.codes import Codes
from infer.fhir.ids import card_id, device_id, result_id
from infer.report.about import About
from infer.report.texts import Texts

R4, R5 = "r4", "r5"
VERSIONS = (R4, R5)


@dataclass(frozen=True)
class Site:
    """What is asked for."""

    version: str  # of FHIR: r4, r5
    system: str  # of the patients' identifiers
    codes: Codes
    texts: Texts


@dataclass(frozen=True)
class Model:
    """The model that made the results, and by which thresholds."""

    program: str  # version
    bundle: str  # ID
    point: str  # name of the operating point
    prevalence: float  # share of malignant patients at which the probabilities hold
    card: str  # Markdown
    made: str  # ISO date of the bundle
    about: About

    @property
    def device(self) -> str:
        """The ID of its Device."""
        return device_id(self.program, self.bundle)

    @property
    def document(self) -> str:
        """The ID of its card."""
        return card_id(self.bundle, self.card)

    def id_of(self, kind: str, site: Site, patient: str, of: str) -> str:
        """The ID of a resource that it has authored."""
        return result_id(kind, self.bundle, site.system, patient, of)
