"""The model: a Device, and its card as a DocumentReference."""

from infer.fhir.elements import Json, attachment, concept, reference, transaction
from infer.fhir.ids import new_id
from infer.fhir.site import R4, Model, Site

NAME = "lympho"


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
        "id": model.device,
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
        "id": model.document,
        "language": texts.language,
        "identifier": [{"type": {"text": texts("fhir.bundle_id")}, "value": model.bundle}],
        "status": "current",
        "type": concept(title, site.codes.model_card),
        "subject": reference(model.device),
        "content": [
            {"attachment": attachment("text/markdown", model.card, language="en", title=title, creation=model.made)}
        ],
    }
    return transaction(new_id("Bundle", model.document, model.device), [device(model, site), card])
