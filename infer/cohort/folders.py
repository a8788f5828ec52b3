"""Folders without a row in the table, and names that only look the same."""

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from infer.errors import CohortError

LONGEST_NAME = 255  # bytes of a folder name, and so also its most characters


def folders_without_row_of(folder: Path, named: Collection[str]) -> tuple[str, ...]:
    """The folders in the cohort's folder without a row, sorted; hidden folders are ignored."""
    try:
        with os.scandir(folder) as entries:  # knows the type of most entries without another system call
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
    except OSError:  # a loop of links, or a target without permission
        return False


def look_alike_key(name: str) -> str:
    """A key that is equal for names that differ only in Unicode composition, case or surrounding blanks."""
    name = name[:LONGEST_NAME]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()
