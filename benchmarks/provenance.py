"""Where figures come from: commit and versions, for the files beside a table."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

from tfmtl.versions import versions

ROOT = pathlib.Path(__file__).resolve().parents[1]


def commit() -> str:
    """The commit of the code that runs, with `+` where files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    name = git("rev-parse", "--short", "HEAD") or "unknown"
    return (
        f"{name}+"
        if git("status", "--porcelain", "--", "tfmtl", "benchmarks")
        else name
    )


def provenance() -> dict[str, Any]:
    """Commit and versions."""
    return {"commit": commit(), "versions": versions()}
