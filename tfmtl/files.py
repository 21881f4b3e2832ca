"""Directories and files that are whole or absent: written beside, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator

from tfmtl.errors import ConfigError
from tfmtl.failpoints import failpoint

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raises unless `path` may be written: absent, an empty folder, or `overwrite`.

    Raises:
        ConfigError: `path` is a file, or a folder that holds something.
    """
    target = pathlib.Path(path)
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ConfigError(
            f"`output` must be a new or an empty folder. Received: {str(target)!r}, "
            "which holds files. Choose another folder, or pass --overwrite."
        )
    if target.exists() and not target.is_dir():
        raise ConfigError(
            f"`output` must be a folder. Received: {str(target)!r}, which is a file."
        )


@contextlib.contextmanager
def atomic_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False, name: str = "directory"
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`, renamed to `path` if the body succeeds.

    The rename is the commit: before it `path` is as it was, after it `path` is whole.
    With `overwrite` the old folder changes places with the new one and is removed.

    Args:
        path: The final folder.
        overwrite: Replace a folder that holds files.
        name: Prefix of the failpoint `<name>/before-rename`.

    Yields:
        The temporary folder, on the same file system.

    Raises:
        ConfigError: see `check_target`.
    """
    target = pathlib.Path(path).absolute()
    check_target(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, ".partial")
    # Made inside: a signal may raise anywhere, right after mkdir too.
    try:
        temporary.mkdir(mode=0o755)
        yield temporary
        failpoint(f"{name}/before-rename")
        _replace_directory(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_directory(temporary: pathlib.Path, target: pathlib.Path) -> None:
    if target.exists() and not any(target.iterdir()):
        target.rmdir()
    if not target.exists():
        temporary.rename(target)
    elif not _exchange(temporary, target):
        aside = temporary.with_suffix(".old")
        target.rename(aside)
        temporary.rename(target)
        shutil.rmtree(aside)
    # After an exchange the old folder lies at `temporary`, which the caller removes.


def _exchange(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Swaps two folders in one step, so that a kill leaves either old or new.

    Linux only (renameat2 with RENAME_EXCHANGE); False where it cannot be had.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, bytes(first), here, bytes(second), swap) == 0)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary file beside `path`, renamed to `path` if the body succeeds."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        temporary.touch(mode=0o644, exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(target: pathlib.Path, suffix: str = "") -> pathlib.Path:
    """A hidden name beside `target` that nobody else has."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}{suffix}")


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a file beside `path`, flushes it to disk and renames it to `path`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[None]:
    """Holds a file's lock, which a process that dies lets go.

    Where the system or the file system has no such locks, it holds nothing.

    Args:
        path: Of the file, made if it is not there; it stays.
        wait: Until another process lets go.

    Raises:
        BlockingIOError: Another process holds it, and `wait` is false.
    """
    with open(path, "ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise
            except OSError:
                pass
        yield
