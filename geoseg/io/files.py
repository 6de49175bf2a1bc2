"""Files that appear whole or not at all, and what a full disk looks like."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError, SourceError


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it at the end, removed where anything fails.

    The process id keeps two writers apart. Raises OutputError where the folder or the disk refuses.
    """
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """A folder that can be written to, made if missing; OutputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot be made a folder for results ({reason})", path) from error
    if not os.access(path, os.W_OK):
        raise OutputError("is not writable", path)


def publish_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step, as far as a reader can see, and safe against a crash."""
    with staged(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def publish_json(path: Path, value: Any) -> None:
    """As publish_bytes, for a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    publish_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
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


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it; what cannot be removed stays."""
    shutil.rmtree(path, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """Free disk space where `path` lies, or will lie."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
