"""Multi-task, multi-scenario ranking on TensorFlow: raw logs to served predictions.

The names below are loaded when first used, so that `import tfmtl` costs nothing and
TensorFlow is imported only by what needs it.

Example:
    >>> import tfmtl
    >>> tfmtl.Vocabulary(max_size=1000).oov_buckets
    1
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmtl.errors import ConfigError as ConfigError
    from tfmtl.errors import DataError as DataError
    from tfmtl.errors import ServingError as ServingError
    from tfmtl.errors import TfmtlError as TfmtlError
    from tfmtl.errors import TrainingError as TrainingError
    from tfmtl.schema.dataset import DatasetSpec as DatasetSpec
    from tfmtl.schema.experiment import Experiment as Experiment
    from tfmtl.schema.feature import Vocabulary as Vocabulary
    from tfmtl.schema.load import load_experiment as load_experiment
    from tfmtl.schema.manifest import DatasetManifest as DatasetManifest
    from tfmtl.schema.manifest import ExportManifest as ExportManifest
    from tfmtl.schema.manifest import read_dataset as read_dataset
    from tfmtl.schema.manifest import read_export as read_export
    from tfmtl.schema.task import TaskSpec as TaskSpec

__version__ = "0.1.0"

_HOME = {
    "ConfigError": "tfmtl.errors",
    "DataError": "tfmtl.errors",
    "ServingError": "tfmtl.errors",
    "TfmtlError": "tfmtl.errors",
    "TrainingError": "tfmtl.errors",
    "DatasetSpec": "tfmtl.schema.dataset",
    "Experiment": "tfmtl.schema.experiment",
    "Vocabulary": "tfmtl.schema.feature",
    "load_experiment": "tfmtl.schema.load",
    "DatasetManifest": "tfmtl.schema.manifest",
    "ExportManifest": "tfmtl.schema.manifest",
    "read_dataset": "tfmtl.schema.manifest",
    "read_export": "tfmtl.schema.manifest",
    "TaskSpec": "tfmtl.schema.task",
}
_MODULES = ("workflow", "models", "balance")

__all__ = sorted([*_HOME, *_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
