"""IDs of resources: the same for the same patient, sample and bundle, whenever and wherever they are written.

A second night PUTs the same resources again, so that a server has each once. What an ID depends on:

- the bundle's ID: another model says something of its own, and what an earlier one said stays;
- identifier system and patient ID;
- the sample: its date, so that a picture more corrects what was said. Where the table has none, the patient's pictures,
  in any order and under any names: a picture more is then another sample. What was said of one sample is not replaced
  by what is said of another. Sex, age, count and options are no part of it: where they are corrected, the resource is.

A night without a result says so in resources of their own, one set a patient: it takes no result back.
"""

import hashlib
import json
import uuid

from infer.scoring.result import PatientResult

NAMESPACE = uuid.UUID("0b4a3f0c-6a0e-5c0e-9d53-8f1f6f2f7f11")  # of this program; never changes


def new_id(*parts: str) -> str:
    """A UUID (version 5, RFC 9562) of these texts, in this order."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(parts)))


def sample(result: PatientResult) -> str:
    """A scored patient's sample: its ISO date, or a digest of its pictures; empty for a patient without a result."""
    if not result.scores:
        return ""
    return result.sample_date or hashlib.sha256("".join(sorted(result.contents)).encode()).hexdigest()


def device_id(version: str, bundle: str) -> str:
    """The model's: program and bundle."""
    return new_id("Device", version, bundle)


def card_id(bundle: str, card: str) -> str:
    """The model card's: another text is another document."""
    return new_id("DocumentReference", bundle, hashlib.sha256(card.encode()).hexdigest())


def count_id(system: str, patient: str, of: str) -> str:
    """The lymphocyte count's, which no model has measured."""
    return new_id("count", system, patient, of)


def result_id(kind: str, bundle: str, system: str, patient: str, of: str) -> str:
    """That of a resource that a bundle has authored.

    Args:
        kind: what it is, such as RiskAssessment.
        of: the sample.
    """
    return new_id(kind, bundle, system, patient, of)
