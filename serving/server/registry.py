"""Which versions of a model are served: found on disk, loaded, switched, retired."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from serving.server.errors import RequestError
from serving.server.servable import Servable
from serving.server.warm import warm_up
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Versions = Literal["latest", "all"] | Sequence[int]
State = Literal["LOADING", "AVAILABLE", "UNLOADING", "END"]

# TensorFlow's status codes by number: INVALID_ARGUMENT, NOT_FOUND, ...
_CODE_NAMES = {
    code: name
    for name, code in vars(tf.errors).items()
    if name.isupper() and isinstance(code, int)
}
# A version that failed is tried again as TensorFlow Serving does: five times, a minute
# apart, for the storage that was away; and at once when its files change.
_RETRIES = 5
_RETRY_SECONDS = 60.0
# Statuses of versions that are gone are kept for so many versions.
_REMEMBERED = 64


@dataclasses.dataclass(frozen=True)
class Status:
    """What the status request says of one version."""

    state: State
    error_code: str = "OK"
    error_message: str = ""


@dataclasses.dataclass
class _Entry:
    servable: Servable
    requests: int = 0
    retired: bool = False


@dataclasses.dataclass(frozen=True)
class _Broken:
    fingerprint: frozenset[tuple[str, int, int]]
    attempts: int
    retry_at: float


class Registry:
    """The versions of one model directory.

    `poll` looks at the directory and acts on it; it is called by one thread at a time.
    Requests take a version with `lease`, from any thread: a version that is replaced
    stays open until its last request is done.

    Args:
        model_dir: Holds one directory per version, named by a positive integer.
        name: The model's name in the paths of requests.
        versions: "latest" serves the newest version that loads, "all" every version, a
            sequence of integers those.

    Raises:
        ConfigError: `model_dir` is no directory, or `versions` is none of these.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        *,
        name: str,
        versions: Versions = "latest",
    ) -> None:
        self.model_dir = pathlib.Path(model_dir)
        if not self.model_dir.is_dir():
            raise ConfigError(
                "`model_dir` must be a directory with one folder per version, such as "
                f"{self.model_dir / '1'}. Received: {str(self.model_dir)!r}."
            )
        if isinstance(versions, str) and versions not in ("latest", "all"):
            raise ConfigError(
                "`versions` must be 'latest', 'all' or a list of integers. "
                f"Received: {versions!r}."
            )
        self.name = name
        self._versions = versions
        self._lock = threading.Lock()
        self._entries: dict[int, _Entry] = {}
        self._statuses: dict[int, Status] = {}
        self._broken: dict[int, _Broken] = {}

    def poll(self) -> None:
        """Loads what is new, then retires what it replaces."""
        found = self._found()
        if not found:
            # An unmounted volume must not take a working model down.
            return
        keep = set()
        for version in self._candidates(found):
            if version in self._entries or self._load(version, found[version]):
                keep.add(version)
                if self._versions == "latest":
                    break
        if keep:
            for version in self._entries.keys() - keep:
                self._retire(version)

    def _found(self) -> dict[int, pathlib.Path]:
        try:
            folders = [
                path
                for path in self.model_dir.iterdir()
                if path.name.isascii() and path.name.isdigit() and path.is_dir()
            ]
        except OSError as error:
            logger.warning("cannot read %s: %s", self.model_dir, error)
            return {}
        return {int(path.name): path for path in folders}

    def _candidates(self, found: dict[int, pathlib.Path]) -> list[int]:
        newest_first = sorted(found, reverse=True)
        if isinstance(self._versions, str):
            return newest_first
        return [version for version in newest_first if version in self._versions]

    def _load(self, version: int, path: pathlib.Path) -> bool:
        """Loads and warms a version up; True once it answers requests."""
        fingerprint = _fingerprint(path)
        attempts = self._attempts(version, fingerprint)
        if attempts is None:
            return False
        self._set_status(version, Status("LOADING"))
        logger.info("loading %s version %d from %s", self.name, version, path)
        servable = None
        try:
            servable = Servable(path, version)
            warmed = warm_up(servable)
        except Exception as error:
            # Whatever is wrong with a new version, the one that serves must go on.
            if servable is not None:
                servable.close()
            retry_at = time.monotonic() + _RETRY_SECONDS
            self._broken[version] = _Broken(fingerprint, attempts + 1, retry_at)
            self._set_status(version, _failure(error))
            logger.error("%s version %d does not load: %s", self.name, version, error)
            return False
        self._broken.pop(version, None)
        with self._lock:
            self._entries[version] = _Entry(servable)
        self._set_status(version, Status("AVAILABLE"))
        logger.info(
            "%s version %d is served (%d warm-up requests)", self.name, version, warmed
        )
        return True

    def _attempts(
        self, version: int, fingerprint: frozenset[tuple[str, int, int]]
    ) -> int | None:
        """How often these files were tried; None if they are not to be tried now."""
        broken = self._broken.get(version)
        if broken is None or broken.fingerprint != fingerprint:
            return 0
        if broken.attempts > _RETRIES or time.monotonic() < broken.retry_at:
            return None
        return broken.attempts

    def _retire(self, version: int) -> None:
        self._set_status(version, Status("UNLOADING"))
        with self._lock:
            entry = self._entries.pop(version)
            entry.retired = True
            idle = entry.requests == 0
        if idle:
            self._close(entry)

    def _close(self, entry: _Entry) -> None:
        entry.servable.close()
        self._set_status(entry.servable.version, Status("END"))
        logger.info("%s version %d is retired", self.name, entry.servable.version)

    def _set_status(self, version: int, status: Status) -> None:
        with self._lock:
            self._statuses[version] = status
            gone = [v for v, s in sorted(self._statuses.items()) if s.state == "END"]
            for old in gone[:-_REMEMBERED]:
                del self._statuses[old]

    @contextlib.contextmanager
    def lease(self, name: str, version: int | None = None) -> Iterator[Servable]:
        """Holds a version open for one request; None is the newest that is served.

        Raises:
            RequestError: The model or the version is not served (404).
        """
        with self._lock:
            wanted = max(self._entries, default=None) if version is None else version
            if name != self.name or wanted is None or wanted not in self._entries:
                raise RequestError(self._not_found(name, version), 404)
            entry = self._entries[wanted]
            entry.requests += 1
        try:
            yield entry.servable
        finally:
            with self._lock:
                entry.requests -= 1
                done = entry.retired and entry.requests == 0
            if done:
                self._close(entry)

    def _not_found(self, name: str, version: int | None) -> str:
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        served = ", ".join(map(str, sorted(self._entries))) or "none"
        return (
            f"Servable not found for request: {asked}. This server has the model "
            f"{self.name}, versions: {served}"
        )

    def statuses(self) -> dict[int, Status]:
        """All versions that were ever tried, newest first."""
        with self._lock:
            return dict(sorted(self._statuses.items(), reverse=True))

    def require_served(self) -> None:
        """Raises unless a version is served.

        Raises:
            DataError: None is; the message says why for each.
        """
        if self._entries:
            return
        reasons = "; ".join(
            f"version {version}: {status.error_message}"
            for version, status in self.statuses().items()
        )
        raise DataError(
            f"{self.model_dir} has no version that can be served. A version is a "
            "folder named by an integer that holds saved_model.pb. "
            f"Received: {reasons or 'no such folder'}."
        )

    def close(self) -> None:
        """Retires every version."""
        for version in list(self._entries):
            self._retire(version)


def _fingerprint(path: pathlib.Path) -> frozenset[tuple[str, int, int]]:
    """Names, sizes and times of a version's files: changes while it is being copied."""
    files = set()
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                file = os.path.join(folder, name)
                found = os.stat(file)
                files.add((file, found.st_size, found.st_mtime_ns))
    return frozenset(files)


def _failure(error: Exception) -> Status:
    code = "UNKNOWN"
    if isinstance(error, tf.errors.OpError):
        code = _CODE_NAMES.get(error.error_code, code)
    elif isinstance(error, OSError):
        code = "NOT_FOUND"
    return Status("END", code, str(error).partition("\n")[0] or type(error).__name__)
