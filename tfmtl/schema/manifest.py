"""The two manifests: `dataset.json` of a dataset directory, `tfmtl.json` of an export.

They are all that training, serving and the client read about how the data was made, so
that none of these needs Beam, TensorFlow Transform or the experiment's own files.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import pydantic

from tfmtl.errors import DataError
from tfmtl.files import atomic_write
from tfmtl.schema.base import Spec
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.kept import Kept

DATASET_FILE = "dataset.json"
EXPORT_FILE = "tfmtl.json"


class RecordColumn(Spec):
    """One column of the records.

    Shapes: `scalar` one value a row; `ragged` any number, with `<name>#lengths` beside
    it; `vector` `size` values a row.
    """

    name: str
    dtype: Literal["int", "float", "bytes"]
    shape: Literal["scalar", "ragged", "vector"] = "scalar"
    size: int | None = None
    """Width of a vector; longest length of a ragged column."""
    rows: int | None = None
    """For ids: 1 + the largest possible id, the rows of an embedding table."""
    vocabulary: str | None = None
    """Name of the vocabulary the ids come from."""


class RecordFile(Spec):
    """One TFRecord file of a split."""

    path: str
    """Relative to the dataset directory."""
    rows: int
    blocks: tuple[int, ...]
    """Rows of each record, in order; empty for `layout: rows`."""


class LabelStats(Spec):
    """What a split says about one task (in one scenario, or in all)."""

    rows: int
    """Rows with a label."""
    total: float
    """Sum of the labels: the positives of a binary task."""

    @property
    def mean(self) -> float | None:
        """Mean label; None where there is none."""
        return self.total / self.rows if self.rows else None


class SplitStats(Spec):
    """Counts of one split."""

    rows: int
    files: tuple[RecordFile, ...]
    tasks: dict[str, LabelStats] = {}
    scenarios: dict[str, int] = {}
    """Rows by scenario; `unknown` for every other value."""
    cells: dict[str, dict[str, LabelStats]] = {}
    """Task to scenario to counts."""
    timestamp_min: float | None = None
    timestamp_max: float | None = None


class VocabularyStats(Spec):
    """A fitted vocabulary."""

    size: int
    """Known values."""
    rows: int
    """Rows of its table: 1 (missing) + OOV buckets + size."""
    dropped: int = 0
    """Distinct values left out by `max_size` or `min_count`."""
    oov_buckets: int = 1


class RowCounts(Spec):
    """Where every row went; read = written + rejected + duplicates + dropped."""

    read: int
    written: int
    rejected: int = 0
    """In the dead-letter files, with the reason."""
    duplicates: int = 0
    dropped: int = 0
    """Inside a gap or after the end of the split."""

    @property
    def balanced(self) -> bool:
        """Whether no row is lost."""
        return self.read == (
            self.written + self.rejected + self.duplicates + self.dropped
        )


class DatasetManifest(Spec):
    """`dataset.json`."""

    format_version: Literal[1] = 1
    tfmtl_version: str
    versions: dict[str, str] = {}
    """Of the packages that wrote it."""
    schema_hash: str
    content_id: str = ""
    """Of the rows and what was fitted on them; empty where it is not known. Equal for
    equal records, vocabularies and side tables, whoever made them and when."""
    dataset: DatasetSpec
    layout: Literal["blocks", "rows"] = "blocks"
    compression: Literal["none", "gzip"] = "none"
    block_rows: int
    columns: tuple[RecordColumn, ...]
    vocabularies: dict[str, VocabularyStats] = {}
    side_tables: dict[str, str] = {}
    """Vector feature to its `.npy` file [rows of the key's table, size], relative."""
    splits: dict[str, SplitStats]
    counts: RowCounts
    rejected: dict[str, int] = {}
    """Reason to rows."""
    warnings: tuple[str, ...] = ()
    """What the leakage check and the transform noticed."""

    def column(self, name: str) -> RecordColumn:
        """The column of this name.

        Raises:
            KeyError: There is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


class ServedInput(Spec):
    """One input of the served model's `serving_default` signature."""

    name: str
    dtype: Literal["string", "float", "int64"]
    shape: Literal["scalar", "list", "vector"] = "scalar"
    """`list`: [B, L], padded at the end; `vector`: [B, size]."""
    size: int | None = None
    keep: str | None = None
    """Of a list, which values the model reads: `tfmtl.schema.kept`."""
    column: str
    """The raw column it is."""


class ExportManifest(Spec):
    """`tfmtl.json` beside an exported model: its model card."""

    format_version: Literal[1] = 1
    tfmtl_version: str
    versions: dict[str, str]
    name: str
    model: str
    """Class of the model."""
    schema_hash: str
    dataset: DatasetSpec
    """What the model was trained on; offline scoring reads raw files by it."""
    inputs: tuple[ServedInput, ...]
    outputs: dict[str, str]
    """Output to what it means."""
    fusion: FusionSpec | None = None
    """How the output `score` is made of others; null where there is none."""
    scenarios: tuple[str, ...] = ()
    metrics: dict[str, Any] = {}
    data: dict[str, Any] = {}
    """Rows, positive rates and time range of the training data."""
    parameters: int
    steps: int
    refit: bool = False
    """Trained anew on train + validation for `steps` steps; without a report of
    `evaluate`, `metrics` are the validation metrics of the model before that."""
    seed: int


def served_inputs(dataset: DatasetSpec) -> tuple[ServedInput, ...]:
    """The inputs of the served model, from the data specification alone."""
    inputs: list[ServedInput] = []
    for feature in dataset.features:
        match feature.kind:
            case "categorical":
                inputs.append(
                    ServedInput(
                        name=feature.name, dtype="string", column=feature.source
                    )
                )
            case "numeric":
                inputs.append(
                    ServedInput(name=feature.name, dtype="float", column=feature.source)
                )
            case "time":
                inputs.append(
                    ServedInput(name=feature.name, dtype="int64", column=feature.source)
                )
            case "multivalent":
                inputs.append(
                    ServedInput(
                        name=feature.name,
                        dtype="string",
                        shape="list",
                        size=feature.max_length,
                        keep=str(Kept("first", feature.max_length, feature.name)),
                        column=feature.source,
                    )
                )
            case "sequence":
                decides = f"{feature.name}_{feature.columns[0].name}"
                inputs += [
                    ServedInput(
                        name=f"{feature.name}_{c.name}",
                        dtype="string" if c.boundaries is None else "float",
                        shape="list",
                        size=feature.max_length,
                        keep=str(Kept("last", feature.max_length, decides)),
                        column=c.source,
                    )
                    for c in feature.columns
                ]
            case "vector" if feature.table is None:
                inputs.append(
                    ServedInput(
                        name=feature.name,
                        dtype="float",
                        shape="vector",
                        size=feature.size,
                        column=feature.source,
                    )
                )
            case _:
                pass
    if dataset.scenario is not None:
        inputs.append(
            ServedInput(name="scenario", dtype="string", column=dataset.scenario.column)
        )
    return tuple(inputs)


def read_dataset(directory: str | pathlib.Path) -> DatasetManifest:
    """Reads `dataset.json`.

    Raises:
        DataError: The folder is no (complete) dataset directory.
    """
    return _read(DatasetManifest, pathlib.Path(directory) / DATASET_FILE, "dataset")


def read_export(directory: str | pathlib.Path) -> ExportManifest:
    """Reads `tfmtl.json` of one version of an exported model.

    Raises:
        DataError: The folder is no exported version.
    """
    return _read(ExportManifest, pathlib.Path(directory) / EXPORT_FILE, "model")


def file_digest(path: str | pathlib.Path) -> str:
    """BLAKE2b of a file, 16 bytes in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return digest.hexdigest()


def content_id(digests: Mapping[str, str]) -> str:
    """The `content_id` of a data set.

    Args:
        digests: Path, relative to the dataset directory, to a digest of what the file
            holds: `file_digest`, or the rows' where the bytes of equal rows may differ.

    Returns:
        BLAKE2b over the sorted pairs, 16 bytes in hexadecimal.
    """
    lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(digests.items()))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def write_manifest(manifest: Spec, path: pathlib.Path) -> None:
    """Writes a manifest as indented JSON, whole or not at all."""
    atomic_write(path, manifest.model_dump_json(indent=1) + "\n")


_Manifest = TypeVar("_Manifest", bound=Spec)


def _read(kind: type[_Manifest], path: pathlib.Path, what: str) -> _Manifest:
    try:
        text = path.read_text()
    except OSError as error:
        raise DataError(
            f"`{what}` must be a {what} directory with a {path.name}. Received: "
            f"{str(path.parent)!r} ({error.strerror or error})"
        ) from error
    try:
        return kind.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise DataError(
            f"{str(path)!r} is damaged or from another version of tfmtl: "
            f"{error.error_count()} errors, the first: {error.errors()[0]['msg']} at "
            f"{'.'.join(str(p) for p in error.errors()[0]['loc'])}"
        ) from error
