import hashlib
import random

from infer.pictures.duplicates import DIGITS, Duplicates, in_words


def digest(picture: int) -> str:
    return hashlib.sha256(bytes([picture])).hexdigest()[:DIGITS]


def found(cohort: dict[str, list[int]]) -> dict[tuple[str, ...], int]:
    duplicates = Duplicates()
    for patient_id, pictures in cohort.items():
        duplicates.add(patient_id, map(digest, pictures))
    return duplicates.found()


def test_nothing_is_found_where_all_differ() -> None:
    assert found({}) == {}
    assert found({"A": [], "B": [1, 2], "C": [3]}) == {}


def test_patients_are_grouped_by_what_they_share() -> None:
    cohort = {"B": [1, 2, 3, 4], "A": [2, 3, 9], "C": [4, 5], "D": [4, 6, 6], "E": [7, 8]}
    assert found(cohort) == {("A", "B"): 2, ("B", "C", "D"): 1, ("D",): 1}


def test_as_a_slow_way_finds_it() -> None:
    rng = random.Random(0)
    cohort = {f"P{n}": [rng.randrange(256) for _ in range(rng.randrange(20))] for n in range(30)}
    slow: dict[tuple[str, ...], int] = {}
    for picture in range(256):
        owners = tuple(sorted(patient for patient in cohort if picture in cohort[patient]))
        if sum(pictures.count(picture) for pictures in cohort.values()) > 1:
            slow[owners] = slow.get(owners, 0) + 1
    assert found(cohort) == slow
    assert list(found(cohort)) == sorted(slow)


def test_patients_are_told_apart_however_many_they_are() -> None:
    duplicates = Duplicates()
    for number in range(70_000):
        duplicates.add(str(number), [digest(7)] if number in (0, 65_536) else [])
    assert duplicates.found() == {("0", "65536"): 1}


def test_all_digits_count() -> None:
    duplicates = Duplicates()
    duplicates.add("A", ["0" * DIGITS])
    duplicates.add("B", ["0" * (DIGITS - 1) + "1"])
    assert duplicates.found() == {}
    assert DIGITS == 16


def test_the_words() -> None:
    assert in_words(("A1", "A2"), 12).startswith("A1 and A2 share 12 pictures. Find out whose")
    assert in_words(("A1", "A2", "A3"), 1).startswith("A1, A2 and A3 share 1 picture. ")
    assert in_words(("A1",), 2) == "A1: 2 pictures found more than once in the folder. Each copy was counted"
    many = tuple(f"A{number}" for number in range(9))
    assert in_words(many, 3).startswith("A0, A1, A2, A3, A4 and 4 more share 3 pictures")
