"""A power failure, simulated: what may be on the disk at a moment, if only what was synced must be there.

`Disk` watches what this process does below a folder, and makes from it every state, or a draw of them, in which a
failure of the power may leave that folder. The model is the weakest that POSIX allows, weaker than any file system with
a journal:

- a file's bytes are on the disk once the file was synced. What was written since is there in whole, in part, as zeros,
  or not at all.
- a name (of a file made, renamed or removed) is on the disk once its folder was synced. Of the changes since, any may
  be there and any may be lost, whatever their order. One renaming is one change: both names or neither.

Changes made by other processes, and in more than one folder at once, are not followed.
"""

import contextlib
import itertools
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

CUT_BEFORE = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
DRAWS = 4
MEMORY = Path("/dev/shm")  # where a sync costs nothing
Check = Callable[[Path], None]


@dataclass(eq=False)
class File:
    """A file, by whatever names."""

    content: bytes
    durable: bytes = b""

    def after(self, draw: random.Random) -> bytes:
        """Its bytes after a failure."""
        whole, old = self.content, self.durable
        shortest = min(len(whole), len(old))
        if whole == old:
            return whole
        same = next((at for at, (one, other) in enumerate(zip(whole, old, strict=False)) if one != other), shortest)
        torn = draw.randint(same, max(same, len(whole)))
        return draw.choice(
            [whole, old, whole[:torn], whole[:same] + bytes(len(whole) - same), _hole(whole, same, torn)]
        )


@dataclass(eq=False)
class Folder:
    """A folder and its names, now and on the disk."""

    now: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[dict[str, "File | Folder | None"]] = field(default_factory=list)  # since the last sync

    def change(self, names: dict[str, "File | Folder | None"]) -> None:
        """Make a change that is not on the disk yet."""
        self.pending.append(names)
        _apply(self.now, names)

    def sync(self) -> None:
        """Put all changes on the disk."""
        self.durable, self.pending = dict(self.now), []

    def after(self, kept: tuple[bool, ...]) -> dict[str, "File | Folder"]:
        """Its names after a failure that kept these changes."""
        names = dict(self.durable)
        for change in itertools.compress(self.pending, kept):
            _apply(names, change)
        return names


