"""Reason codes and their sentences."""

import re
import string

import pytest

from infer.reasons import FAILED, REFUSED, REJECTED, Reason, code_of

GAPS = {"line": 7, "times": 2, "minimum": 10, "width": 9, "height": 8, "size": 112, "mode": "CMYK"}


def gaps_of(reason: Reason) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(reason.sentence) if name is not None}


def test_codes_are_unique_and_in_lower_case() -> None:
    """Two reasons with the same sentence are different reasons, not aliases."""
    assert list(Reason.__members__.values()) == list(Reason)
    codes = [reason.code for reason in Reason]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z][a-z0-9_]*", code) for code in codes)
    assert {"patient_refused", "patient_failed"} <= set(codes)


@pytest.mark.parametrize("reason", Reason)
def test_a_text_is_its_code_and_a_whole_sentence(reason: Reason) -> None:
    details = {name: GAPS.get(name, f"<{name}>") for name in gaps_of(reason)}
    text = reason.text(**details)
    assert text.startswith(f"{reason.code}: ")
    assert code_of(text) == reason.code
    assert "{" not in text
    assert "}" not in text
    assert all(str(detail) in text for detail in details.values())
    assert "\n" not in text
    assert reason.status in (REFUSED, FAILED, REJECTED)


@pytest.mark.parametrize("reason", [reason for reason in Reason if gaps_of(reason)])
def test_a_gap_that_is_not_filled_is_a_bug(reason: Reason) -> None:
    with pytest.raises(KeyError):
        reason.text()


def test_braces_in_a_detail_stay_as_they_are() -> None:
    assert Reason.FOLDER_UNREADABLE.text(error="{x}") == "folder_unreadable: {x}"


def test_no_reason_has_no_code() -> None:
    assert code_of("") == ""
