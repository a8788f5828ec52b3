"""Sex as hospitals write it. What a code means is decided once for the whole column, never row by row.

M and F are male and female. In other languages M may be *mujer*, *moteris* or *Mädchen*, and F *férfi*: where a column
shows that it does not hold M and F, other codes count only as a pair that means one thing, or as --sex-codes says.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from infer.errors import CohortError, UsageError

Sex = Literal["male", "female"]
OPTION = "--sex-codes"
USUAL: Mapping[str, Sex] = {"M": "male", "F": "female"}
# Pairs of letters that mean one thing where both are in the column. Not H and M: hombre, mujer or macho, hembra.
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
# Says that nobody knows, or something else than male and female: a matter of that patient alone.
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
LONGEST = 40  # characters of a code that are looked at
MOST_NAMED = 6


def parse_sex_codes(text: str) -> dict[str, Sex]:
    """What --sex-codes says, such as M=male,F=female or 1=male,2=female: by code, folded as `sexes` compares them.

    Raises:
        UsageError: it is written otherwise, a code stands twice, or one of the two is missing.
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
    """Each cell's sex, None where it is empty or says none; and how the column was read, for run.json.

    Args:
        cells: the column's, stripped of blanks.
        lines: each cell's in the file, for the message.
        codes: what `parse_sex_codes` gave, instead of the rule.

    Raises:
        CohortError: without codes, what the column's codes mean is in doubt.
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
        # What is no code anywhere, and rarer than either sex, is a slip and a matter of its patient alone.
        if not others & CODES and sum(times[code] for code in others) < min(each):
            return system
    line = next(line for cell, line in zip(cells, lines, strict=True) if cell in times and cell not in USUAL)
    # Where columns are shifted, ages and names stand here: they must not get into a log.
    named = sorted(
        {code if code in CODES or (len(code) == 1 and code.isprintable()) else "other text" for code in times}
    )
    listed = ", ".join(named[:MOST_NAMED]) + (", ..." if len(named) > MOST_NAMED else "")
    raise CohortError(
        f"{path}, line {line}, column {column}: the column holds {listed}, and it is not clear which means male and "
        f"which female. Say it, for example {OPTION} H=male,M=female; leave out codes that mean neither"
    )


def _folded(code: str) -> str:
    """Without accents, in capitals."""
    plain = unicodedata.normalize("NFKD", code[:LONGEST].casefold())
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).upper().replace("Ł", "L")


def _wrong_usage(text: str) -> UsageError:
    return UsageError(
        f"{OPTION} {text}: must name a code for male and one for female, for example {OPTION} H=male,M=female"
    )
