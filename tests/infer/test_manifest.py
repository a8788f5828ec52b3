import json
import resource
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.bundle.manifest import SCHEMA, decode, encode
from infer.errors import BundleError
from infer.members.registry import names
from tests.fuzz import fuzz
from tests.infer.manifests import FEATURES, altered, make_manifest

CALIBRATION = {"slope": 1.0, "intercept": 0.0}


def problem(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        decode(data, "bundle/manifest.json")
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith("bundle/manifest.json: ")
    return str(caught.value)


def test_round_trip() -> None:
    manifest = make_manifest()
    data = encode(manifest)
    assert decode(data, "x") == manifest
    assert encode(decode(data, "x")) == data
    assert data.endswith(b"}\n")
    keys = list(json.loads(data))
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    "path",
    [
        "extra",
        "ensemble.extra",
        "plausible.extra",
        "self_test.extra",
        "drift.extra",
        "members.baseline.extra",
        "members.scan.extra",
        "members.scan.naive_bayes.extra",
        "members.moe.extra",
        "members.imagenet.extra",
    ],
)
def test_an_unknown_field_is_named(path: str) -> None:
    assert "unknown field `extra`" in problem(altered(path, 1))


@pytest.mark.parametrize(
    "path",
    [
        "opset",
        "members",
        "members.scan.class_fusion",
        "members.scan.naive_bayes",
        "members.scan.naive_bayes.prior",
        "magnification",
        "magnification.network_size",
        "magnification.pixel_size",
        "ensemble.weights",
        "plausible.minimum_images",
        "drift",
    ],
)
def test_a_missing_field_is_named(path: str) -> None:
    assert f"missing required field `{path.split('.')[-1]}`" in problem(altered(path, None))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("crop_size", "112"),
        ("crop_size", 112.5),
        ("magnification.network_size", 224.5),
        ("magnification.pixel_size", "0.1"),
        ("members.scan.class_fusion", ["a"]),
        ("ensemble.weights", {"baseline": "1"}),
        ("plausible.age_years.low", True),
        ("graphs", ["a"]),
        ("members.scan.naive_bayes.prior", [0.5, "x"]),
        ("members", ["scan"]),
    ],
)
def test_a_wrong_type_names_its_path(path: str, value: Any) -> None:
    message = problem(altered(path, value))
    assert "Expected `" in message
    if path.startswith("members."):  # each section is parsed by its member
        _, member, path = path.split(".", 2)
        assert f"manifest.json: members.{member}: " in message
    assert f"$.{path.split('.')[0]}" in message


@pytest.mark.parametrize("schema", [SCHEMA + 1, SCHEMA - 1, 99])
def test_another_schema_is_refused_before_anything_else_is_read(schema: int) -> None:
    data = json.dumps({"schema": schema, "unheard_of": []}).encode()
    assert f"schema {schema}, this program reads schema {SCHEMA}" in problem(data)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
def test_what_is_no_finite_number_is_refused(number: bytes) -> None:
    data = encode(make_manifest())
    assert data.count(b"200.0") == 1
    problem(data.replace(b"200.0", number))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"null", b"{", encode(make_manifest())[:-3]])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    problem(data)


def test_text_that_is_not_utf_8_is_refused() -> None:
    problem(encode(make_manifest()).replace(b'"recipe": "test"', b'"recipe": "t\xffst"'))


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("graphs", {"baseline.onnx": "0"}, "graphs are not"),
        ("members", {}, "members: is empty"),
        ("magnification.network_size", 0, "must be positive"),
        ("magnification.pixel_size", 0.0, "must be positive"),
        ("magnification.pixel_size", -0.1, "must be positive"),
        ("members.imagenet", None, "graphs are not"),
        ("members.moe", {"mixtures": 3}, "members.moe: Object contains unknown field `mixtures`"),
        ("members.scan.class_fusion", [0, 2, *[0] * 18], "class_fusion"),
        ("members.scan.class_fusion", [], "class_fusion"),
        ("members.scan.class_fusion", [-1] * 20, "class_fusion"),
        ("members.scan.class_fusion", [min(number, 14) for number in range(19)], "class_fusion"),
        ("members.scan.naive_bayes.quantiles", [0.5] * FEATURES, f"naive_bayes must describe {FEATURES} features"),
        ("members.scan.naive_bayes.mean", [[0.5] * FEATURES], f"naive_bayes must describe {FEATURES} features"),
        (
            "members.scan.naive_bayes.variance",
            [[0.5] * FEATURES, [0.5]],
            f"naive_bayes must describe {FEATURES} features",
        ),
        ("members.scan.naive_bayes.variance", [[0.5] * FEATURES, [0.0] * FEATURES], "not above 0"),
        ("members.scan.naive_bayes.feature_range", [0.0] * FEATURES, "not above 0"),
        ("members.scan.naive_bayes.prior", [0.0, 1.0], "not above 0"),
        ("members.scan.naive_bayes.count_floor", -0.1, "count_floor below 0"),
        ("members.scan.naive_bayes.prior", [], "naive_bayes must describe"),
        ("members.scan.naive_bayes.variance", [[], []], "naive_bayes must describe"),
        ("ensemble.weights", {"baseline": 0.5, "scan": 0.25, "moe": 0.2, "imagenet": 0.1}, "weights must sum to 1"),
        (
            "ensemble.weights",
            {"baseline": 0.75, "scan": 0.25},
            "must calibrate and weight baseline, imagenet, moe, scan",
        ),
        ("ensemble.calibration", {"baseline": CALIBRATION}, "must calibrate and weight baseline, imagenet, moe, scan"),
        ("ensemble.operating_points", {}, "lacks the operating point balanced"),
        ("ensemble.operating_points", {"balanced": {"refer_low": 0.6, "refer_high": 0.4}}, "refer_low is above"),
        ("ensemble.operating_points", {"balanced": {"refer_low": -0.1, "refer_high": 0.4}}, ">= 0"),
        ("ensemble.operating_points", {"balanced": {"refer_low": 0.1, "refer_high": 1.4}}, "<= 1"),
        ("drift.rgb_mean", [1.0, 1.0], "three colour channels"),
        ("self_test.clinical", [[0.0, 4.5, 40.0]], "self_test"),
        ("self_test.clinical", [[0.0, 4.5], [0.0, 4.5]], "self_test"),
        ("self_test.expected", {"baseline": [0.1, 0.2, 0.3]}, "self_test"),
        ("self_test.expected", {"baseline": []}, "self_test"),
    ],
)
def test_sizes_sums_and_orders_are_checked(path: str, value: Any, part: str) -> None:
    assert part in problem(altered(path, value))


