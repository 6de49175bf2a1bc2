"""Files that appear whole or not at all, and what a full disk looks like."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError, SourceError
from geoseg.io.places import Place
from geoseg.io.remote import Remote


@contextmanager
def staged(path: Place) -> Iterator[Path]:
    """A temporary file that becomes `path` at the end, and is removed where anything fails.

    It lies beside `path`, or in the machine's temporary folder if that is in a bucket. The process id keeps two
    writers apart. Raises OutputError where the folder, the disk or the storage refuses.
    """
    if isinstance(path, Remote):
        with _scratch_file(path) as temporary:
            yield temporary
        return
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _scratch_file(path: Remote) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="geoseg-") as folder:
            temporary = Path(folder, path.name)
            yield temporary
            path.upload(temporary)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Place, error: OSError) -> OutputError:
    """What a failed write means to a person."""
    return OutputError(f"cannot be written ({error.strerror or error})", path)


def move(path: Path, target: Place) -> None:
    """Put a finished file in its place, over what was there. Raises OSError."""
    if isinstance(target, Remote):
        target.upload(path)
        path.unlink()
    else:
        os.replace(path, target)


def make_folder(path: Place) -> None:
    """A folder that can be written to, made if missing; OutputError where that cannot be.

    In a bucket folders are but names: there it is looked whether the bucket answers.
    """
    try:
        if isinstance(path, Remote):
            path.is_dir()
            return
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot be made a folder for results ({reason})", path) from error
    if not os.access(path, os.W_OK):
        raise OutputError("is not writable", path)


def publish_bytes(path: Place, content: bytes) -> None:
    """Write a file in one step, as far as a reader can see, and safe against a crash."""
    if isinstance(path, Remote):
        try:
            path.write_bytes(content)
        except OSError as error:
            raise cannot_write(path, error) from error
        return
    with staged(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def publish_json(path: Place, value: Any) -> None:
    """As publish_bytes, for a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    publish_bytes(path, (text + "\n").encode())


def read_json(path: Place) -> Any:
    """The value in a JSON file of our own; None where there is no file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror or error})", path) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"is not the JSON that was written there ({error}); delete it to start anew", path
        ) from error


def remove_folder(path: Place) -> None:
    """Remove a folder and all in it; what cannot be removed stays."""
    if isinstance(path, Remote):
        with suppress(OSError):
            path.remove_below()
    else:
        shutil.rmtree(path, ignore_errors=True)


def free_bytes(path: Place) -> int:
    """Free disk space where `path` lies, or will lie; for one in a bucket, where files wait to be put there."""
    here = Path(tempfile.gettempdir()) if isinstance(path, Remote) else path
    while not here.exists() and here != here.parent:
        here = here.parent
    return shutil.disk_usage(here).free
