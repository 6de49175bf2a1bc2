"""Objects in buckets by the names and calls of files: s3://, gs:// and az://, and https:// to read from.

Credentials, region and endpoint come from the environment alone (AWS_*, GOOGLE_*, AZURE_*). What a server answers with
5xx, or does not answer, is tried again with growing pauses. Failures are OSError, as those of files are.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import posixpath
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import obstore
from obstore import exceptions
from obstore.store import from_url

T = TypeVar("T")

URL = re.compile(r"^(s3|gs|az|https?)://([^/]+)(?:/(.*))?$", re.DOTALL)
"""Scheme, bucket, and name inside it."""
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")

DENIED = "access is denied; look at the credentials in the environment"
RETRIES = 8
RETRY_S = 90
"""So long a request is tried again, all in all."""
REQUEST_S = 60
PAUSES_S = (0.3, 1.0, 3.0)
"""Before what the library did not try again is tried again."""
PART_BYTES = 16 << 20
MOST_PARTS = 9_000
"""S3 takes 10,000."""


@dataclass(frozen=True)
class Head:
    """What storage says of an object. tag: changes with its content."""

    size: int
    tag: str | None


@dataclass(frozen=True)
class Remote:
    """An object, or a folder of objects. Has the methods of pathlib.Path that make sense there; holds no connection."""

    url: str

    def __post_init__(self) -> None:
        found = URL.match(self.url)
        if found is None:
            raise ValueError(f"{self.url} does not name a bucket")
        key = "/".join(part for part in (found[3] or "").split("/") if part)
        if ".." in key.split("/"):
            raise ValueError(f"{self.url} leaves its folder")
        object.__setattr__(self, "url", f"{found[1]}://{found[2]}" + f"/{key}" * bool(key))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | PurePosixPath) -> Remote:
        return Remote(f"{self.url}/{name}")

    @property
    def root(self) -> str:
        """The bucket."""
        return "/".join(self.url.split("/", 3)[:3])

    @property
    def key(self) -> str:
        """The name inside the bucket; empty for the bucket itself."""
        return self.url.removeprefix(self.root).removeprefix("/")

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> Remote:
        return (
            Remote(f"{self.root}/{PurePosixPath(self.key).parent}") if "/" in self.key else Remote(self.root)
        )

    def with_name(self, name: str) -> Remote:
        return self.parent / name

    def linked(self, href: str) -> Remote:
        """What a relative link in this object leads to. Raises ValueError where it leads out of the bucket."""
        return Remote(f"{self.root}/{posixpath.normpath(posixpath.join(self.parent.key, href))}")

    def resolve(self) -> Remote:
        return self

    def head(self) -> Head:
        """Raises FileNotFoundError where there is no such object."""
        found = self._ask(lambda: obstore.head(self._store, self.key))
        return Head(found["size"], found["e_tag"])

    def is_file(self) -> bool:
        try:
            return bool(self.key) and self.head() is not None
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether anything lies below."""
        return self._ask(
            lambda: any(len(batch) for batch in obstore.list(self._store, self.key or None, chunk_size=1))
        )

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[Remote]:
        """What lies below, one level deep, sorted."""
        found = self._ask(lambda: obstore.list_with_delimiter(self._store, self.key or None))
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        yield from (Remote(f"{self.root}/{key}") for key in sorted(key for key in keys if key.strip("/")))

    def walk_files(self) -> Iterator[Remote]:
        """All objects below, sorted by name as storage does."""
        pages = iter(obstore.list(self._store, self.key or None))
        while page := self._ask(lambda: next(pages, None)):
            yield from (Remote(f"{self.root}/{entry['path']}") for entry in page)

    def glob(self, pattern: str) -> Iterator[Remote]:
        """As pathlib's: * and ? stay within a name, ** stands for any number of folders."""
        first, _, rest = pattern.partition("/")
        if first == "**":
            wanted = re.compile(_as_regex(pattern))
            skip = len(self.key) + 1 if self.key else 0
            yield from (place for place in self.walk_files() if wanted.match(place.key[skip:]))
        elif not any(sign in first for sign in "*?["):
            below = self / first
            if rest:
                yield from below.glob(rest)
            elif below.exists():
                yield below
        else:
            for place in self.iterdir():
                if fnmatch.fnmatchcase(place.name, first):
                    yield from place.glob(rest) if rest else (place,)

    def read_bytes(self) -> bytes:
        return self.read_tagged()[0]

    def read_tagged(self) -> tuple[bytes, str | None]:
        """Content and tag of one moment."""

        def get() -> tuple[bytes, str | None]:
            found = obstore.get(self._store, self.key)
            return bytes(found.bytes()), found.meta["e_tag"]

        return self._ask(get)

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces, all of one version; FileExistsError where it changes meanwhile."""
        head = self.head()
        for start in range(0, head.size, PART_BYTES):
            options: Any = {"range": (start, min(start + PART_BYTES, head.size))}
            if head.tag is not None:
                options["if_match"] = head.tag
            yield self._ask(partial(self._part, options))

    def _part(self, options: Any) -> bytes:
        return bytes(obstore.get(self._store, self.key, options=options).bytes())

    def write_bytes(self, content: bytes) -> str | None:
        """Put an object in one step; returns its tag."""
        return self._ask(lambda: obstore.put(self._store, self.key, content, use_multipart=False))["e_tag"]

    def create(self, content: bytes) -> str | None:
        """Put an object where there is none. None where there is one; it may still be ours, put by a lost request."""
        try:
            put = self._ask(
                lambda: obstore.put(self._store, self.key, content, mode="create", use_multipart=False)
            )
            return put["e_tag"] or ""
        except FileExistsError:
            return None

    def replace(self, content: bytes, tag: str) -> str | None:
        """Put an object over the one with this tag, and no other. None where it is another one, or gone."""
        mode: Any = {"e_tag": tag}
        try:
            put = self._ask(
                lambda: obstore.put(self._store, self.key, content, mode=mode, use_multipart=False)
            )
            return put["e_tag"] or ""
        except (FileExistsError, FileNotFoundError):
            return None

    def upload(self, path: Path) -> None:
        """Put a file, large ones in parts; it is there whole, or not at all."""
        part = max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS))
        self._ask(lambda: obstore.put(self._store, self.key, path, chunk_size=part, max_concurrency=8))

    def download(self, path: Path) -> None:
        with path.open("wb") as stream:
            for chunk in self.chunks():
                stream.write(chunk)

    def unlink(self, missing_ok: bool = False) -> None:
        """Storage does not tell whether there was anything."""
        self._delete([self.key])

    def remove_below(self) -> None:
        """Remove all objects of a folder."""
        batch: list[str] = []
        for place in self.walk_files():
            batch.append(place.key)
            if len(batch) == 1_000:
                self._delete(batch)
                batch = []
        if batch:
            self._delete(batch)

    def _delete(self, keys: list[str]) -> None:
        with suppress(FileNotFoundError):
            self._ask(lambda: obstore.delete(self._store, keys))

    @property
    def _store(self) -> Any:
        return _store_of(self.root)

    def _ask(self, request: Callable[[], T]) -> T:
        """The answer to a request, which is tried again where it went wrong on its way.

        The library does so by itself for most. Raises OSError, with a reason that a person understands.
        """
        for pause in PAUSES_S:
            try:
                return self._told(request)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                time.sleep(pause)
        return self._told(request)

    def _told(self, request: Callable[[], T]) -> T:
        """The answer; failures as OSError, EIO where it may be otherwise the next time."""
        try:
            return request()
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise OSError(errno.ENODEV, f"there is no bucket {self.root}", self.url) from error
            raise FileNotFoundError(errno.ENOENT, "no such object", self.url) from error
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise FileExistsError(errno.EEXIST, "another object is there", self.url) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise PermissionError(errno.EACCES, DENIED, self.url) from error
        except exceptions.BaseError as error:
            raise OSError(errno.EIO, _reason(str(error), self.root), self.url) from error


@lru_cache(maxsize=32)
def _store_of(root: str) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or root
    client: Any = {"timeout": timedelta(seconds=REQUEST_S), "connect_timeout": timedelta(seconds=10)}
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    more: dict[str, Any] = {}
    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1")  # GDAL's word for it
    if root.startswith("s3://") and unsigned:
        more["skip_signature"] = True
    backoff = {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=10), "base": 2}
    retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S), "backoff": backoff}
    return from_url(root, client_options=client, retry_config=retry, **more)


def _reason(text: str, root: str) -> str:
    """The gist of what the library says, which is many lines."""
    if _NO_BUCKET.search(text):
        return f"there is no bucket {root}"
    if "169.254.169.254" in text or "metadata.google" in text:
        return "there are no credentials in the environment, and this machine has none of its own"
    if code := re.search(r"<Code>(\w+)</Code>", text):
        return f"the storage answers {code[1]}"
    if status := re.search(r"status code: (\d+ [A-Za-z ]+)", text):
        return f"the storage answers {status[1].strip()}"
    if "error sending request" in text or "Connect" in text or "timed out" in text:
        return "the storage does not answer"
    return text.splitlines()[0][:200]


def _as_regex(pattern: str) -> str:
    """A pattern of names, with ** for any number of folders, as a regular expression."""
    signs = {"*": "[^/]*", "?": "[^/]"}
    parts = [
        "(?:[^/]+/)*" if part == "**" else "".join(signs.get(c, re.escape(c)) for c in part) + "/"
        for part in pattern.split("/")
    ]
    return f"^{''.join(parts).removesuffix('/')}$"
