"""What ships beside the program: locks that agree, and a table of them that is up to date."""

import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from export.supply.installed import licences
from export.supply.locks import (
    CUDA,
    CUDA_RAY,
    FULL,
    LEAN,
    LEAN_RAY,
    LOCKS,
    RAY,
    ROOT,
    RUNTIME,
    Locked,
    disagreements,
    read_lock,
)
from export.supply.soup import TABLE, current_table, read_facts, table_of
from infer.errors import UsageError

# What packages without an SPDX expression say of their licence.
SAID = {
    "Apache-2.0": {"Apache 2.0"},
    "BSD-3-Clause": {"BSD License", "3-Clause BSD License"},
    "MIT": {"MIT License"},
}
HASH = f"sha256:{'0' * 64}"
FACTS = read_facts()


def test_the_locks_agree() -> None:
    """One version of a package and the same hashes, whatever it is installed for: what was tested is what ships."""
    locks = {str(path.relative_to(ROOT)): read_lock(path) for path in LOCKS}
    assert disagreements(locks) == []
    runtime, cuda, lean, full = (locks[str(path.relative_to(ROOT))] for path in (RUNTIME, CUDA, LEAN, FULL))
    assert len(runtime) >= 10
    assert runtime.keys() < cuda.keys() < full.keys()
    assert runtime.keys() < lean.keys() < full.keys()
    ray, cuda_ray, lean_ray = (locks[str(path.relative_to(ROOT))] for path in (RAY, CUDA_RAY, LEAN_RAY))
    assert ray.keys() - runtime.keys() == cuda_ray.keys() - cuda.keys()
    assert lean_ray.keys() == lean.keys() | ray.keys()
    assert {"ray"} <= ray.keys() - runtime.keys()
    assert {"aiohttp", "grpcio", "pandas", "pyarrow"}.isdisjoint(ray)  # no dashboard, no client port


def test_a_disagreement_is_named() -> None:
    one = Locked("numpy", "2.4.6", "", frozenset({HASH}))
    other = replace(one, version="2.4.7")
    assert disagreements({"a": {"numpy": (one,)}, "b": {"numpy": (replace(one, where="x"),)}, "c": {}}) == []
    (found,) = disagreements({"a": {"numpy": (one,)}, "b": {"numpy": (other,)}})
    assert found.startswith("numpy: a has 2.4.6, b 2.4.7")
    assert len(disagreements({"a": {"numpy": (one,)}, "b": {"numpy": (one, other)}})) == 1
    assert len(disagreements({"a": {"numpy": (one,)}, "b": {"numpy": (replace(one, hashes=frozenset()),)}})) == 1


@pytest.mark.parametrize(
    "text",
    [
        "numpy==2.4.6\n",
        "numpy>=2.4.6 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "numpy==2.4.6 \\\n    --hash=sha256:12\n",
        f"numpy==2.4.6 \\\n    --hash={HASH}\nnumpy==2.4.6 \\\n    --hash={HASH}\n",
        "-r other.txt\n",
    ],
)
def test_a_lock_without_hashes_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match="Run make lock"):
        read_lock(path)


def test_the_table_of_soup_is_what_the_locks_say() -> None:
    assert TABLE.read_text(encoding="utf-8") == current_table(), "run `make soup`"
    rows = re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    shipped = read_lock(RUNTIME) | read_lock(CUDA) | read_lock(RAY)
    assert {name for name, _ in rows} - {"package"} == shipped.keys()
    assert dict(rows)["onnxruntime-gpu"] == shipped["onnxruntime-gpu"][0].version


def test_a_package_that_nobody_has_described_is_an_error() -> None:
    runtime, cuda, ray = read_lock(RUNTIME), read_lock(CUDA), read_lock(RAY)
    without_click = tuple({k: v for k, v in lock.items() if k != "click"} for lock in (runtime, cuda, ray))
    new = runtime | {"new": (Locked("new", "1", "", frozenset({HASH})),)}
    with pytest.raises(UsageError, match=r"new ships\. Give it an entry"):
        table_of(new, cuda | new, ray | new, FACTS, 0)
    with pytest.raises(UsageError, match=r"click is in no lock that ships"):
        table_of(without_click[0], without_click[1], without_click[2], FACTS, 0)
    with pytest.raises(UsageError, match="Run make lock"):
        table_of(runtime, cuda | {"click": (replace(cuda["click"][0], version="0"),)}, ray, FACTS, 0)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_licence_is_what_the_package_says(name: str) -> None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        assert name not in read_lock(RUNTIME)  # those are installed
        return
    said = {one.get("expression") or one["license"]["name"] for one in licences(found)}
    assert said <= SAID.get(FACTS[name].licence, set()) | {FACTS[name].licence}
    assert said