def test_a_huge_class_takes_no_memory() -> None:
    """Found by fuzzing: a list as long as the largest class number exhausted the machine's memory."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, limits[1]))
    try:
        assert "class_fusion" in problem(altered("members.scan.class_fusion", [2**60, *range(15), 0, 0, 0, 0]))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def test_a_self_test_of_no_picture_is_refused() -> None:
    document = json.loads(encode(make_manifest()))
    document["self_test"] |= {"images": 0, "clinical": []}
    assert "self_test" in problem(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (
            "ensemble.calibration",
            {member: {"slope": -1.0, "intercept": 0.0} for member in names()},
            "slope is not positive",
        ),
        ("ensemble.calibration", {member: CALIBRATION | {"clip": 0.0} for member in names()}, "clip is not between"),
        ("ensemble.calibration", {member: CALIBRATION | {"clip": 0.6} for member in names()}, "clip is not between"),
        ("ensemble.calibration", {member: CALIBRATION | {"slope": 0.0} for member in names()}, "slope is not positive"),
        ("plausible.age_years", {"low": 120.0, "high": 0.0}, "range is empty"),
        ("plausible.lymph_count", {"low": 1000.0, "high": 0.0}, "range is empty"),
        ("plausible.minimum_images", 0, "minimum_images is below 1"),
        ("reference.usual.spans", {}, "one measure or more"),
        ("reference.usual.spans", {"red": {"low": 1.0, "middle": 1.0, "high": 2.0}}, "low < middle < high"),
        ("reference.usual.spans", {"red": {"low": 0.0, "middle": 1.0, "high": 1.0}}, "low < middle < high"),
        ("reference.usual.spans", {"sharpnes": {"low": 0.0, "middle": 1.0, "high": 2.0}}, "which nothing measures"),
        ("reference.usual.spans", {"jpeg_quality": {"low": 0.0, "middle": 1.0, "high": 2.0}}, "more than JPEG files"),
        ("reference.usual.ranges", {"age_years": {"low": 0.0, "high": 1.0}}, "age_years and lymph_count"),
        ("reference.usual.scores", [0.5] * 129, "one number a training patient"),
        ("reference.usual.scores", [0.5] * 129 + [0.25], "ascending"),
        ("reference.usual.scores", [-0.5] * 130, "ascending from 0"),
        ("reference.usual.limit", 0.0076, "no patient can be unusual"),
        ("reference.usual.limit", 1.0, "< 1"),
    ],
    ids=[
        "falling calibration",
        "no clip",
        "clip above half",
        "flat calibration",
        "range upside down",
        "counts upside down",
        "no minimum",
        "no measure is judged",
        "nothing is low",
        "nothing is high",
        "a misspelt measure",
        "JPEG files alone",
        "no range of counts",
        "a score too few",
        "scores not sorted",
        "negative scores",
        "nobody is unusual",
        "everybody is unusual",
    ],
)
def test_numbers_that_would_turn_a_score_round_are_refused(path: str, value: Any, part: str) -> None:
    message = problem(altered(path, value))
    assert part in message
    assert ";" not in message  # nothing else is wrong


def test_several_problems_are_told_at_once() -> None:
    document = json.loads(encode(make_manifest()))
    document["drift"]["rgb_mean"] = []
    document["ensemble"]["weights"] = {"baseline": 1.0, "scan": 1.0, "moe": 1.0, "imagenet": 1.0}
    message = problem(json.dumps(document).encode())
    assert "three colour channels" in message
    assert "weights must sum to 1" in message


GOOD = encode(make_manifest())
PIECES = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"-1", b"1e999", b"0.5", b'"schema"', b"\xff", b"1" * 400]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid manifest with some bytes changed."""
    data = GOOD
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(at + 20, len(data))))
        data = data[:at] + draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3))) + data[until:]
    return data


@fuzz(300)
@given(st.one_of(st.binary(max_size=100), damaged()))
def test_any_bytes_are_a_sound_manifest_or_a_bundle_error(data: bytes) -> None:
    try:
        manifest = decode(data, "x")
    except BundleError:
        return
    assert decode(encode(manifest), "x") == manifest
    assert abs(sum(manifest.ensemble.weights.values()) - 1) < 1e-6
    assert all(point.refer_low <= point.refer_high for point in manifest.ensemble.operating_points.values())
