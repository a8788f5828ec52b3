"""The folders in OUT: `report` with pages for people, `fhir` with documents for other systems."""

import re
from dataclasses import dataclass

LIST = ".files"  # names that a folder has written, one a line, where a name alone does not tell whose a file is


@dataclass(frozen=True)
class Kind:
    """A folder in OUT."""

    folder: str
    name: re.Pattern[str]  # that its files may have
    one: str  # what a file is, for messages
    all: str  # what they are
    listed: bool = False  # only files that LIST names are its own

    @property
    def part(self) -> str:
        """The hidden folder that is written."""
        return f".{self.folder}.part"

    @property
    def old(self) -> str:
        """The hidden folder that is being removed."""
        return f".{self.folder}.old"

    @property
    def earlier(self) -> str:
        """The hidden folder of an earlier run, while tables change."""
        return f".{self.folder}.earlier"


REPORT = Kind("report", re.compile(r"(index|by-id)(-\d+)?\.html|p\d+\.html"), "page", "pages")
DOCUMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json|_[a-z0-9-]{10,36}\.json"
FHIR = Kind(
    "fhir", re.compile(rf"{DOCUMENT}|{re.escape(LIST)}"), "document of an earlier run", "documents", listed=True
)
KINDS = (REPORT, FHIR)
FOLDERS = tuple(kind.folder for kind in KINDS)
