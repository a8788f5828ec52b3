"""The model: a Device, and its card as a DocumentReference."""

from dataclasses import dataclass

from infer.fhir.elements import Json, attachment, concept, reference, transaction
from infer.fhir.ids import card_id, device_id, new_id, result_id
from infer.fhir.site import R4, Site
from infer.report.about import About

NAME = "lympho"


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
    def device_id(self) -> str:
        """The ID of its Device."""
        return device_id(self.program, self.bundle)

    @property
    def card_id(self) -> str:
        """The ID of its card."""
        return card_id(self.bundle, self.card)

    def id_of(self, kind: str, site: Site, patient: str, of: str) -> str:
        """The ID of a resource that it has authored."""
        return result_id(kind, self.bundle, site.system, patient, of)


def device(model: Model, site: Site) -> Json:
    """The Device: program and bundle. In R5 it has another place for its name, and may have several types."""
    texts = site.texts
    name, kind = {"type": "user-friendly-name"}, concept(texts("fhir.device_type"), site.codes.device_type)
    own: Json = (
        {"deviceName": [{"name": NAME, **name}], "type": kind}
        if site.version == R4
        else {"name": [{"value": NAME, **name}], "type": [kind]}
    )
    return {
        "resourceType": "Device",
        "id": model.device_id,
        "language": texts.language,
        "identifier": [{"type": {"text": texts("fhir.bundle_id")}, "value": model.bundle}],
        "status": "active",
        **own,
        "version": [
            {"type": {"text": texts("fhir.program")}, "value": model.program},
            {"type": {"text": texts("fhir.bundle_id")}, "value": model.bundle},
        ],
        "note": [{"text": texts("fhir.support")}],
    }


def card_document(model: Model, site: Site) -> Json:
    """A transaction Bundle of the Device and its model card, once a run."""
    texts = site.texts
    title = texts("fhir.card", bundle=model.bundle[:12])
    card = {
        "resourceType": "DocumentReference",
        "id": model.card_id,
        "language": texts.language,
        "identifier": [{"type": {"text": texts("fhir.bundle_id")}, "value": model.bundle}],
        "status": "current",
        "type": concept(title, site.codes.model_card),
        "subject": reference("Device", model.device_id),
        "content": [
            {"attachment": attachment("text/markdown", model.card, language="en", title=title, creation=model.made)}
        ],
    }
    return transaction(new_id("Bundle", model.card_id, model.device_id), [device(model, site), card])
