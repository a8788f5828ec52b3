"""last_run.json: how the last run ended, whatever lies beside it. A monitor reads this file alone.

run.json is written by a run that finished, and stays until another one has. This one is written when a run begins and
whenever one ends, except by dry runs and by SIGKILL: then it still says that the run has begun.
"""

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from infer import __version__
from infer.errors import EXIT_MEANING, OutputError
from infer.machine.disk import sync
from infer.machine.locks import MODE
from infer.output.checks import check_not_append_only
from infer.output.journal import JOURNAL
from infer.output.kept import KEPT
from infer.output.names import LAST_RUN, RECORD

LOG = logging.getLogger("lympho")
PART = f".{LAST_RUN}.part"
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
        "exit_meaning": "has begun and not ended, or was killed" if code is None else EXIT_MEANING[code],
        "message": message,
        "results_ended": _ended(out / RECORD),
    }
    part = out / PART
    try:
        part.unlink(missing_ok=True)  # another user's can be removed, but not overwritten
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            sync(file.fileno())
        part.rename(out / LAST_RUN)
        sync(out)
    except OSError as error:
        LOG.warning("%s: cannot be written (%s)", out / LAST_RUN, error.strerror)
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


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
