"""Who works on a scene: a file with a counter that rises while its owner lives. Clocks are never compared.

On disk a lease is a file that is made only where there is none; in a bucket an object that is put only where there is
none, or over the very content that was seen (conditional writes).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError
from geoseg.io.files import cannot_write, publish_bytes
from geoseg.io.places import Place
from geoseg.io.remote import Remote

BEAT_S = 2.0
DEAD_S = 15.0
"""A lease whose counter has stood still for this long, by the watcher's own clock, has lost its owner."""
LOOK_S = 0.5


class Lease:
    """A scene's lease in this process's hands.

    now: what else its file says, such as the stage that the scene is in; others may read it there.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self.owner = uuid.uuid4().hex
        self.now: dict[str, Any] = {}
        self._beat = 0
        self._lost = False
        self._stop = threading.Event()

    def check(self) -> None:
        """Raises OutputError where another run has taken over, as it may if this one was stopped for a while."""
        if self._lost or _owner(_read(self.path)) != self.owner:
            raise OutputError(
                "another run has taken this scene over while this one did not answer", self.path
            )

    def content(self) -> bytes:
        self._beat += 1
        where = {"host": socket.gethostname(), "pid": os.getpid()}
        text = json.dumps({"owner": self.owner, "beat": self._beat, **where, **self.now}, ensure_ascii=False)
        return text.encode()

    def keep(self) -> None:
        """Let the counter rise until the lease is given back, or lost."""
        while not self._stop.wait(BEAT_S):
            with suppress(OutputError):  # a full disk: the next beat may get through
                seen, tag = _read_tagged(self.path)
                if _owner(seen) != self.owner or not self._beats(tag):
                    self._lost = True
                    return

    def _beats(self, tag: str | None) -> bool:
        """Write the next count; False where, in a bucket, another owner was quicker."""
        if not isinstance(self.path, Remote):
            publish_bytes(self.path, self.content())
            return True
        return _replaced(self, tag)

    def end(self) -> None:
        self._stop.set()


@contextmanager
def leased(path: Place, waiting: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lease at `path`; where another run holds it, wait until that is done or gone.

    waiting: told once who has it. Raises OutputError where the folder refuses.
    """
    lease = Lease(path)
    told = False
    while not _create(lease):
        seen, tag = _read_tagged(path)
        if seen is None:
            continue
        if not told and not _is_gone(seen):
            waiting(_holder(seen))
            told = True
        if _is_gone(seen) or _stands_still(path, seen):
            if not isinstance(path, Remote):
                _clear(path, seen)
            elif _replaced(lease, tag):
                break
    thread = threading.Thread(target=lease.keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.end()
        thread.join()
        with suppress(
            OSError, OutputError
        ):  # a lease that cannot be given back is taken over when it stands still
            if _owner(_read(path)) == lease.owner:
                path.unlink(missing_ok=True)


def read_lease(path: Place) -> dict[str, Any] | None:
    """What a lease says; None where there is none. A reader without clocks sees it alive if its beat rises."""
    return _parsed(_read(path))


def _create(lease: Lease) -> bool:
    try:
        if isinstance(lease.path, Remote):
            # A request that got through, and whose answer did not, finds its own object when it is tried again.
            return lease.path.create(lease.content()) is not None or _owner(_read(lease.path)) == lease.owner
        lease.path.parent.mkdir(parents=True, exist_ok=True)
        with lease.path.open("xb") as stream:
            try:
                stream.write(lease.content())
                stream.flush()
            except OSError:  # a full disk; nobody would know whose lease this is
                lease.path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_write(lease.path, error) from error
    return True


def _replaced(lease: Lease, tag: str | None) -> bool:
    """Put this lease over the object with this tag, and no other."""
    if not isinstance(lease.path, Remote):
        raise TypeError("a lease on disk has no tag")
    try:
        return (
            lease.path.replace(lease.content(), tag or "") is not None
            or _owner(_read(lease.path)) == lease.owner
        )
    except OSError as error:
        raise cannot_write(lease.path, error) from error


def _stands_still(path: Place, seen: bytes) -> bool:
    """Whether the file stays as it was seen for as long as an owner that lives would not let it."""
    begin = time.monotonic()
    while time.monotonic() - begin < DEAD_S:
        time.sleep(LOOK_S)
        if _read(path) != seen:
            return False
    return True


def _clear(path: Path, seen: bytes) -> None:
    """Remove a dead lease, and no other: one of two that try gets hold of it, and puts a living one back."""
    aside = path.with_name(f".part-{uuid.uuid4().hex}-{path.name}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_bytes() != seen:
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _is_gone(seen: bytes) -> bool:
    """Whether its process was on this machine, and is there no more."""
    values = _parsed(seen) or {}
    pid = values.get("pid")
    if values.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _holder(seen: bytes) -> str:
    values = _parsed(seen) or {}
    return f"process {values.get('pid', '?')} on {values.get('host', '?')}"


def _read(path: Place) -> bytes | None:
    return _read_tagged(path)[0]


def _read_tagged(path: Place) -> tuple[bytes | None, str | None]:
    try:
        return path.read_tagged() if isinstance(path, Remote) else (path.read_bytes(), None)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise OutputError(f"cannot be read ({error.strerror or error})", path) from error


def _owner(content: bytes | None) -> str | None:
    return (_parsed(content) or {}).get("owner")


def _parsed(content: bytes | None) -> dict[str, Any] | None:
    try:
        values = json.loads(content or b"")
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
