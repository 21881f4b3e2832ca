"""The training loop: chunks of steps, evaluations, checkpoints, and how it ends."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from tfmtl._keras import tf
from tfmtl.data.damage import damage_named
from tfmtl.data.read import Position, Reader
from tfmtl.errors import ConfigError, TrainingError
from tfmtl.failpoints import failpoint
from tfmtl.progress import Listener
from tfmtl.schema.experiment import TrainingSpec
from tfmtl.training.checkpoint import Checkpoints, Progress
from tfmtl.training.diagnostics import Diagnostics, write_scalars
from tfmtl.training.evaluation import SplitEvaluator
from tfmtl.training.rundir import RunDirectory
from tfmtl.training.trainer import Trainer
from tfmtl.training.watch import TaskWatch, is_better


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
        step: The chosen step: the best, or the last where nothing was monitored.
        value: The monitored metric there.
        steps: Steps done in all.
        reason: `epochs`, `steps` or `patience`.
        tasks: Task to its own best, see `watch.TaskWatch`.
    """

    step: int
    value: float | None
    steps: int
    reason: str
    tasks: dict[str, dict[str, Any]]


Watcher = Callable[[float, dict[str, float]], str]
"""Told the epochs done and the validation metrics of each evaluation; the reason to
stop there, or the empty string."""


class Interrupted(TrainingError):
    """Training was asked to stop (SIGTERM, Ctrl-C) and saved itself first."""

    exit_code = 130

    def __init__(self, step: int, signum: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name} after step {step}; a checkpoint "
            "was saved, continue with --resume"
        )
        self.exit_code = 128 + signum


