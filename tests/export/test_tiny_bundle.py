from infer.bundle.load import CHECKSUMS, checksums
from tests.infer.runs import TINY
from tests.tiny_bundle import bundle_files


def test_the_tiny_bundle_is_what_its_script_makes() -> None:
    files = bundle_files()
    made = {**files, CHECKSUMS: checksums(files)}
    assert {path.name: path.read_bytes() for path in TINY.iterdir()} == made
