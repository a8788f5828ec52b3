"""A bundle with float32 graphs only: the fallback where another precision is computed incorrectly."""

from pathlib import Path

import msgspec

from infer.bundle.load import CARD, CHECKSUMS, Bundle, checksums, load_bundle
from infer.bundle.manifest import MANIFEST, encode, graph_files, load_members


def in_float32(bundle: Bundle, folder: Path) -> Bundle:
    """Write the same networks, all in float32, as a separate bundle."""
    graphs = {name: bundle.graphs[name] for name in sorted(graph_files(load_members(bundle.manifest), ()))}
    digests = {name: bundle.manifest.graphs[name] for name in graphs}
    manifest = encode(msgspec.structs.replace(bundle.manifest, graphs=digests, int8=None))
    files = {**graphs, MANIFEST: manifest, CARD: (bundle.folder / CARD).read_bytes()}
    folder.mkdir(parents=True)
    for name, data in {**files, CHECKSUMS: checksums(files)}.items():
        (folder / name).write_bytes(data)
    return load_bundle(folder)