class Loop:
    """Trains until patience, epochs or steps run out.

    Args:
        trainer: Model, losses, balancer, optimizers.
        reader: Of the training rows.
        evaluator: Of the validation rows; None trains blindly to the end (a refit).
        run: Where everything is written.
        spec: How long, how often.
        steps: Overrides the number of steps.
        diagnostics: Of the trainer, if traced already; made anew where None.
        watcher: May end training at an evaluation. Resumed, the run goes on from there.
        listener: Told about the progress.
    """

    def __init__(
        self,
        trainer: Trainer,
        reader: Reader,
        evaluator: SplitEvaluator | None,
        run: RunDirectory,
        spec: TrainingSpec,
        listener: Listener,
        steps: int | None = None,
        diagnostics: Diagnostics | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.trainer = trainer
        self.reader = reader
        self.evaluator = evaluator
        self.run = run
        self.spec = spec
        self.listener = listener
        self.per_epoch = reader.batches_per_epoch
        self.last_step = steps or spec.steps or spec.epochs * self.per_epoch
        self.evaluate_every = spec.evaluate_every or self.per_epoch
        self.checkpoint_every = spec.checkpoint_every or self.evaluate_every
        self.checkpoints = Checkpoints(run.checkpoints, trainer, spec.task_snapshots)
        self.watch = TaskWatch(trainer.model.tasks, trainer.control)
        self.diagnostics = diagnostics or Diagnostics(trainer)
        self.watcher = watcher
        self._stopped = ""
        self.progress = Progress()
        self._weights: Any = None
        self._signal: int | None = None
        self.signal: int | None = None
        """A signal that came when nothing was left to stop."""
        self._writer = tf.summary.create_file_writer(str(run.path / "tensorboard"))

    def fit(self, resume: bool = False) -> Outcome:
        """Trains to the end.

        Raises:
            TrainingError: A loss is not finite; the message names the batch.
            Interrupted: A signal came; everything was saved.
        """
        if resume:
            self.progress = self.checkpoints.restore() or Progress()
        # Without a checkpoint too: the trainer may have stopped tasks in another run.
        self.watch.restore(self.progress.tasks)
        self.run.cut_log(self.progress.metrics_bytes)
        self.listener.stage("train", self.last_step)
        self.listener.advance(self.progress.step)
        last = self.run.metrics_at(self.progress.step)
        if last:
            # It may have been killed after this evaluation, before it ended for it.
            self._watch(last)
        reason = self._over() or self._stale() or self._stopped
        self.progress.finished = bool(reason)
        with self._signals():
            while not self.progress.finished:
                reason = self._epoch()
        self.signal = self._signal
        step = self.progress.best_step
        assert step is not None
        done = self.progress
        return Outcome(step, done.best_value, done.step, reason, done.tasks)

    def _epoch(self) -> str:
        """From the current position to the end of the epoch, or of training."""
        progress = self.progress
        if progress.batch == self.per_epoch:
            progress.epoch, progress.batch = progress.epoch + 1, 0
        iterator = iter(self.reader.epoch(*Position(progress.epoch, progress.batch)))
        while progress.batch < self.per_epoch:
            self._chunk(iterator)
            if self.spec.diagnose_every and (
                progress.step % self.spec.diagnose_every == 0
            ):
                self._diagnose()
            evaluating = progress.step % self.evaluate_every == 0 or bool(self._over())
            if evaluating:
                self._check_variables()
                self._evaluate()
            reason = self._over() or self._stale() or self._stopped
            progress.finished = bool(reason)
            due = progress.step % self.checkpoint_every == 0
            # Read once: a signal that comes while this runs is for the next chunk.
            stopped_by = self._signal
            if due or progress.finished or stopped_by is not None:
                if not evaluating:
                    self._check_variables()
                self.checkpoints.save(progress)
            if progress.finished:
                return reason
            if stopped_by is not None:
                raise Interrupted(progress.step, stopped_by)
        return ""

    def _over(self) -> str:
        if self.progress.step < self.last_step:
            return ""
        return "steps" if self.spec.steps else "epochs"

    def _stale(self) -> str:
        if self.evaluator is None:
            return ""
        if self.watch.all_stopped(self.progress.tasks):
            return "patience"
        if self.spec.patience is None:
            return ""
        return "patience" if self.progress.stale >= self.spec.patience else ""

    def _chunk(self, iterator: Any) -> None:
        """Steps up to the next thing to do."""
        progress = self.progress
        marks = [self.spec.log_every, self.evaluate_every, self.checkpoint_every]
        marks += [self.spec.diagnose_every] if self.spec.diagnose_every else []
        steps = min(every - progress.step % every for every in marks)
        steps = min(
            steps,
            self.last_step - progress.step,
            self.per_epoch - progress.batch,
        )
        began = time.perf_counter()
        with damage_named(self.reader):
            sums = self.trainer.train_chunk(iterator, tf.constant(steps, tf.int64))
            done = int(sums.steps)
        if not bool(sums.finite):
            self._not_finite(done, sums)
        seconds = time.perf_counter() - began
        failpoint("train/mid-step")
        progress.step += done
        progress.batch += done
        self.listener.advance(done)
        self._weights = sums.weights.numpy() / done
        self._log_training(sums, seconds, done)

    def _not_finite(self, done: int, sums: Any) -> None:
        batch = self.progress.batch + done - 1
        names = self.trainer.losses.outputs
        bad = [
            n
            for n, v in zip(names, sums.losses.numpy())
            if not bool(tf.math.is_finite(v))
        ]
        self._diverged(
            f"the loss is not finite at step {self.progress.step + done} (batch "
            f"{batch} of epoch {self.progress.epoch}; tasks: {bad or 'the penalty'})"
        )

    def _check_variables(self) -> None:
        """A gradient may be no number although its loss still is one."""
        if not self.trainer.all_finite():
            self._diverged(
                f"a variable is not finite after step {self.progress.step} (batch "
                f"{self.progress.batch - 1} of epoch {self.progress.epoch})"
            )

    def _diverged(self, what: str) -> NoReturn:
        kept = self.checkpoints.latest()
        raise TrainingError(
            f"{what}. The last good checkpoint is kept: "
            f"{kept.name if kept else 'none yet'}. Lower the learning rate, set "
            "`clip_norm`, or look at that batch's rows"
        )

    def _log_training(self, sums: Any, seconds: float, steps: int) -> None:
        present = sums.present.numpy()
        tasks = self.trainer.model.tasks
        losses = {
            t.name: float(total) / count if count else None
            for t, total, count in zip(tasks, sums.losses.numpy(), present)
        }
        event = {
            "kind": "train",
            "step": self.progress.step,
            "steps": steps,
            "epoch": self.progress.epoch,
            "loss": losses,
            "penalty": float(sums.penalty) / steps,
            "weights": {
                t.name: float(w) / steps for t, w in zip(tasks, sums.weights.numpy())
            },
            "learning_rate": {
                k: float(v) for k, v in self.trainer.optimizers.learning_rates().items()
            },
            "rows_per_second": round(steps * self.reader.batch_size / seconds),
        }
        self.progress.metrics_bytes = self.run.log(event)
        with self._writer.as_default(step=self.progress.step):
            for name, value in losses.items():
                if value is not None:
                    tf.summary.scalar(f"loss/{name}", value)

    def _diagnose(self) -> None:
        """Looks at the batch that comes next; changes nothing."""
        progress = self.progress
        position = Position(progress.epoch, progress.batch)
        if progress.batch == self.per_epoch:
            position = Position(progress.epoch + 1, 0)
        with damage_named(self.reader):
            batches = iter(self.reader.epoch(*position))
            found = self.diagnostics(batches, self._weights)
        event = {"kind": "diagnostics", "step": progress.step, "epoch": progress.epoch}
        progress.metrics_bytes = self.run.log(event | found)
        with self._writer.as_default(step=progress.step):
            write_scalars(found)

    def _evaluate(self) -> None:
        progress = self.progress
        if self.evaluator is None:
            self.checkpoints.save_best(progress.step)
            progress.best_step = progress.step
            return
        failpoint("evaluate/before")
        metrics = self.evaluator()
        failpoint("evaluate/inside")
        progress.metrics_bytes = self.run.log(
            {
                "kind": "validation",
                "step": progress.step,
                "epoch": progress.epoch,
                "metrics": metrics,
            }
        )
        with self._writer.as_default(step=progress.step):
            for name, number in metrics.items():
                tf.summary.scalar(f"validation/{name}", number)
        value = self._monitored(metrics)
        self.listener.note(
            f"step {progress.step}: {self.spec.monitor} = {value:.5f} on validation"
        )
        own_best, ended = self.watch.evaluated(progress.tasks, progress.step, metrics)
        for task in ended:
            self.listener.note(f"step {progress.step}: {task} stops: no better")
        better = self._better(value)
        if better:
            progress.best_value, progress.best_step = value, progress.step
            progress.stale = 0
        else:
            progress.stale += 1
        if better or (own_best and self.spec.task_snapshots):
            self.checkpoints.save_best(progress.step)
        self._watch(metrics)

    def _watch(self, metrics: dict[str, float]) -> None:
        """Asks the watcher whether to go on from here."""
        if self.watcher is not None:
            done = self.progress.epoch + self.progress.batch / self.per_epoch
            self._stopped = self.watcher(done, metrics)

    def _monitored(self, metrics: dict[str, float]) -> float:
        value = metrics.get(self.spec.monitor)
        if value is None:
            raise ConfigError(
                f"`training.monitor` = {self.spec.monitor!r} is undefined on the "
                f"validation split; defined: {sorted(metrics)}"
            )
        return value

    def _better(self, value: float) -> bool:
        return is_better(self.spec.monitor, value, self.progress.best_value)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Notes SIGTERM and the first Ctrl-C, to stop between two chunks."""

        def note(signum: int, _: Any) -> None:
            if self._signal is not None and signum == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = signum

        try:
            before = {
                s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)
            }
        except ValueError:  # not in the main thread: nobody sends signals here
            yield
            return
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)
