"""Fetches raw data that its publisher lets anyone fetch, whole or not at all.

A file grows as `<name>.part` and is renamed when its size and checksum are right; an
interrupted download goes on where it stopped if the server answers range requests, and
starts again if it does not. Archives are unpacked beside themselves.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import IO

from tfmtl.adapters.catalogue import Adapter, find
from tfmtl.adapters.sources import Source
from tfmtl.errors import DataError
from tfmtl.progress import Listener, Silent

_CHUNK = 1 << 18
_TIMEOUT_S = 30.0


def download(
    name: str | Adapter,
    out: str | os.PathLike[str],
    listener: Listener | None = None,
) -> list[pathlib.Path]:
    """Fetches and unpacks the raw files of a data set.

    Args:
        name: An adapter, or its name.
        out: Folder for the raw files; files already whole there are kept.
        listener: Is told the bytes.

    Returns:
        The fetched files.

    Raises:
        ConfigError: No such adapter.
        DataError: The publisher asks for a login or terms, there is no connection, or
            what came is not the publisher's file. The text says what to fetch from
            where, and which folder to put it in.
    """
    adapter = find(name) if isinstance(name, str) else name
    folder = pathlib.Path(out)
    by_hand = (
        f"fetch {', '.join(adapter.files)} from {adapter.instructions} and put them "
        f"into {str(folder)!r}"
    )
    if not adapter.downloads:
        raise DataError(
            f"the publisher of {adapter.name!r} asks for a login or for accepting "
            f"terms: {by_hand}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [
        fetch(source, folder, by_hand, listener or Silent())
        for source in adapter.downloads
    ]


def fetch(
    source: Source, folder: pathlib.Path, by_hand: str, listener: Listener
) -> pathlib.Path:
    """Fetches one file into a folder and unpacks it there.

    Args:
        source: What to fetch.
        folder: Exists.
        by_hand: What the user can do instead; ends an error's text.
        listener: Is told the bytes.

    Raises:
        DataError: see `download`.
    """
    target = folder / source.file
    if not (target.exists() and _problem(source, target, None) is None):
        part = folder / f"{source.file}.part"
        try:
            size = _transfer(source, part, listener)
        except (urllib.error.URLError, HTTPException, OSError) as error:
            reason = error
            if not isinstance(error, urllib.error.HTTPError):
                reason = getattr(error, "reason", None) or error
            raise DataError(
                f"{source.url} cannot be fetched ({reason}). Try again to go on where "
                f"it stopped, or {by_hand}"
            ) from error
        problem = _problem(source, part, size)
        if problem is not None:
            if not problem.startswith("incomplete"):
                part.unlink()
            raise DataError(
                f"{source.url} did not give the publisher's file: {problem}. Try "
                f"again, or {by_hand}"
            )
        os.replace(part, target)
    listener.note(f"{source.file}: {target.stat().st_size:,} bytes")
    _unpack(source, target, folder)
    return target


def _transfer(source: Source, part: pathlib.Path, listener: Listener) -> int | None:
    """Appends to the partial file what it lacks.

    Returns:
        Size of the whole file where source or server tell it.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "tfmtl", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(source.url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to send: the partial file is complete, or too long.
        return _total(error.headers.get("Content-Range"), source.size)
    with answer:
        resumed = answer.status == 206 and (
            answer.headers.get("Content-Range") or ""
        ).startswith(f"bytes {have}-")
        if answer.status == 206 and not resumed:
            part.unlink()
            raise urllib.error.URLError("the server sent another range than asked for")
        length = answer.headers.get("Content-Length")
        if resumed:
            total = _total(answer.headers.get("Content-Range"), source.size)
        else:
            have = 0
            total = int(length) if length else source.size
        listener.stage(f"download {source.file}", total)
        listener.advance(have)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                listener.advance(len(chunk))
    return total


def _total(content_range: str | None, known: int | None) -> int | None:
    tail = (content_range or "").rpartition("/")[2]
    return int(tail) if tail.isdigit() else known


def _problem(source: Source, path: pathlib.Path, told: int | None) -> str | None:
    """What is wrong with a file; None where size and checksum fit."""
    size = path.stat().st_size
    expected = source.size if source.size is not None else told
    if expected is not None and size < expected:
        return f"incomplete, {size:,} of {expected:,} bytes"
    if expected is not None and size > expected:
        return f"{size:,} bytes instead of {expected:,}"
    if source.md5 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != source.md5:
            return f"MD5 {found} instead of {source.md5}"
    return None


def _unpack(source: Source, path: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks an archive, names flattened to the last part, and checks its members.

    Raises:
        DataError: No archive, a member is missing, or its checksum is wrong.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                files = [n for n in archive.namelist() if not n.endswith("/")]
                members = source.members or dict.fromkeys(files)
                _extract(archive.open, members, folder)
        elif path.name.endswith((".tar.gz", ".tgz", ".tar")):
            _extract_tar(path, source.members, folder)
        elif source.members:
            raise DataError(f"{str(path)!r} is no archive")
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(f"{str(path)!r} cannot be unpacked: {error}") from error


def _extract(
    open_member: Callable[[str], IO[bytes]],
    members: Mapping[str, str | None],
    folder: pathlib.Path,
) -> None:
    """Writes members of an archive under their last names, checked, then renamed."""
    for member, md5 in members.items():
        name = pathlib.PurePosixPath(member).name
        if name.startswith("._"):
            continue
        target, part = folder / name, folder / f"{name}.part"
        digest = hashlib.md5(usedforsecurity=False)
        with open_member(member) as file, part.open("wb") as copy:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        if md5 is not None and digest.hexdigest() != md5:
            part.unlink()
            raise DataError(
                f"{member} in the archive has MD5 {digest.hexdigest()} instead of {md5}"
            )
        os.replace(part, target)
        if target.name.endswith((".tar.gz", ".tgz")):
            _extract_tar(target, {}, folder)
            target.unlink()


def _extract_tar(
    path: pathlib.Path, members: Mapping[str, str | None], folder: pathlib.Path
) -> None:
    """Unpacks the members of a tar file, all files where none is named."""
    with tarfile.open(path) as archive:
        files = [m.name for m in archive.getmembers() if m.isfile()]

        def opened(member: str) -> IO[bytes]:
            file = archive.extractfile(member)
            if file is None:
                raise KeyError(member)
            return file

        _extract(opened, members or dict.fromkeys(files), folder)
