"""Directories and files are whole or absent, even when the process dies."""

from __future__ import annotations

import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest

import tfmtl
from tfmtl.errors import ConfigError
from tfmtl.files import (
    atomic_directory,
    atomic_file,
    atomic_write,
    check_target,
)

_ROOT = pathlib.Path(tfmtl.__file__).parents[1]
_WRITE = """
import sys
from tfmtl.files import atomic_directory
with atomic_directory(sys.argv[1], overwrite=sys.argv[2] == "1", name="test") as new:
    (new / "a").write_text("new")
    (new / "b").write_text("new")
"""


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def _run(target: pathlib.Path, *, overwrite: bool, failpoint: str = "") -> int:
    environment = os.environ | {"TFMTL_FAILPOINT": failpoint}
    return subprocess.run(
        [sys.executable, "-c", _WRITE, str(target), str(int(overwrite))],
        cwd=_ROOT,
        env=environment,
    ).returncode


def test_a_directory_appears_whole(tmp_path):
    target = tmp_path / "deep" / "out"
    with atomic_directory(target) as new:
        (new / "a").write_text("1")
        assert not target.exists()
        assert new.parent == target.parent, "a rename needs one file system"
    assert _names(target) == ["a"]
    assert _names(target.parent) == ["out"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_an_error_leaves_nothing_behind(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(RuntimeError, match="stop"), atomic_directory(target) as new:
        (new / "a").write_text("1")
        raise RuntimeError("stop")
    assert _names(tmp_path) == []


def test_an_error_keeps_what_was_to_be_overwritten(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    with (
        pytest.raises(KeyboardInterrupt),
        atomic_directory(target, overwrite=True) as new,
    ):
        (new / "a").write_text("1")
        raise KeyboardInterrupt
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["out"]


def test_overwrite_replaces_everything(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    with atomic_directory(target, overwrite=True) as new:
        (new / "a").write_text("1")
    assert _names(target) == ["a"]
    assert _names(tmp_path) == ["out"]


def test_an_empty_folder_may_be_filled(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    with atomic_directory(target) as new:
        (new / "a").write_text("1")
    assert _names(target) == ["a"]


def test_targets_in_the_way(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "old").write_text("1")
    with pytest.raises(ConfigError, match=r"new or an empty folder.*full.*--overwrite"):
        check_target(full)
    check_target(full, overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"must be a folder.*which is a file"):
            check_target(full / "old", overwrite=overwrite)
    with pytest.raises(ConfigError), atomic_directory(full) as new:
        raise AssertionError(f"the body ran in {new}")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_before_the_rename_changes_nothing(tmp_path, overwrite):
    target = tmp_path / "out"
    if overwrite:
        target.mkdir()
        (target / "old").write_text("1")
    code = _run(target, overwrite=overwrite, failpoint="test/before-rename")
    assert code == -signal.SIGKILL
    assert target.exists() == overwrite
    if overwrite:
        assert _names(target) == ["old"]
    left = [n for n in _names(tmp_path) if n != "out"]
    assert len(left) == 1 and left[0].startswith(".out.")
    assert left[0].endswith(".partial"), "what is left must not look complete"
    assert _run(target, overwrite=overwrite) == 0, "a second run succeeds"
    assert _names(target) == ["a", "b"]


@pytest.mark.parametrize("failpoint", ["", "other/place", "test/before-rename:2"])
def test_other_failpoints_do_not_fire(tmp_path, failpoint):
    assert _run(tmp_path / "out", overwrite=False, failpoint=failpoint) == 0
    assert _names(tmp_path / "out") == ["a", "b"]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "file.json"
    atomic_write(path, "one")
    atomic_write(path, b"\x00two")
    assert path.read_bytes() == b"\x00two"
    assert _names(path.parent) == ["file.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failed_write_keeps_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, "one")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, "two")
    assert path.read_text() == "one"
    assert _names(tmp_path) == ["file"]


@pytest.mark.parametrize("make", ["mkdir", "touch"])
def test_a_signal_right_after_the_creation_leaves_nothing(tmp_path, monkeypatch, make):
    real = getattr(pathlib.Path, make)

    def interrupted(path, *arguments, **settings):
        real(path, *arguments, **settings)
        if path.name.startswith(".out."):
            raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, make, interrupted)
    write = {"mkdir": atomic_directory, "touch": atomic_file}[make]
    with pytest.raises(KeyboardInterrupt), write(tmp_path / "out"):
        pass
    assert _names(tmp_path) == []
