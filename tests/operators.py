"""Shares of a graph's time by operator, from onnxruntime's profiler."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime

RUNS = 20


def shares_by_operator(graph: bytes, inputs: dict[str, Any], threads: int) -> dict[str, float]:
    """Share of the time spent in nodes of each operator, largest first, not counting a first warm-up run."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(1 + RUNS):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    runs = 0
    for event in events:
        if event["name"] == "model_run":
            runs += 1  # this event comes after those of its nodes
        elif event["cat"] == "Node" and event["name"].endswith("_kernel_time") and runs:
            spent[event["args"]["op_name"]] += event["dur"]
    return {name: time / spent.total() for name, time in spent.most_common()}
