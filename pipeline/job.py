"""The job itself: three Beam pipelines over one scratch folder, and the manifest.

1. ingest: read, validate, shuffle into shards by a stable hash, drop duplicates;
2. analyse: split boundaries are known now, so learn from the training rows only;
3. write: transform the shards with the saved graph and write TFRecords.

After each pipeline the rows are counted. A runner that loses rows fails the job.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import fn_runner

import tfmtl
from pipeline import (
    leakage,
    plan,
    sampling,
    side_tables,
    sources,
    split,
    stages,
    statistics,
    transform,
    vocabulary,
    workspace,
)
from pipeline.sinks import Cells, Written
from tfmtl.errors import DataError
from tfmtl.progress import Listener
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import NumericFeature
from tfmtl.schema.manifest import (
    DATASET_FILE,
    DatasetManifest,
    RecordFile,
    RowCounts,
    SamplingStats,
    SplitStats,
    VocabularyStats,
    content_id,
    file_digest,
    write_manifest,
)
from tfmtl.schema.split import SPLITS, TimeSplit

_SHARD_ROWS = 1 << 16
_MAX_SHARDS = 1024
_PACKAGES = ("tensorflow", "tensorflow-transform", "apache-beam", "pyarrow", "numpy")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the job writes and runs.

    Attributes:
        layout: `blocks` or `rows`.
        compression: `none` or `gzip`.
        block_rows: Rows of a block.
        shards: Files of a split; chosen by size where None.
        beam_args: Options of Beam.
    """

    layout: str
    compression: str
    block_rows: int
    shards: int | None
    beam_args: tuple[str, ...]


@dataclasses.dataclass
class _Ingested:
    read: int
    rejected: dict[str, int]
    shards: list[stages.ShardReport]

    @property
    def duplicates(self) -> int:
        return sum(s.duplicates for s in self.shards)


@dataclasses.dataclass
class _Analysed:
    learnt: transform.Learnt
    values: dict[str, tuple[str, ...]]
    warnings: list[str]
    splits: tuple[int, ...]
    """Rows by code of split."""
    sampling: SamplingStats | None


