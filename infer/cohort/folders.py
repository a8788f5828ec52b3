"""Folders that no row of the table names, and names that only look the same."""

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from infer.errors import CohortError

LONGEST_NAME = 255  # bytes, of a folder: and so characters at most


def folders_without_row_of(folder: Path, named: Collection[str]) -> tuple[str, ...]:
    """The folders in the cohort's folder that no row names, sorted; hidden ones are not meant for lympho."""
    try:
        with os.scandir(folder) as entries:  # knows of most entries what they are without asking the disk for each
            return tuple(
                sorted(
                    entry.name
                    for entry in entries
                    if entry.name not in named and not entry.name.startswith(".") and _is_folder(entry)
                )
            )
    except OSError as error:
        raise CohortError(f"{folder}: cannot be read ({error.strerror}). Make the folder readable") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or where nobody may look
        return False


def look_alike_key(name: str) -> str:
    """What two names have in common that differ only in Unicode composition, case or blanks around them."""
    name = name[:LONGEST_NAME]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()
