"""The data sets of a search: one, or one for each value that changes the records."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from tfmtl.errors import ConfigError
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest, read_dataset
from tfmtl.workflow.train import fit_manifest


class Datasets:
    """Dataset directories, of which each experiment takes the one it was made for.

    Args:
        directories: One or more.

    Attributes:
        directories: Likewise.

    Raises:
        ConfigError: Two are alike, or trials on them could not be compared.
        DataError: One is no data set.
    """

    def __init__(self, directories: Sequence[pathlib.Path]) -> None:
        self.directories = tuple(directories)
        self._manifests = [read_dataset(path) for path in self.directories]
        self._check_comparable()

    def of(self, experiment: Experiment) -> tuple[pathlib.Path, DatasetManifest]:
        """The data set that has an experiment's records, and its fitted manifest.

        Raises:
            ConfigError: None has.
        """
        asked = experiment.dataset.records_part()
        for path, manifest in zip(self.directories, self._manifests):
            alone = len(self.directories) == 1
            if alone or manifest.dataset.records_part() == asked:
                return path, fit_manifest(experiment, manifest)
        made = [manifest.dataset.records_part() for manifest in self._manifests]
        keys = [key for key in asked if any(asked[key] != m[key] for m in made)]
        raise ConfigError(
            "no data set was made with what `dataset` says, differences being in "
            f"{keys}. Received: {[str(path) for path in self.directories]}; pass one "
            "for each value with --dataset, made by `tfmtl preprocess --set`"
        )

    def path(self, experiment: Experiment) -> pathlib.Path:
        """The directory of the data set that has an experiment's records."""
        return self.of(experiment)[0]

    def identity(self) -> dict[str, Any]:
        """What says that a search goes on with the data that it began with."""
        # In any order of the arguments.
        ordered = sorted(
            zip(self._manifests, self.directories), key=lambda d: d[0].schema_hash
        )
        return {
            "schema_hash": [manifest.schema_hash for manifest, _ in ordered],
            "content_id": [manifest.content_id for manifest, _ in ordered],
            "dataset": [str(path.absolute()) for _, path in ordered],
        }

    def _check_comparable(self) -> None:
        """Refuses data sets that differ in what trials are compared by."""
        first, *others = self._manifests
        for path, manifest in zip(self.directories[1:], others):
            split, beside = manifest.splits["validation"], first.splits["validation"]
            if (split.rows, split.tasks) != (beside.rows, beside.tasks):
                raise ConfigError(
                    "`--dataset`: trials are compared by the validation split, and "
                    f"that of {str(path)!r} has other rows than that of "
                    f"{str(self.directories[0])!r}. Received: {split.rows} and "
                    f"{beside.rows} rows"
                )
        parts = [m.dataset.records_part() for m in self._manifests]
        for number, part in enumerate(parts):
            if part in parts[:number]:
                raise ConfigError(
                    "`--dataset`: two data sets were made with the same specification. "
                    f"Received: {str(self.directories[number])!r} and "
                    f"{str(self.directories[parts.index(part)])!r}"
                )
