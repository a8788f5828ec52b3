import pytest

from infer.cohort.sexes import Sex, parse_sex_codes, sexes
from infer.errors import CohortError, UsageError


def read(*cells: str, codes: dict[str, Sex] | None = None) -> str:
    """The sexes of the cells, as m, f and -."""
    found, _ = sexes(cells, range(2, 2 + len(cells)), "GENDER", "table.csv", codes)
    return "".join(sex[0] if sex else "-" for sex in found)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("M F m f", "mfmf"),
        ("M", "m"),
        ("F", "f"),
        ("H F H", "mfm"),  # homme, femme
        ("h f", "mf"),
        ("W M W", "fmf"),  # weiblich, männlich
        ("K M", "fm"),  # kobieta, mężczyzna
        ("Male female FEMALE", "mff"),
        ("female", "f"),
        ("Männlich weiblich", "mf"),
        ("Mężczyzna kobieta", "mf"),
        ("hombre Mujer varón", "mfm"),
        ("Masculin Féminin", "mf"),
        ("M U F ? N/A Unknown", "m-f---"),
        ("M X", "m-"),
        ("M F V M F", "mf-mf"),  # a typing error
        ("H F W? H F", "mf-mf"),
        ("male female nieznana female indéterminé", "mf-f-"),
        ("Male Female Nonbinary", "mf-"),
        ("H F I H F", "mf-mf"),
        ("M F 9", "mf-"),
        ("M F D O X", "mf---"),
        ("Muž žena", "mf"),
        ("Maennlich WEIBLICH", "mf"),
        ("\uff2d \uff26", "mf"),  # full-width letters
        ("H F X", "mf-"),
        ("", ""),
    ],
)
def test_a_column_is_read_as_a_whole(column: str, expected: str) -> None:
    assert read(*column.split(" ")) == expected or (column, expected) == ("", "")


def test_an_empty_cell_has_no_sex() -> None:
    assert read("M", "", "F") == "m-f"
    assert read("") == "-"


@pytest.mark.parametrize(
    ("column", "line", "named"),
    [
        ("M H", 3, "H, M"),  # hombre and mujer, or macho and hembra
        ("M H F", 3, "F, H, M"),
        ("H", 2, "H"),
        ("K", 2, "K"),
        ("W", 2, "W"),
        ("M F W", 4, "F, M, W"),
        ("M F female", 4, "F, FEMALE, M"),
        ("M mujer", 3, "M, MUJER"),
        ("1 2", 2, "1, 2"),
        ("M F 1", 4, "1, F, M"),
        ("M F V", 4, "F, M, V"),
        ("V V V M M M M M F", 2, "F, M, V"),  # varón, mujer, and a typing error
        ("F F F F F N N N M", 7, "F, M, N"),  # férfi, nő, and a typing error
        ("M ♀", 3, "M, ♀"),
        ("61 72 M", 2, "M, other text"),
        ("M Abc", 3, "M, other text"),
        ("a b c d e g h", 2, "A, B, C, E, G, H"),
        ("a b c i e g h", 2, "A, B, C, E, G, H, ..."),
        ("M V", 3, "M, V"),  # vyras, moteris: a Lithuanian M is a woman
        ("F N", 3, "F, N"),  # férfi, nő: a Hungarian F is a man
        ("M Ж", 3, "M, Ж"),
        ("M Dupont", 3, "M, other text"),
        ("M K W", 3, "K, M, W"),
    ],
)
def test_a_column_in_doubt_names_its_codes_and_the_remedy(column: str, line: int, named: str) -> None:
    with pytest.raises(CohortError) as caught:
        read(*column.split())
    assert caught.value.exit_code == 4
    message = str(caught.value)
    assert message.startswith(f"table.csv, line {line}, column GENDER: the column contains {named}, and")
    assert message.endswith("e.g. --sex-codes H=male,M=female; leave out codes that mean neither")


def test_codes_given_replace_the_rule() -> None:
    assert read("H", "M", "m", "F", "", codes=parse_sex_codes("H=male,M=female")) == "mff--"
    assert read("1", "2", "9", "M", codes=parse_sex_codes("1=male, 2=Female")) == "mf--"
    assert read("M", codes=parse_sex_codes("H=male,M=female")) == "f"  # even if the table has no H
    assert read("Ж", "\u041c", codes=parse_sex_codes("м=male,ж=female")) == "fm"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "M=male",
        "M=male,F=man",
        "M=male,M=female",
        "M=male,F=female,m=female",
        "=male,F=female",
        "\u0301=male,F=female",
        "M=male;F=female",
    ],
)
def test_codes_that_say_too_little_are_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match=r"--sex-codes .*must name a code for male and one for female") as caught:
        parse_sex_codes(text)
    assert caught.value.exit_code == 2


def test_what_is_not_stated_is_said_in_words_too() -> None:
    assert read("male", "female", "Not stated") == "mf-"


def test_how_the_column_was_read_is_told() -> None:
    assert sexes(["f", "m", ""], [2, 3, 4], "GENDER", "table.csv", None)[1] == "F=female, M=male"
    assert sexes(["H", "F"], [2, 3], "GENDER", "table.csv", None)[1] == "F=female, H=male"
    assert sexes(["M"], [2], "GENDER", "table.csv", {"H": "male", "M": "female"})[1] == "M=female"


def test_a_very_long_cell_takes_no_time() -> None:
    assert read("M", "F", "M", "F", "e" + "\u0301" * 1_000_000) == "mfmf-"
