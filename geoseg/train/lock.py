"""One training at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from geoseg.errors import OutputError
from geoseg.io.files import cannot_write

LOG = logging.getLogger(__name__)
LOCK = "lock"
TRIES = 100


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder, which is made if missing, and is gone again if left empty.

    The lock is a record lock of POSIX: the kernel takes it back when the process ends, however it ends, and forked
    workers, which may outlive a killed process by seconds, do not inherit it. Where the file system knows no locks,
    a warning says so. Raises OutputError where another process holds it, or where the disk refuses.
    """
    path = folder / LOCK
    try:
        with _locked(path) as stream:
            try:
                _sign(stream, path)
                yield
            finally:
                path.unlink(missing_ok=True)  # while it is held: see _locked
    finally:
        with suppress(OSError):
            folder.rmdir()


def _sign(stream: FileIO, path: Path) -> None:
    try:
        stream.truncate(0)
        stream.write(f"{os.getpid()} {socket.gethostname()}".encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def _locked(path: Path) -> FileIO:
    """The open lock file, held. One that its holder has unlinked since it was opened counts for nothing."""
    left = TRIES
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+b", buffering=0)
        except OSError as error:
            left -= 1
            if left and isinstance(error, FileNotFoundError | FileExistsError):
                continue  # whoever was here has just left, and taken the folder along
            raise cannot_write(path, error) from error
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                with stream:
                    raise _refused(path.parent, stream) from None
            LOG.warning(
                "%s: cannot be locked (%s): nothing keeps a second training out", path, error.strerror
            )
            return stream
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()


def _refused(folder: Path, stream: FileIO) -> OutputError:
    stream.seek(0)
    pid, _, host = (stream.read(300) or b"").decode(errors="replace").partition(" ")
    who = f" (process {pid} on {host})" if pid and host else ""
    return OutputError(
        f"another training is at work there{who}; wait until it ends, or give another folder with -o", folder
    )
