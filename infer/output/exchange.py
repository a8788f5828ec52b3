"""The moment at which a run's results take the place of an earlier run's: all of them, or none.

The earlier files get hidden names, run.json first; then the new ones get theirs, run.json last. So whoever finds
run.json finds the tables that it describes. If something fails in between, or the next start finds that a run was
killed in between, the earlier files get their names back.

Between these steps the folder is synced. Without that a power failure may keep any of the renamings and lose any other:
run.json of one run beside a table of another, or a table under no name at all.
"""

import contextlib
import os
from pathlib import Path

from infer.machine.disk import sync
from infer.output.checks import exists
from infer.output.names import NAMES, RECORD, earlier_of, part_of
from infer.output.pages import hidden_pages, hide_pages, remove_hidden_pages, remove_pages, show_pages

TABLES = tuple(name for name in NAMES if name != RECORD)  # and the log: all that run.json vouches for


def exchange(folder: Path) -> None:
    """Give all new files their names. Each is whole and synced under its temporary name.

    Raises:
        OSError: an earlier file cannot be replaced, or the disk is not available. `settle` has to follow.
    """
    sync(folder)  # the new files have their temporary names
    if exists(folder / RECORD):
        hide_pages(folder)
    else:
        remove_pages(folder)  # of no finished run
    _rename_if_there(folder / RECORD, earlier_of(folder, RECORD))
    sync(folder)
    for name in TABLES:
        _rename_if_there(folder / name, earlier_of(folder, name))
    sync(folder)
    for name in TABLES:
        os.replace(part_of(folder, name), folder / name)
    sync(folder)
    os.replace(part_of(folder, RECORD), folder / RECORD)
    sync(folder)


def broke_off(folder: Path) -> bool:
    """Whether a run was killed during an exchange, and earlier files still have hidden names."""
    return hidden_pages(folder) or any(exists(earlier_of(folder, name)) for name in NAMES)


def settle(folder: Path) -> None:
    """End an exchange: keep the new files if all have their names, else give the earlier ones theirs back.

    May itself be cut off anywhere, and called again.

    Raises:
        OSError: a file cannot be renamed or removed.
    """
    if not exists(folder / RECORD):
        _undo(folder)
    elif exists(earlier_of(folder, RECORD)):  # removed last
        remove_earlier(folder)
    if exists(folder / RECORD):
        show_pages(folder)
    else:
        remove_hidden_pages(folder)


def remove_earlier(folder: Path) -> None:
    """Remove the earlier files after a whole exchange, run.json last: until then it says that the exchange was whole.

    Raises:
        OSError: one cannot be removed. The next start tries again.
    """
    remove_hidden_pages(folder)
    for name in TABLES:
        earlier_of(folder, name).unlink(missing_ok=True)
    sync(folder)
    earlier_of(folder, RECORD).unlink(missing_ok=True)


def _undo(folder: Path) -> None:
    """Give the new files their temporary names back, and the earlier ones theirs, run.json last."""
    for name in TABLES:
        if not exists(part_of(folder, name)) and exists(folder / name):  # a new one: else its part would be there
            os.replace(folder / name, part_of(folder, name))
    sync(folder)
    for name in TABLES:
        _rename_if_there(earlier_of(folder, name), folder / name)
    sync(folder)
    _rename_if_there(earlier_of(folder, RECORD), folder / RECORD)
    sync(folder)


def _rename_if_there(path: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.rename(target)