class Job:
    """One run over one data specification into one (partial) directory."""

    def __init__(
        self,
        dataset: DatasetSpec,
        settings: Settings,
        directory: pathlib.Path,
        work: pathlib.Path,
        listener: Listener,
    ) -> None:
        self._dataset = dataset
        self._settings = settings
        self._directory = directory
        self._work = work
        self._listener = listener

    def run(self, inputs: Sequence[str]) -> DatasetManifest:
        """Runs the three pipelines and writes the manifest.

        Raises:
            DataError: A file is damaged, a split is empty, or a row is lost.
        """
        side_tables.check(self._dataset)
        self._listener.stage("inspect input")
        found = sources.inspect(
            sources.resolve(inputs), plan.raw_columns(self._dataset)
        )
        ingested = self._ingest(found)
        rule = self._rule(ingested)
        analysed = self._analyse(ingested, rule)
        written = self._write(ingested, rule)
        return self._finish(ingested, analysed, written)

    def _ingest(self, found: sources.Inputs) -> _Ingested:
        shards = self._settings.shards or min(
            _MAX_SHARDS, max(1, math.ceil(found.rows / _SHARD_ROWS))
        )
        histogram = isinstance(self._dataset.split, TimeSplit)
        self._listener.stage("read and shuffle", found.rows)

        def build(root: beam.Pipeline) -> None:
            units = root | "units" >> beam.Create(found.units, reshuffle=False)
            out = (
                units
                | "spread" >> beam.Reshuffle()
                | "ingest"
                >> beam.ParDo(stages.Ingest(self._dataset, shards)).with_outputs(
                    stages.REPORT, stages.REJECTED, main="rows"
                )
            )
            stages.save(out[stages.REPORT], "units", self._work)
            rejected = (
                out[stages.REJECTED]
                | "rejected" >> beam.GroupByKey()
                | "write rejected"
                >> beam.ParDo(stages.WriteRejected(str(self._directory / "rejected")))
            )
            stages.save(rejected, "rejected", self._work)
            writer = stages.WriteShard(
                self._dataset, str(self._work / "shards"), histogram
            )
            written = (
                out["rows"]
                | "shards" >> beam.GroupByKey()
                | "write shards" >> beam.ParDo(writer)
            )
            stages.save(written, "shards", self._work)

        self._run(build)
        return self._count_ingested(found)

    def _count_ingested(self, found: sources.Inputs) -> _Ingested:
        reports: list[stages.UnitReport] = self._load("units")
        errors = sorted({r.error for r in reports if r.error is not None})
        if errors:
            raise DataError(errors[0])
        expected = {(u.file, u.first_row): u for u in found.units}
        seen = [(r.file, r.first_row) for r in reports]
        _same("units of input", len(expected), len(seen), self._settings)
        _same("units of input", len(expected), len(set(seen)), self._settings)
        for report in reports:
            rows = expected[report.file, report.first_row].rows
            if rows is not None:
                path = expected[report.file, report.first_row].path
                _same(f"rows of {path!r}", rows, report.read, self._settings)
        rejected: dict[str, int] = {}
        for report in reports:
            for reason, count in report.rejected.items():
                rejected[reason] = rejected.get(reason, 0) + count
        shards = sorted(self._load("shards"), key=lambda s: s.shard)
        result = _Ingested(sum(r.read for r in reports), rejected, shards)
        kept = sum(r.kept for r in reports)
        _same("rows read", result.read, kept + sum(rejected.values()), self._settings)
        dead = sum(self._load("rejected"))
        _same("rejected rows", sum(rejected.values()), dead, self._settings)
        received = sum(s.received for s in shards)
        _same("rows in the shuffle", kept, received, self._settings)
        if result.read == 0:
            raise DataError("`input` holds no rows")
        if kept == 0:
            raise DataError(
                f"all {result.read} rows were rejected; reasons: {_largest(rejected)}"
            )
        self._listener.advance(result.read)
        return result

    def _rule(self, ingested: _Ingested) -> split.TimeRule | None:
        times = np.concatenate([s.times for s in ingested.shards])
        counts = np.concatenate([s.counts for s in ingested.shards])
        distinct, where = np.unique(times, return_inverse=True)
        total = np.zeros(len(distinct), np.int64)
        np.add.at(total, where, counts)
        # Beam would pickle the histograms into each following pipeline, many times.
        none = np.zeros(0, np.int64)
        ingested.shards = [
            dataclasses.replace(s, times=none, counts=none) for s in ingested.shards
        ]
        return split.time_rule(self._dataset, distinct, total)

    def _analyse(self, ingested: _Ingested, rule: split.TimeRule | None) -> _Analysed:
        rows = sum(s.rows for s in ingested.shards)
        self._listener.stage("learn vocabularies and statistics", rows)
        sample = math.ceil(leakage.SAMPLE_ROWS / len(ingested.shards))

        def build(root: beam.Pipeline) -> None:
            out = (
                root
                | "shards" >> beam.Create(ingested.shards, reshuffle=False)
                | "spread" >> beam.Reshuffle()
                | "analyse"
                >> beam.ParDo(stages.Analyse(self._dataset, rule, sample)).with_outputs(
                    stages.VOCABULARY, main="report"
                )
            )
            stages.save(out["report"], "analysis", self._work)
            counted = (
                out[stages.VOCABULARY]
                | "values" >> beam.GroupByKey()
                | "combine" >> beam.ParDo(stages.CombineVocabulary(self._dataset))
            )
            stages.save(counted, "vocabularies", self._work)

        self._run(build)
        reports: list[stages.AnalysisReport] = sorted(
            self._load("analysis"), key=lambda r: r.shard
        )
        _same("shards", len(ingested.shards), len(reports), self._settings)
        sizes = np.sum([r.splits for r in reports], axis=0)
        _same("rows analysed", rows, int(sizes.sum()), self._settings)
        warnings = split.check_sizes(
            self._dataset, [int(n) for n in sizes[:3]], int(sizes[plan.DROPPED])
        )
        values, stats, more = self._vocabularies()
        learnt, constant = self._learnt(reports, stats)
        warnings += more + constant
        sampled = pa.concat_tables([vocabulary.from_bytes(r.sample) for r in reports])
        warnings += leakage.find(self._dataset, sampled)
        counted, more = sampling.finish(self._dataset, [r.sampled for r in reports])
        warnings += more
        transform.write(self._dataset, learnt, self._directory / "transform")
        self._listener.advance(rows)
        splits = tuple(int(n) for n in sizes)
        return _Analysed(learnt, values, warnings, splits, counted)

    def _vocabularies(
        self,
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, VocabularyStats], list[str]]:
        """Values and sizes of all vocabularies; the learnt ones as files."""
        parts: dict[str, list[tuple[bytes, int, int]]] = {}
        for name, *part in self._load("vocabularies"):
            parts.setdefault(name, []).append(tuple(part))
        values: dict[str, tuple[str, ...]] = {}
        stats: dict[str, VocabularyStats] = {}
        warnings: list[str] = []
        folder = self._directory / "vocabulary"
        folder.mkdir()
        learnt = plan.learnt_vocabularies(self._dataset)
        for name in {u.vocabulary: None for u in plan.vocabulary_uses(self._dataset)}:
            spec = self._dataset.vocabulary(name)
            if name not in learnt:
                stats[name] = vocabulary.hashed_stats(spec)
                continue
            found = parts.get(name, [])
            result = vocabulary.finish(
                spec,
                [p[0] for p in found],
                sum(p[1] for p in found),
                sum(p[2] for p in found),
            )
            text = "".join(f"{v}\n" for v in result.values)
            (folder / vocabulary.file_name(name)).write_bytes(text.encode())
            values[name], stats[name] = result.values, result.stats
            if not result.values:
                warnings.append(f"vocabulary {name!r} holds no value")
            if result.unwritable:
                warnings.append(
                    f"vocabulary {name!r} leaves out {result.unwritable} value(s) with "
                    "a line break; they are unknown values"
                )
        return values, stats, warnings

    def _learnt(
        self,
        reports: Sequence[stages.AnalysisReport],
        stats: dict[str, VocabularyStats],
    ) -> tuple[transform.Learnt, list[str]]:
        folder = self._directory / "vocabulary"
        names = plan.learnt_vocabularies(self._dataset)
        files = {n: str(folder / vocabulary.file_name(n)) for n in names}
        means: dict[str, float] = {}
        stds: dict[str, float] = {}
        boundaries: dict[str, list[float]] = {}
        warnings: list[str] = []
        for feature in self._dataset.features:
            if not isinstance(feature, NumericFeature):
                continue
            if feature.boundaries is not None:
                boundaries[feature.name] = list(feature.boundaries)
                continue
            parts: list[Any] = [r.numeric[feature.name] for r in reports]
            if feature.transform == "bucketize":
                merged = statistics.Quantiles.merged(parts)
                boundaries[feature.name] = merged.boundaries(feature.buckets or 2)
                continue
            moments = statistics.merge_moments(parts)
            # Rounding leaves a constant column a spread of about 1e-16 of its size.
            constant = moments.std <= 1e-12 * abs(moments.mean)
            means[feature.name] = moments.mean
            stds[feature.name] = 1.0 if constant else moments.std
            if constant:
                what = "constant" if moments.count else "always missing"
                warnings.append(
                    f"numeric feature {feature.name!r} is {what} in the training split"
                )
        return transform.Learnt(files, stats, means, stds, boundaries), warnings

    def _write(
        self, ingested: _Ingested, rule: split.TimeRule | None
    ) -> list[stages.WriteReport]:
        rows = sum(s.rows for s in ingested.shards)
        self._listener.stage("transform and write", rows)
        writer = stages.WriteRecords(
            self._dataset,
            rule,
            str(self._directory),
            self._settings.layout,
            self._settings.compression,
            self._settings.block_rows,
        )

        def build(root: beam.Pipeline) -> None:
            written = (
                root
                | "shards" >> beam.Create(ingested.shards, reshuffle=False)
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.ParDo(writer)
            )
            stages.save(written, "written", self._work)

        self._run(build)
        reports: list[stages.WriteReport] = sorted(
            self._load("written"), key=lambda r: r.shard
        )
        _same("shards", len(ingested.shards), len(reports), self._settings)
        for shard, report in zip(ingested.shards, reports):
            out = report.dropped + report.sampled_out
            out += sum(f.rows for f in report.files)
            _same(f"rows of shard {shard.shard}", shard.rows, out, self._settings)
            for file in report.files:
                size = os.path.getsize(file.path)
                if file.size:
                    _same(f"bytes of {file.path!r}", file.size, size, self._settings)
        self._listener.advance(rows)
        return reports

    def _finish(
        self,
        ingested: _Ingested,
        analysed: _Analysed,
        reports: Sequence[stages.WriteReport],
    ) -> DatasetManifest:
        files, warnings = side_tables.write(
            self._dataset, analysed.values, analysed.learnt.stats, self._directory
        )
        written = [f for r in reports for f in r.files]
        counts = RowCounts(
            read=ingested.read,
            written=sum(f.rows for f in written),
            rejected=sum(ingested.rejected.values()),
            duplicates=ingested.duplicates,
            dropped=sum(r.dropped for r in reports),
            sampled_out=sum(r.sampled_out for r in reports),
        )
        if not counts.balanced:
            raise DataError(
                "read = written + rejected + duplicates + dropped + sampled_out must "
                f"hold. Received: {counts}"
            )
        self._same_splits(analysed, written, counts.sampled_out)
        digests = self._fitted_digests()
        splits = {
            name: self._split_stats(
                name, [f for f in written if f.split == code], digests
            )
            for code, name in enumerate(SPLITS)
        }
        train = {"sampled_out": counts.sampled_out}
        splits["train"] = splits["train"].model_copy(update=train)
        manifest = DatasetManifest(
            tfmtl_version=tfmtl.__version__,
            versions={p: importlib.metadata.version(p) for p in _PACKAGES},
            schema_hash=self._dataset.fingerprint(),
            content_id=content_id(digests),
            dataset=self._dataset,
            layout=self._settings.layout,
            compression=self._settings.compression,
            block_rows=self._settings.block_rows,
            columns=plan.record_columns(
                self._dataset,
                dict(analysed.learnt.stats),
                dict(analysed.learnt.boundaries),
            ),
            vocabularies=dict(analysed.learnt.stats),
            side_tables=files,
            splits=splits,
            counts=counts,
            rejected=dict(sorted(ingested.rejected.items())),
            sampling=analysed.sampling,
            warnings=tuple(analysed.warnings + warnings),
        )
        write_manifest(manifest, self._directory / DATASET_FILE)
        for warning in manifest.warnings:
            self._listener.note(warning)
        return manifest

    def _same_splits(
        self, analysed: _Analysed, written: Sequence[Written], sampled_out: int
    ) -> None:
        """Both passes put as many rows into each split, and sampled as many out."""
        for code, name in enumerate(SPLITS):
            rows = sum(f.rows for f in written if f.split == code)
            _same(f"rows of {name}", analysed.splits[code], rows, self._settings)
        expected = analysed.splits[plan.SAMPLED_OUT]
        _same("rows sampled out", expected, sampled_out, self._settings)
        stats = analysed.sampling
        if stats is not None:
            left = stats.rows - stats.kept
            _same("rows sampled out", left, sampled_out, self._settings)

    def _fitted_digests(self) -> dict[str, str]:
        """Path to digest of the vocabularies and the side tables."""
        return {
            str(path.relative_to(self._directory)): file_digest(path)
            for pattern in ("vocabulary/*", "side/*")
            for path in self._directory.glob(pattern)
        }

    def _split_stats(
        self, name: str, written: Sequence[Written], digests: dict[str, str]
    ) -> SplitStats:
        """Gives the files of a split their final names, and adds up their counts.

        Args:
            name: Of the split.
            written: Its files.
            digests: Learns those of the files.
        """
        cells = Cells.empty(self._dataset)
        files = []
        suffix = ".tfrecord" + (".gz" if self._settings.compression == "gzip" else "")
        for index, file in enumerate(sorted(written, key=lambda f: f.shard)):
            path = f"{name}/part-{index:05d}-of-{len(written):05d}{suffix}"
            os.rename(file.path, self._directory / path)
            files.append(RecordFile(path=path, rows=file.rows, blocks=file.blocks))
            digests[path] = file.digest
            cells.merge(file.cells)
        known = self._dataset.scenario_values
        scenarios = (*known, "unknown") if known else ()
        return SplitStats(
            rows=sum(f.rows for f in files),
            files=tuple(files),
            tasks={t: cells.stats(t) for t in cells.labelled},
            scenarios={s: int(n) for s, n in zip(scenarios, cells.rows)},
            cells={
                t: {s: cells.stats(t, i) for i, s in enumerate(scenarios)}
                for t in (cells.labelled if known else ())
            },
            timestamp_min=cells.time_min,
            timestamp_max=cells.time_max,
        )

    def _run(self, build: Callable[[beam.Pipeline], None]) -> None:
        options = PipelineOptions(list(self._settings.beam_args))
        runner: Any = options.view_as(StandardOptions).runner
        if runner in (None, "DirectRunner", "SwitchingDirectRunner"):
            # Beam's default first tries to fetch and start another runner (Prism).
            runner = _local_runner(options)
        root = beam.Pipeline(runner=runner, options=options)
        build(root)
        root.run().wait_until_finish()

    def _load(self, name: str) -> Any:
        parts: Iterable[Any] = workspace.load(self._work / f"{name}.pickle")
        return list(parts)


def _local_runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """The in-process runner, with the options passed on to worker processes."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


def _same(what: str, expected: int, received: int, settings: Settings) -> None:
    if expected != received:
        raise DataError(
            f"the runner lost or repeated data: {what} must number {expected}. "
            f"Received: {received}. Nothing was written. Beam options: "
            f"{list(settings.beam_args)}"
        )


def _largest(rejected: dict[str, int]) -> str:
    top = sorted(rejected.items(), key=lambda item: -item[1])[:5]
    return "; ".join(f"{reason} ({count})" for reason, count in top)
