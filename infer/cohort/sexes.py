"""Sex as hospitals write it. The meaning of a code is decided once for the whole column, never row by row.

M and F are male and female. In other languages M may be *mujer*, *moteris* or *Mädchen*, and F *férfi*: if a column
contains codes other than M and F, these are accepted only as an unambiguous pair, or as given by --sex-codes.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from infer.errors import CohortError, UsageError

Sex = Literal["male", "female"]
OPTION = "--sex-codes"
USUAL: Mapping[str, Sex] = {"M": "male", "F": "female"}
# Pairs of letters that are unambiguous if both are in the column. Not H and M: hombre, mujer or macho, hembra.
PAIRS: tuple[Mapping[str, Sex], ...] = (
    {"H": "male", "F": "female"},  # homme, femme
    {"M": "male", "W": "female"},  # männlich, weiblich; man, woman
    {"M": "male", "K": "female"},  # mężczyzna, kobieta; mand, kvinde
)
WORDS: Mapping[str, Sex] = {
    **dict.fromkeys(
        (
            "MALE", "MAN", "MASCULIN", "MASCULINE", "MASCULINO", "MASCHIO", "UOMO", "HOMME", "HOMBRE", "VARON", "HOMEM",
            "MANN", "MANNLICH", "MAENNLICH", "MEZCZYZNA", "MAND", "MUZ",
        ),
        "male",
    ),
    **dict.fromkeys(
        (
            "FEMALE", "WOMAN", "FEMININ", "FEMININE", "FEMENINO", "FEMININO", "FEMMINA", "DONNA", "FEMME", "MUJER",
            "HEMBRA", "MULHER", "FRAU", "WEIBLICH", "KOBIETA", "KVINDE", "KVINNA", "KVINNE", "VROUW", "ZENA",
        ),
        "female",
    ),
}  # fmt: skip
# Unknown, or neither male nor female: concerns that patient only.
UNKNOWN = frozenset(
    (
        "", "?", "-", "--", ".", "0", "9", "U", "UNK", "UNKNOWN", "N/A", "NA", "NAN", "NULL", "NONE", "X", "D", "O",
        "OTHER", "DIVERS", "DIVERSE", "NONBINARY", "NON-BINARY", "INDETERMINATE", "NOT STATED", "NOT KNOWN",
        "NOT SPECIFIED", "UNSPECIFIED", "INDETERMINE", "INCONNU", "UNBEKANNT", "UNBESTIMMT", "DESCONOCIDO",
        "DESCONHECIDO", "SCONOSCIUTO", "NIEZNANA", "NIEZNANY",
    )
)  # fmt: skip
SYSTEMS: tuple[Mapping[str, Sex], ...] = (USUAL, *PAIRS, WORDS)
CODES = frozenset(code for system in SYSTEMS for code in system) | {"1", "2"}
LONGEST = 40  # characters of a code that are compared
MOST_NAMED = 6


def parse_sex_codes(text: str) -> dict[str, Sex]:
    """Parse --sex-codes, such as M=male,F=female or 1=male,2=female: sexes by normalised code, as `sexes` needs.

    Raises:
        UsageError: the syntax is wrong, a code occurs twice, or one of the two sexes is missing.
    """
    codes: dict[str, Sex] = {}
    for part in text.split(","):
        code, _, word = (piece.strip() for piece in part.partition("="))
        meaning: Sex | None = "male" if word.lower() == "male" else "female" if word.lower() == "female" else None
        if not _folded(code) or meaning is None or _folded(code) in codes:
            raise _wrong_usage(text)
        codes[_folded(code)] = meaning
    if set(codes.values()) != {"male", "female"}:
        raise _wrong_usage(text)
    return codes


def sexes(
    cells: Sequence[str], lines: Sequence[int], column: str, path: str, codes: Mapping[str, Sex] | None
) -> tuple[list[Sex | None], str]:
    """Each cell's sex, None where it is empty or neither; and how the column was read, for run.json.

    Args:
        cells: the column's cells, stripped of blanks.
        lines: each cell's line in the file, for the message.
        codes: from `parse_sex_codes`, used instead of the built-in rule.

    Raises:
        CohortError: no codes were given, and the meaning of the column's codes is ambiguous.
    """
    folded = [_folded(cell) for cell in cells]
    if codes is None:
        codes = _meaning(folded, lines, column, path)
    used = codes.keys() & set(folded)
    return [codes.get(cell) for cell in folded], ", ".join(f"{code}={codes[code]}" for code in sorted(used))


def _meaning(cells: Sequence[str], lines: Sequence[int], column: str, path: str) -> Mapping[str, Sex]:
    times = Counter(cell for cell in cells if cell not in UNKNOWN)
    if times.keys() <= USUAL.keys():
        return USUAL
    if times.keys() <= WORDS.keys():
        return WORDS
    for system in SYSTEMS:
        others = times.keys() - system.keys()
        each = [sum(times[code] for code in system if system[code] == sex) for sex in ("male", "female")]
        # An unknown code that is rarer than either sex is a typing error and concerns its patient only.
        if not others & CODES and sum(times[code] for code in others) < min(each):
            return system
    line = next(line for cell, line in zip(cells, lines, strict=True) if cell in times and cell not in USUAL)
    # If columns are shifted, this one contains ages or names, which must not get into a log.
    named = sorted(
        {code if code in CODES or (len(code) == 1 and code.isprintable()) else "other text" for code in times}
    )
    listed = ", ".join(named[:MOST_NAMED]) + (", ..." if len(named) > MOST_NAMED else "")
    raise CohortError(
        f"{path}, line {line}, column {column}: the column contains {listed}, and it is not clear which means male and "
        f"which female. Specify them, e.g. {OPTION} H=male,M=female; leave out codes that mean neither"
    )


def _folded(code: str) -> str:
    """The code without accents, in upper case."""
    plain = unicodedata.normalize("NFKD", code[:LONGEST].casefold())
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).upper().replace("Ł", "L")


def _wrong_usage(text: str) -> UsageError:
    return UsageError(
        f"{OPTION} {text}: must name a code for male and one for female, for example {OPTION} H=male,M=female"
    )
