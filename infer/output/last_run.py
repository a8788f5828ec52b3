"""last_run.json: how the last run ended, whatever lies beside it. A monitor reads this file alone.

run.json is written by a run that finished, and stays until another one has. This one is written when a run begins and
whenever one ends, except by dry runs and by SIGKILL: then it still says that the run has begun.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from infer import __version__
from infer.errors import EXIT_MEANING, OutputError
from infer.machine.disk import replace_file
from infer.machine.locks import MODE
from infer.output.checks import check_not_append_only
from infer.output.journal import JOURNAL
from infer.output.kept import KEPT
from infer.output.names import LAST_RUN, RECORD

LOG = logging.getLogger("lympho")
OURS = (RECORD, JOURNAL, KEPT, LAST_RUN)  # a folder that holds one of these is an output folder
IN_EMPTY_VOLUMES = {"lost+found"}


def tell_last_run(out: Path, started: str, ended: str | None, code: int | None, message: str) -> None:
    """Write last_run.json, if OUT is there and is an output folder: empty, or with an earlier run's files.

    So a mistyped path costs nobody a file. That it cannot be written is logged and changes nothing else.

    Args:
        started, ended: ISO times; ended is None while the run goes on.
        code: the exit code; None while the run goes on.
        message: the error's, or why the code is 3.
    """
    if not _is_output_folder(out):
        return
    try:
        check_not_append_only(out)
    except OutputError:
        return
    content = {
        "program": f"lympho {__version__}",
        "started": started,
        "ended": ended,
        "exit_code": code,
        "exit_meaning": "has begun and not ended, or was killed" if code is None else EXIT_MEANING.get(code, ""),
        "message": message,
        "results_ended": _ended(out / RECORD),
    }
    try:
        replace_file(out / LAST_RUN, json.dumps(content, indent=1, ensure_ascii=False) + "\n", MODE)
    except OSError as error:
        if code != OutputError.exit_code:  # else the error itself says it
            LOG.warning("%s: cannot be written (%s)", out / LAST_RUN, error.strerror)


def last_code(out: Path) -> int | None:
    """The exit code of the last run in OUT; None if it has not ended, or left no word.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        code = json.loads((out / LAST_RUN).read_text(encoding="utf-8"))["exit_code"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, int) else None


def _is_output_folder(out: Path) -> bool:
    try:
        found = set(os.listdir(out))
    except OSError:  # none yet, or it cannot be read
        return False
    return not found - IN_EMPTY_VOLUMES or any(name in found for name in OURS)


def _ended(record: Path) -> str | None:
    """When the run ended whose results lie in OUT; None if there are none."""
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return str(content["ended"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
