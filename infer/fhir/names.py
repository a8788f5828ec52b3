"""The names of the documents in OUT/fhir."""

import re
import unicodedata

from infer.fhir.ids import new_id

CARD = "_model-card.json"  # no patient's: theirs begin with a letter or digit, or are a UUID
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(10))}


class Names:
    """Names for patients, no two of which differ in capitals only: shares take those for one."""

    def __init__(self) -> None:
        self._patients: set[str] = set()
        self._files: set[str] = set()  # in lower case

    def name_of(self, patient: str) -> str | None:
        """`ID.json`, or `_UUID.json` where an ID is not safe as a file's name; None if the patient has a name."""
        if patient in self._patients:
            return None
        self._patients.add(patient)
        name = f"{patient}.json"
        safe = SAFE.fullmatch(patient) and patient.partition(".")[0].lower() not in RESERVED
        if not safe or name.lower() in self._files:
            name = f"_{new_id('file', patient)}.json"
        self._files.add(name.lower())
        return name


def can_be_written(patient: str) -> bool:
    """Whether an ID can be an identifier's value: FHIR knows no empty text, and no control characters."""
    return bool(patient.strip()) and not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in patient)
