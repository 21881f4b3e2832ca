"""What every architecture must keep, as tests to inherit.

    class TestMine(ModelConformance):
        model = MyModel
        config = {"units": [8]}

Run by pytest, which finds the inherited methods. The data are the tiny data set's 300
training rows; everything is small enough for a fraction of a minute per architecture.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic

from tfmtl import build
from tfmtl._keras import keras, tf
from tfmtl.balance import BalancerConfig, Equal, TaskInfo
from tfmtl.data.read import Batch, Reader
from tfmtl.data.sampling import SamplingReader
from tfmtl.layers.embedding import FeatureEmbedding
from tfmtl.losses import TaskLosses
from tfmtl.models.base import MultiTaskModel
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec, RegularizationSpec
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.samples import SampleSpec
from tfmtl.testing.tiny import tiny_dataset, tiny_spec
from tfmtl.training.trainer import Trainer, forward

BATCH = 64


@dataclasses.dataclass(frozen=True)
class _Tiny:
    """The tiny data set, once a process."""

    directory: pathlib.Path
    manifest: DatasetManifest
    batch: Batch
    keep: Any = dataclasses.field(repr=False)

    def reader(
        self, batch_size: int = BATCH, samples: SampleSpec | None = None
    ) -> Reader:
        read = (self.directory, self.manifest, ("train",), batch_size)
        return SamplingReader(*read, samples=samples) if samples else Reader(*read)


@functools.cache
def _tiny(changes: str = "{}") -> _Tiny:
    keep = tempfile.TemporaryDirectory(prefix="tfmtl-conformance-")
    directory = pathlib.Path(keep.name)
    manifest = tiny_dataset(directory, spec=tiny_spec(**json.loads(changes)))
    reader = Reader(directory, manifest, ("train",), 1000)
    return _Tiny(directory, manifest, next(iter(reader.epoch())), keep)


def _rows(features: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    return {k: tf.gather(v, rows) for k, v in features.items()}


def _close(left: Mapping[str, Any], right: Mapping[str, Any], **tolerance: Any) -> None:
    assert set(left) == set(right)
    for name in left:
        np.testing.assert_allclose(
            left[name],
            right[name],
            err_msg=name,
            **{"rtol": 1e-5, "atol": 1e-6} | tolerance,
        )


def _differ(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return any(np.abs(left[n] - right[n]).max() > 1e-7 for n in left)


class ModelConformance:
    """The tests. A subclass says which model.

    Attributes:
        model: The class under test.
        config: Settings small enough for a test.
        dataset: Parts of the tiny data set's specification to replace, such as `tasks`
            for a model that needs a funnel; labels are click, like and buy.
        renamed: Settings that name tasks, for the test on the three independent tasks
            click, click_long and long.
        gates: Names in `inspect()` of weights [..., E] that sum to 1 over E.
        fixed_start: Parts of names of variables whose start the paper sets, such as
            gates of zeros; all others follow the seed and differ from their siblings.
        has_dropout: Whether there is a layer that `dropout` acts on; where not, the
            Config must refuse it.
        unknown_scenario: What a row of an unknown scenario gets. `embedding`: the
            scenario is read through its embedding alone, so the answer is that of the
            mean embedding; `mean_logit`: the mean of the known scenarios' logits;
            `centre`: what is shared, and nothing of a scenario's own; `finite`: any
            number.
    """

    model: ClassVar[type[MultiTaskModel]]
    config: ClassVar[dict[str, Any]] = {}
    dataset: ClassVar[dict[str, Any]] = {}
    renamed: ClassVar[dict[str, Any]] = {}
    gates: ClassVar[tuple[str, ...]] = ()
    fixed_start: ClassVar[tuple[str, ...]] = ()
    has_dropout: ClassVar[bool] = True
    unknown_scenario: ClassVar[
        Literal["embedding", "mean_logit", "centre", "finite"]
    ] = "embedding"

    # === Parts ===

    @classmethod
    def tiny(cls) -> _Tiny:
        """The data the model is tested on."""
        return _tiny(json.dumps(cls.dataset, sort_keys=True))

    @classmethod
    def training_reader(cls, batch_size: int = BATCH) -> Reader:
        """Batches to train on, with what the model asks to be drawn."""
        config = cls.model.Config.model_validate(cls.config)
        samples = cls.model.samples(cls.tiny().manifest, config)
        return cls.tiny().reader(batch_size, samples)

    @classmethod
    def make(
        cls,
        seed: int = 3,
        manifest: DatasetManifest | None = None,
        regularization: RegularizationSpec | None = None,
        **changes: Any,
    ) -> Any:
        """A new model with its variables created."""
        manifest = manifest or cls.tiny().manifest
        config = cls.model.Config.model_validate({**cls.config, **changes})
        regularization = regularization or RegularizationSpec(embedding_std=0.3)
        model = cls.model(
            manifest, config, seed=seed, regularization=regularization, name="model"
        )
        model(build.empty_features(manifest))
        return model

    @classmethod
    def shared(cls) -> Any:
        """One model for the tests that leave its variables alone.

        A call in training mode does not: it may move statistics.
        """
        if "_shared" not in cls.__dict__:
            cls._shared = cls.make()  # type: ignore[attr-defined]
        return cls._shared  # type: ignore[attr-defined]

    @classmethod
    def stirred(cls) -> Any:
        """One model with every variable moved off its start.

        A weight that starts at 0 by design (a gate that starts at 1) keeps those below
        it from learning in the first step, and a gate flat; not for ever.
        """
        if "_stirred" not in cls.__dict__:
            model = cls.make()
            draw = np.random.default_rng(0)
            for variable in model.trainable_variables:
                variable.assign_add(draw.normal(0, 0.1, variable.shape))
            cls._stirred = model  # type: ignore[attr-defined]
        return cls._stirred  # type: ignore[attr-defined]

    @staticmethod
    def losses(model: Any) -> TaskLosses:
        """The losses of a model's tasks."""
        return TaskLosses(
            model.tasks, {t.name: model.trained_output(t) for t in model.tasks}
        )

    @classmethod
    def gradients(cls, model: Any) -> list[Any]:
        """Gradients of the summed losses over all rows."""
        batch = next(iter(cls.training_reader(1000).epoch()))
        with tf.GradientTape() as tape:
            losses, _, penalty = forward(model, cls.losses(model), batch)
            total = tf.reduce_sum(losses) + penalty
        return list(tape.gradient(total, model.trainable_variables))

    # === Construction ===

    def test_config_round_trip(self) -> None:
        config = self.model.Config.model_validate(self.config)
        text = json.dumps(config.model_dump(mode="json"))
        assert self.model.Config.model_validate_json(text) == config
        try:
            self.model.Config.model_validate({**self.config, "no_such_setting": 1})
        except pydantic.ValidationError:
            return
        raise AssertionError("the Config accepts a setting that does not exist")

    def test_says_what_it_is(self) -> None:
        assert self.model.citation
        assert (self.model.__doc__ or "").strip()

    def test_every_output_is_a_finite_float32_logit(self) -> None:
        outputs = self.shared()(self.tiny().batch.features)
        wanted = {n for t in self.shared().tasks for n in (t.name, t.conditional)}
        assert set(outputs) == wanted
        for name, value in outputs.items():
            assert value.dtype == tf.float32, name
            assert value.shape == [300], name
            assert np.isfinite(value).all(), name

    def test_one_seed_repeats_and_two_differ(self) -> None:
        first, again, other = self.shared(), self.make(), self.make(seed=4)
        assert [v.name for v in first.variables] == [v.name for v in again.variables]
        for a, b in zip(first.trainable_variables, again.trainable_variables):
            np.testing.assert_array_equal(a, b, err_msg=a.name)
        for a, b in zip(first.trainable_variables, other.trainable_variables):
            fixed = any(n in a.name for n in self.fixed_start)
            if np.ptp(a.numpy()) > 0 and a.shape.rank > 1 and not fixed:
                assert np.abs(a - b).max() > 0, a.name

    def test_members_start_different(self) -> None:
        kernels: dict[tuple[int, ...], list[np.ndarray]] = {}
        by_design = ("bias", *self.fixed_start)
        for variable in self.shared().trainable_variables:
            value = variable.numpy()
            if value.ndim >= 2 and not any(n in variable.name for n in by_design):
                for member in value.reshape(-1, *value.shape[-2:]):
                    kernels.setdefault(member.shape, []).append(member)
        for members in kernels.values():
            for i, a in enumerate(members):
                for b in members[:i]:
                    assert np.abs(a - b).max() > 0, f"two of shape {a.shape} are equal"

    def test_groups_partition_the_trainable_variables(self) -> None:
        model = self.shared()
        grouped = [v.ref() for vs in model.variable_groups().values() for v in vs]
        assert len(grouped) == len(set(grouped))
        assert set(grouped) == {v.ref() for v in model.trainable_variables}

    # === Rows ===

    def test_permuting_rows_permutes_outputs(self) -> None:
        features = self.tiny().batch.features
        order = np.random.default_rng(0).permutation(300)
        whole = {k: v.numpy()[order] for k, v in self.shared()(features).items()}
        _close(self.shared()(_rows(features, order)), whole)

    def test_batch_of_one(self) -> None:
        features = self.tiny().batch.features
        whole = self.shared()(features)
        for row in (0, 17, 299):
            alone = self.shared()(_rows(features, [row]))
            _close(alone, {k: v[row : row + 1] for k, v in whole.items()})

    def test_batch_without_a_scenario(self) -> None:
        features = self.tiny().batch.features
        whole = self.shared()(features)
        for scenario in range(4):
            rows = np.flatnonzero(features["scenario"] != scenario)
            part = self.shared()(_rows(features, rows))
            _close(part, {k: v.numpy()[rows] for k, v in whole.items()})

    def test_unknown_scenario(self) -> None:
        features = dict(self.tiny().batch.features)
        model = self.make()
        count = len(model.manifest.dataset.scenario_values)
        features["scenario"] = tf.fill([300], count)
        unknown = model(features)
        assert all(np.isfinite(v).all() for v in unknown.values())
        if self.unknown_scenario == "mean_logit":
            known = []
            for scenario in range(count):
                features["scenario"] = tf.fill([300], scenario)
                known.append(model(features))
            for task in model.tasks:
                name = task.conditional
                mean = np.mean([k[name] for k in known], axis=0)
                np.testing.assert_allclose(unknown[name], mean, rtol=1e-5, atol=1e-6)
        elif self.unknown_scenario == "embedding":
            for table in _scenario_tables(model):
                mean = tf.reduce_mean(table, axis=0, keepdims=True)
                table.assign(tf.repeat(mean, table.shape[0], axis=0))
            features["scenario"] = tf.zeros([300], tf.int32)
            _close(model(features), unknown)
        elif self.unknown_scenario == "centre":
            features["scenario"] = tf.zeros([300], tf.int32)
            known = model(features)
            own = [
                v
                for group, variables in model.variable_groups().items()
                if group.partition("/")[0] in ("scenario", "cell")
                for v in variables
            ]
            draw = np.random.default_rng(0)
            for variable in own:
                variable.assign_add(draw.normal(0, 0.3, variable.shape))
            assert _differ(model(features), known), "no scenario has parts of its own"
            features["scenario"] = tf.fill([300], count)
            _close(model(features), unknown, rtol=0, atol=0)

    def test_reads_features_only(self) -> None:
        batch = self.tiny().batch
        nothing = tf.fill([300], float("nan"))
        more = {f"label/{t.name}": nothing for t in self.shared().tasks}
        with_labels = self.shared()({**batch.features, **more})
        _close(with_labels, self.shared()(batch.features), rtol=0, atol=0)

    # === Tasks ===

    def test_names_with_one_prefix_are_not_confused(self) -> None:
        names = ("click", "click_long", "long")
        tasks = [{"name": n, "label": n} for n in names]
        manifest = self.tiny().manifest.model_copy(
            update={"dataset": tiny_spec(**{**self.dataset, "tasks": tasks})}
        )
        model = self.make(manifest=manifest, **self.renamed)
        groups = model.variable_groups()
        with tf.GradientTape() as tape:
            outputs = model(self.tiny().batch.features)
            total = tf.reduce_sum(outputs["click"])
        flat = [(g, v) for g, vs in groups.items() for v in vs]
        gradients = tape.gradient(total, [v for _, v in flat])
        reached = {g for (g, _), d in zip(flat, gradients) if _nonzero(d)}
        owned = [g for g in groups if g.rpartition("/")[2] in names and "/" in g]
        assert any(g.endswith("/click_long") for g in owned)
        for group in owned:
            assert (group in reached) == group.endswith("/click"), group

    def test_a_tasks_own_variables_are_reached_by_its_loss_alone(self) -> None:
        model = self.stirred()
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(self.tiny().batch.features)
            read = {
                t.name: tf.reduce_sum(outputs[model.trained_output(t)])
                for t in model.tasks
            }
        for group, variables in model.variable_groups().items():
            kind, _, owner = group.partition("/")
            if kind not in ("task", "gate", "cell"):
                continue
            for task, value in read.items():
                gradients = tape.gradient(value, variables)
                reached = any(_nonzero(g) for g in gradients)
                assert reached == (owner.rpartition("/")[2] == task), (group, task)

    def test_permuting_tasks_permutes_outputs(self) -> None:
        manifest = self.tiny().manifest
        tasks = manifest.dataset.tasks
        reversed_spec = manifest.dataset.model_copy(update={"tasks": tasks[::-1]})
        other = self.make(
            seed=9, manifest=manifest.model_copy(update={"dataset": reversed_spec})
        )
        by_name = {v.name: v for v in self.shared().trainable_variables}
        assert len(by_name) == len(self.shared().trainable_variables)
        assert {v.name for v in other.trainable_variables} == set(by_name)
        features = self.tiny().batch.features
        assert _differ(other(features), self.shared()(features))
        for variable in other.trainable_variables:
            variable.assign(by_name[variable.name])
        _close(other(features), self.shared()(features))

    # === Gradients ===

    def test_every_variable_learns(self) -> None:
        model = self.stirred()
        for variable, gradient in zip(model.trainable_variables, self.gradients(model)):
            assert gradient is not None, f"{variable.name} has no gradient"
            assert _nonzero(gradient), f"{variable.name} has gradient 0"

    def test_embedding_gradients_are_sparse(self) -> None:
        model = self.stirred()
        gradient = {
            v.ref(): g for v, g in zip(model.trainable_variables, self.gradients(model))
        }
        groups = model.variable_groups()
        tables = [
            v
            for g, vs in groups.items()
            if g.partition("/")[0] == "embedding"
            for v in vs
        ]
        assert tables
        for table in tables:
            assert isinstance(gradient[table.ref()], tf.IndexedSlices), table.name

    def test_loss_falls_with_one_trace(self) -> None:
        model = self.make()
        trainer = Trainer(
            model,
            self.losses(model),
            Equal(TaskInfo(model.manifest.dataset.task_names), BalancerConfig()),
            OptimizerGroups(
                {"default": OptimizerSpec(learning_rate=0.02)},
                model.variable_groups(),
                20,
            ),
        )
        before = self._loss(model)
        for _ in range(4):  # batches of 64, 64, 64, 64, 44
            iterator = iter(self.training_reader().epoch())
            for steps in (2, 3):
                sums = trainer.train_chunk(iterator, tf.constant(steps, tf.int64))
                assert int(sums.steps) == steps
                assert bool(sums.finite)
        assert trainer.train_chunk.experimental_get_tracing_count() == 1
        assert int(model.step) == 20
        after = self._loss(model)
        assert after < 0.97 * before, f"loss {before} -> {after}"

    @classmethod
    def _loss(cls, model: Any) -> float:
        batch = cls.tiny().batch
        losses, _ = cls.losses(model)(
            model(batch.features), batch.labels, batch.mask, batch.weights
        )
        return float(tf.reduce_sum(losses))

    # === Randomness ===

    def test_dropout_acts_in_training_only(self) -> None:
        features = self.tiny().batch.features
        rate: dict[str, Any] = {"dropout": 0.5}
        if not self.has_dropout:
            try:
                self.make(**rate)
            except pydantic.ValidationError:
                return
            raise AssertionError("the Config accepts a dropout that nothing reads")
        model, twin = self.make(**rate), self.make(**rate)
        _close(model(features), self.shared()(features))
        first = model(features, training=True)
        assert _differ(first, model(features))
        _close(model(features, training=True), first, rtol=0, atol=0)
        _close(twin(features, training=True), first, rtol=0, atol=0)
        model.step.assign(1)
        assert _differ(model(features, training=True), first)
        model.step.assign(0)
        _close(model(features, training=True), first, rtol=0, atol=0)

    def test_gates_sum_to_one_and_follow_the_input(self) -> None:
        model = self.stirred()
        model(self.tiny().batch.features)
        found = {k: v for k, v in model.inspect().items() if k.endswith("gates")}
        assert set(found) == set(self.gates)
        for name, value in found.items():
            np.testing.assert_allclose(
                tf.reduce_sum(value, axis=-1), 1, rtol=1e-5, err_msg=name
            )
            assert (value.numpy() >= 0).all(), name
            assert value.numpy().std(axis=0).max() > 1e-4, f"{name} ignores its input"

    # === Storage and precision ===

    def test_checkpoint_restores_outputs(self, tmp_path: pathlib.Path) -> None:
        features = self.tiny().batch.features
        path = tf.train.Checkpoint(model=self.shared()).write(str(tmp_path / "state"))
        other = self.make(seed=8)
        assert _differ(other(features), self.shared()(features))
        tf.train.Checkpoint(model=other).read(path).assert_consumed()
        _close(other(features), self.shared()(features), rtol=0, atol=0)

    def test_saved_model_predicts_the_same(self, tmp_path: pathlib.Path) -> None:
        features = self.tiny().batch.features
        signature = {
            k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in features.items()
        }
        module, model = tf.Module(), self.shared()
        module.predict = tf.function(
            lambda x: model(x, training=False),
            input_signature=[signature],
            autograph=False,
        )
        # The variables alone: of a Keras model, every layer would be traced again.
        module.read = list(module.predict.get_concrete_function().variables)
        tf.saved_model.save(module, str(tmp_path / "saved"))
        loaded = tf.saved_model.load(str(tmp_path / "saved"))
        for rows in (np.arange(300), [5]):
            part = _rows(features, rows)
            _close(loaded.predict(part), self.shared()(part))

    def test_bfloat16_answers_in_float32(self) -> None:
        policy = keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            model = self.make()
        finally:
            keras.mixed_precision.set_global_policy(policy)
        assert all(v.dtype == tf.float32 for v in model.trainable_variables)
        outputs = model(self.tiny().batch.features)
        assert all(v.dtype == tf.float32 for v in outputs.values())
        # 8 bits of mantissa: a few per cent of logits of about 1.
        _close(outputs, self.shared()(self.tiny().batch.features), rtol=0.1, atol=0.1)
        assert _differ(outputs, self.shared()(self.tiny().batch.features))
        for variable, gradient in zip(model.trainable_variables, self.gradients(model)):
            values = tf.convert_to_tensor(gradient)
            assert values.dtype == tf.float32, variable.name
            assert np.isfinite(values).all(), variable.name


def _nonzero(gradient: Any) -> bool:
    if gradient is None:
        return False
    return bool(tf.reduce_any(tf.convert_to_tensor(gradient) != 0))


def _scenario_tables(model: Any) -> list[Any]:
    layers = [m for m in model.submodules if isinstance(m, FeatureEmbedding)]
    found = [
        v
        for layer in layers
        for v in layer.trainable_variables
        if v.name.rpartition("/")[2] == "scenario:0"
    ]
    assert len(found) == len(layers), "no scenario embedding found"
    return found
