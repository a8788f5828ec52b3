"""A patient's document: what was found, by what, from what, and how it was decided.

The sample's date is stated where the table has one. A run's own time is not: each night would be another document.
"""

from infer.fhir.codes import AI_ASSERTED, AUTHOR, ERROR, LABORATORY, NOT_PERFORMED, UCUM
from infer.fhir.elements import (
    NO_REASON,
    Json,
    attachment,
    authored,
    coding,
    concept,
    of_patient,
    reference,
    transaction,
)
from infer.fhir.ids import count_id, sample
from infer.fhir.model import Model, device
from infer.fhir.said import conclusion
from infer.fhir.site import R4, Site
from infer.reasons import FAILED
from infer.report.page import PatientPage
from infer.scoring.result import PatientResult, Scores


def patient_document(result: PatientResult, page: PatientPage, model: Model, site: Site, html: str = "") -> Json:
    """A transaction Bundle: Device, Observations, RiskAssessment, DiagnosticReport, Provenance.

    Args:
        page: of the patient, without others and without names.
        html: the same as HTML; empty: it is not attached.
    """
    return _Document(result, page, model, site).bundle(html)


class _Document:
    def __init__(self, result: PatientResult, page: PatientPage, model: Model, site: Site) -> None:
        self._result, self._page, self._model, self._site = result, page, model, site
        self._sample = sample(result)
        self._subject = of_patient(site.system, result.patient_id)
        self._taken = {"effectiveDateTime": result.sample_date} if result.sample_date else {}
        self._device = reference("Device", model.device_id)
        self._conclusion = conclusion(page, site.texts)
        self._note = [{"text": self._conclusion}]  # whoever reads one resource alone must read of doubts, too
        self._count = count_id(site.system, result.patient_id, self._sample)
        self._probability, self._risk, self._report, self._origin, self._bundle = (
            model.id_of(kind, site, result.patient_id, self._sample)
            for kind in ("probability", "RiskAssessment", "DiagnosticReport", "Provenance", "Bundle")
        )

    def bundle(self, html: str) -> Json:
        scores = self._result.scores
        made = (
            [self._no_probability()] if scores is None else [self._with_probability(scores), self._assessment(scores)]
        )
        made.append(self._diagnostic_report(html))
        found = [self._lymphocyte_count()] if scores else []
        origin = self._provenance(made)
        return transaction(self._bundle, [device(self._model, self._site), *found, *made, origin])

    def _begin(self, kind: str, resource_id: str) -> Json:
        return {"resourceType": kind, "id": resource_id, "language": self._site.texts.language}

    def _lymphocyte_count(self) -> Json:
        """The table's, to six digits: the status is not known, and no software has authored it."""
        return {
            **self._begin("Observation", self._count),
            "status": "unknown",
            "category": [{"coding": [coding(LABORATORY)]}],
            "code": concept(self._site.texts("measures.lymph_count"), self._site.codes.lymphocyte_count),
            "subject": self._subject,
            **self._taken,
            # 10^9/L is the same number.
            "valueQuantity": _quantity(float(format(self._result.measures["lymph_count"], "g")), "10*3/uL", "10*3/uL"),
        }

    def _probability_of(self, status: str) -> Json:
        return {
            **self._begin("Observation", self._probability),
            "meta": authored(),
            "status": status,
            "code": concept(self._site.texts("fhir.probability"), self._site.codes.probability),
            "subject": self._subject,
            **self._taken,
        }

    def _with_probability(self, scores: Scores) -> Json:
        texts = self._site.texts
        return {
            **self._probability_of("preliminary"),
            "valueQuantity": _quantity(_rounded(scores.probability), texts("fhir.unit"), "1"),
            "interpretation": [concept(self._decided(scores))],
            "note": self._note,
            "method": concept(self._method()),
            "device": self._device,
            "derivedFrom": [reference("Observation", self._count)],
        }

    def _no_probability(self) -> Json:
        absent = ERROR if self._result.status == FAILED else NOT_PERFORMED
        why = self._page.reason.why if self._page.reason else ""
        return {
            **self._probability_of("cancelled"),
            "dataAbsentReason": concept(f"{why} ({self._result.code})", [absent]),
            "device": self._device,
        }

    def _assessment(self, scores: Scores) -> Json:
        """FHIR's probabilityDecimal is in per cent: its definition says so, though examples of HL7's have shares."""
        texts, codes = self._site.texts, self._site.codes
        share = _rounded(scores.probability)
        percent = round(100 * share, 4)
        return {
            **self._begin("RiskAssessment", self._risk),
            "meta": authored(),
            "status": "preliminary",
            "method": concept(self._method()),
            "code": concept(texts("fhir.risk"), codes.risk_assessment),
            "subject": self._subject,
            **({"occurrenceDateTime": self._result.sample_date} if self._result.sample_date else {}),
            "performer": self._device,
            "basis": [reference("Observation", one) for one in (self._count, self._probability)],
            "prediction": [
                {
                    "outcome": concept(texts("fhir.outcome"), codes.outcome),
                    "probabilityDecimal": percent,
                    "qualitativeRisk": concept(self._decided(scores)),
                    "rationale": texts(
                        "fhir.rationale",
                        percent=texts.number(percent, 4),
                        share=texts.number(share, 6),
                        pictures=texts.number(self._result.used),
                        low=texts.probability(self._model.about.point.refer_low),
                        high=texts.probability(self._model.about.point.refer_high),
                    ),
                }
            ],
            "note": self._note,
        }

    def _diagnostic_report(self, html: str) -> Json:
        texts, codes, scored = self._site.texts, self._site.codes, self._result.scores is not None
        categories = [{"coding": [coding(one)]} for one in codes.report_category]
        form = attachment("text/html", html, language=texts.language, title=texts("fhir.page")) if html else None
        found = [self._probability, *([self._count] if scored else [])]
        return {
            **self._begin("DiagnosticReport", self._report),
            "meta": authored(),
            "status": "preliminary" if scored else "cancelled",
            **({"category": categories} if categories else {}),
            "code": concept(texts("fhir.report"), codes.report),
            "subject": self._subject,
            **self._taken,
            "result": [reference("Observation", one) for one in found],
            "conclusion": self._conclusion,
            **({"presentedForm": [form]} if form else {}),
        }

    def _provenance(self, targets: list[Json]) -> Json:
        """R4 wants to know when it was recorded, and takes a reason instead; its guide wants to know that it was AI."""
        own: Json = (
            {
                "_recorded": {"extension": [{"url": NO_REASON, "valueCode": "unsupported"}]},
                "reason": [{"coding": [coding(AI_ASSERTED)]}],
            }
            if self._site.version == R4
            else {}
        )
        source = (
            {"entity": [{"role": "source", "what": reference("Observation", self._count)}]}
            if self._result.scores
            else {}
        )
        return {
            **self._begin("Provenance", self._origin),
            "target": [reference(one["resourceType"], one["id"]) for one in targets],
            **own,
            "agent": [{"type": {"coding": [coding(AUTHOR)]}, "who": self._device}],
            **source,
        }

    def _decided(self, scores: Scores) -> str:
        return f"{self._page.decided} ({scores.decision})"

    def _method(self) -> str:
        return self._site.texts(
            "fhir.method",
            version=self._model.program,
            bundle=self._model.bundle[:12],
            point=self._model.point,
            share=self._site.texts.percent(self._model.prevalence),
        )


def _quantity(value: float, unit: str, code: str) -> Json:
    return {"value": value, "unit": unit, "system": UCUM, "code": code}


def _rounded(probability: float) -> float:
    """As predictions.csv has it."""
    return float(format(probability, ".6f"))