class Disk:
    """The disk below a folder. What is there at the beginning is on the disk."""

    def __init__(self, root: Path, check: Check, most: int = 40, seed: int = 0) -> None:
        """Begin.

        Args:
            root: folder that is watched, once `watching`.
            check: is called with the folder of every state, at every moment: before and after each change and sync.
            most: states at a moment, roughly; all of them if there are no more.
        """
        self.root, self.check, self._most = root, check, most
        self.moments = self.states = 0
        self._draw = random.Random(seed)
        self._tree = Folder()
        self._known: dict[tuple[int, int], File | Folder] = {_key(root): self._tree}
        self._look()
        for node in self._known.values():
            if isinstance(node, Folder):
                node.sync()
            else:
                node.durable = node.content

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what this process does."""
        with contextlib.ExitStack() as stack:
            for name in CUT_BEFORE:
                stack.enter_context(patch.object(os, name, self._watched(name, getattr(os, name))))
            yield
        self.cut()

    def cut(self) -> None:
        """A moment: check the states that a failure now may leave."""
        self._look()
        self.moments += 1
        seen = set()
        for choice in itertools.chain.from_iterable(self._choices() for _ in range(self._times())):
            state = self._state(self._tree, choice, {})
            if (key := repr(state)) in seen:
                continue
            seen.add(key)
            with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
                _write(Path(scratch) / self.root.name, state, {})
                self.states += 1
                self.check(Path(scratch) / self.root.name)

    def _watched(self, name: str, works: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            paths = [_path(one, named.get("dir_fd")) for one in arguments[: 2 if name in ("rename", "replace") else 1]]
            if not all(path.is_relative_to(self.root) for path in paths):
                return works(*arguments, **named)
            self.cut()
            nodes = [self._known.get(_key(path)) if os.path.lexists(path) else None for path in paths]
            removed = _key(paths[-1]) if name != "mkdir" and os.path.lexists(paths[-1]) else None
            done = works(*arguments, **named) if name != "fsync" else None  # nothing is to be lost here
            self._happened(name, paths, nodes, removed)
            return done

        return call

    def _happened(
        self, name: str, paths: list[Path], nodes: list["File | Folder | None"], removed: tuple[int, int] | None
    ) -> None:
        if name == "fsync":
            node = nodes[0]
            if isinstance(node, Folder):
                node.sync()
            elif node is not None:
                node.durable = node.content
            return
        folder = self._known[_key(paths[0].parent)]
        if not isinstance(folder, Folder) or any(path.parent != paths[0].parent for path in paths):
            raise AssertionError(f"{paths}: this model follows changes in one folder only")
        if name in ("rename", "replace"):
            folder.change({paths[0].name: None, paths[1].name: nodes[0]})
        elif name != "mkdir":  # that is seen by looking
            folder.change({paths[0].name: None})
        if name != "mkdir" and removed is not None:
            self._known.pop(removed, None)  # the system gives its number to another file

    def _look(self) -> None:
        """See which files are new, and what all files hold."""
        self._look_into(self.root, self._tree)

    def _look_into(self, path: Path, folder: Folder) -> None:
        there = sorted(os.listdir(path))
        for name in there:
            inner = path / name
            node = self._known.get(_key(inner))
            if node is None:
                node = self._known[_key(inner)] = Folder() if inner.is_dir() else File(b"")
            if folder.now.get(name) is not node:
                folder.change({name: node})
            if isinstance(node, Folder):
                self._look_into(inner, node)
            else:
                node.content = inner.read_bytes()
        if unseen := folder.now.keys() - set(there):
            raise AssertionError(f"{path}: {sorted(unseen)} went away unseen")

    def _folders(self) -> list[Folder]:
        """All folders that may be there after a failure."""
        found: list[Folder] = []
        rest: list[File | Folder | None] = [self._tree]
        while rest:
            node = rest.pop()
            if isinstance(node, Folder) and node not in found:
                found.append(node)
                rest += [*node.durable.values(), *(one for change in node.pending for one in change.values())]
        return found

    def _times(self) -> int:
        """How often each combination is tried: more than once where it is drawn what is left of a file."""
        files = [one for one in self._known.values() if isinstance(one, File)]
        return DRAWS if any(one.content != one.durable for one in files) else 1

    def _choices(self) -> Iterator[dict[int, tuple[bool, ...]]]:
        """Which changes of which folder are kept: all combinations, or a draw with the likeliest ones."""
        folders = self._folders()
        lengths = [len(folder.pending) for folder in folders]
        total = sum(lengths)
        if 2**total <= self._most:
            every = list(itertools.product((False, True), repeat=total))
        else:
            in_order = [tuple(at < kept for at in range(total)) for kept in (0, total, self._draw.randrange(total))]
            one_lost = [tuple(at != lost for at in range(total)) for lost in range(total)]
            one_kept = [tuple(at == kept for at in range(total)) for kept in range(total)]
            drawn = [tuple(self._draw.random() < 0.5 for _ in range(total)) for _ in range(self._most)]
            every = [*in_order, *one_lost, *one_kept, *drawn]
        for combination in every:
            bits = iter(combination)
            yield {
                id(folder): tuple(itertools.islice(bits, length))
                for folder, length in zip(folders, lengths, strict=True)
            }

    def _state(self, folder: Folder, choice: dict[int, tuple[bool, ...]], drawn: dict[int, bytes]) -> dict[str, Any]:
        """What is in a folder after a failure: folders as this again, files as a number and their bytes."""
        state: dict[str, Any] = {}
        for name, node in folder.after(choice[id(folder)]).items():
            if isinstance(node, Folder):
                state[name] = self._state(node, choice, drawn)
            else:
                if id(node) not in drawn:
                    drawn[id(node)] = node.after(self._draw)
                state[name] = (id(node), drawn[id(node)])
        return state


def _write(path: Path, state: dict[str, Any], written: dict[int, Path]) -> None:
    path.mkdir()
    for name, node in state.items():
        if isinstance(node, dict):
            _write(path / name, node, written)
        elif node[0] in written:  # one file with two names
            os.link(written[node[0]], path / name)
        else:
            written[node[0]] = path / name
            (path / name).write_bytes(node[1])


def _apply(names: dict[str, "File | Folder"], change: dict[str, "File | Folder | None"]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _hole(whole: bytes, begin: int, end: int) -> bytes:
    return whole[:begin] + bytes(end - begin) + whole[end:]


def _key(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _path(named: Any, folder: int | None) -> Path:
    """The path of an open file, or of a name in an open folder."""
    if isinstance(named, int):
        return Path(f"/proc/self/fd/{named}").readlink()
    if folder is not None:
        return Path(f"/proc/self/fd/{folder}").readlink() / os.fsdecode(named)
    return Path.cwd() / os.fsdecode(named)
