"""A bundle without its graph in integers: what runs on a GPU, and on a processor that computes wrongly in integers."""

from pathlib import Path

import msgspec

from infer.bundle import CARD, CHECKSUMS, Bundle, checksums, load_bundle
from infer.manifest import INT8, MANIFEST, encode


def without_int8(bundle: Bundle, folder: Path) -> Bundle:
    """Write the same networks, all in float32, as a bundle of its own."""
    graphs = {name: data for name, data in bundle.graphs.items() if name != INT8}
    digests = {name: bundle.manifest.graphs[name] for name in graphs}
    manifest = encode(msgspec.structs.replace(bundle.manifest, graphs=digests, int8=None))
    files = {**graphs, MANIFEST: manifest, CARD: (bundle.folder / CARD).read_bytes()}
    folder.mkdir(parents=True)
    for name, data in {**files, CHECKSUMS: checksums(files)}.items():
        (folder / name).write_bytes(data)
    return load_bundle(folder)
