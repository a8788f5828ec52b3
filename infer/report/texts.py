"""Texts and numbers in a page's language: one file a language, `texts/en.toml` and `texts/fr.toml`."""

import re
import tomllib
from pathlib import Path
from typing import Any

from infer.errors import UsageError

FOLDER = Path(__file__).parent / "texts"
LANGUAGES = ("en", "fr")
POINT = {"en": ".", "fr": ","}
THOUSANDS = {"en": ",", "fr": "\N{NARROW NO-BREAK SPACE}"}
PERCENT = {"en": "%", "fr": "\N{NARROW NO-BREAK SPACE}%"}
MINUS = "\N{MINUS SIGN}"
DIGITS = 3  # of a probability, as in the documents


class Texts:
    """The texts of a language, and its way to write numbers."""

    def __init__(self, language: str) -> None:
        """Read a language's file.

        Raises:
            UsageError: there are no texts in this language.
        """
        if language not in LANGUAGES:
            raise UsageError(f"--language {language}: there are no texts in it. Choose from {', '.join(LANGUAGES)}")
        self.language = language
        text = (FOLDER / f"{language}.toml").read_text(encoding="utf-8")
        if language == "fr":  # no line may begin with these signs
            text = re.sub(r" (?=[:;?!%»])", "\N{NO-BREAK SPACE}", text)
        self._texts: dict[str, Any] = tomllib.loads(text)

    def __call__(self, key: str, **values: object) -> str:
        """A text by its key, `table.name`, its placeholders filled."""
        text: Any = self._texts
        for part in key.split("."):
            text = text[part]
        return str(text).format(**values)

    def name(self, table: str, code: str) -> str:
        """What a code is called; the code itself if the texts do not know it."""
        if table == "measures" and code.startswith("share_"):
            return self("measures.share", number=code.removeprefix("share_"))
        return str(self._texts[table].get(code, code))

    def reason(self, code: str) -> tuple[str, str]:
        """What a reason's code means, and what to do."""
        entry = self._texts["reasons"].get(code, {"is": code, "do": ""})
        return str(entry["is"]), str(entry["do"])

    def probability(self, value: float) -> str:
        """A probability with three digits; never rounded to 0 or 1."""
        smallest = 10.0**-DIGITS
        if 0 < value < smallest / 2:
            return f"<{self.number(smallest, DIGITS)}"
        if 1 - smallest / 2 <= value < 1:
            return f">{self.number(1 - smallest, DIGITS)}"
        return self.number(value, DIGITS)

    def number(self, value: float, digits: int = 0) -> str:
        """A number with so many digits behind its point."""
        text = f"{abs(value):,.{digits}f}".translate(
            {ord(","): THOUSANDS[self.language], ord("."): POINT[self.language]}
        )
        return f"{MINUS}{text}" if value < 0 and text.strip("0.,") else text

    def signed(self, value: float, digits: int) -> str:
        """The same with its sign."""
        text = self.number(value, digits)
        return text if text.startswith(MINUS) or not text.strip("0.,") else f"+{text}"

    def influence(self, value: float) -> str:
        """A difference of log odds with its sign: three digits, and more where those would all be zeros."""
        digits = 3
        while digits < 6 and abs(value) < 0.5 * 10.0**-digits:
            digits += 1
        return self.signed(value, digits)

    def percent(self, share: float) -> str:
        """A share as whole per cent; not rounded to nothing or everything."""
        whole = round(100 * share)
        if 0 < share < 0.005:
            return f"<1{PERCENT[self.language]}"
        if 0.995 <= share < 1:
            return f">99{PERCENT[self.language]}"
        return f"{whole}{PERCENT[self.language]}"


def shown(text: str) -> str:
    """A text from outside, with what cannot be printed written as an escape: it can neither hide nor turn anything."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)
