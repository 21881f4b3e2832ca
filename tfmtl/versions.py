"""Versions of the packages that a result depends on."""

from __future__ import annotations

import importlib.metadata

PACKAGES = (
    "tfmtl",
    "tensorflow",
    "tf_keras",
    "tensorflow-recommenders",
    "tensorflow-transform",
    "tfx-bsl",
    "apache-beam",
    "keras-tuner",
    "pyarrow",
    "numpy",
)


def versions() -> dict[str, str]:
    """Package to version, of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
