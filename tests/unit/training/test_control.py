"""Who takes part in a step; norms of clipped tasks."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.schema.control import TaskControlSpec
from tfmtl.training.control import TaskControl, clip_tasks, task_of

GROUPS = {
    "shared": ["s"],
    "task/click": ["c"],
    "gate/click": ["g"],
    "cell/feed/like": ["l"],
    "scenario/feed": ["f"],
}


def control(**specs: dict[str, object]) -> TaskControl:
    made = {t: TaskControlSpec.model_validate(s) for t, s in specs.items()}
    return TaskControl(["click", "like"], made, GROUPS)


def test_groups_belong_to_tasks() -> None:
    owners = [task_of(g) for g in GROUPS]
    assert owners == [None, "click", "click", "like", None]
    found = control(click={"start": 1}, like={"reach": "own"})
    assert found.own(0) == ["c", "g"] and found.own(1) == ["l"]
    assert found.waiting == {"task/click": "click", "gate/click": "click"}
    assert found.apart == [1]


def test_a_task_takes_part_from_start_to_stop() -> None:
    found = control(click={"start": 2, "stop": 4})
    seen = [found.active(step).numpy().tolist() for step in range(5)]
    assert [s[0] for s in seen] == [False, False, True, True, False]
    assert all(s[1] for s in seen)
    found.stopped.assign([True, False])
    assert found.active(3).numpy().tolist() == [False, True]


def test_a_task_left_out_is_absent_even_if_its_loss_is_no_number() -> None:
    found = control(click={"start": 2})
    losses = tf.constant([np.nan, 2.0])
    masked, present = found.masked(losses, tf.constant([True, True]), 1)
    np.testing.assert_array_equal(masked, [0.0, 2.0])
    np.testing.assert_array_equal(present, [False, True])
    same, _ = control().masked(losses, present, 1)
    assert same is losses


@pytest.mark.parametrize("norm", [0.5, 1e3])
def test_clipped_tasks_have_their_norm(norm: float) -> None:
    sparse = tf.IndexedSlices(tf.constant([[3.0], [1.0]]), [1, 1], [3, 1])
    gradients = [[tf.constant([1.0, 2.0]), tf.ones([2])], [sparse, None]]
    clipped = clip_tasks(gradients, [norm, None])
    length = np.sqrt(1 + 4 + 16)  # rows that repeat are one row
    factor = min(1.0, norm / length)
    np.testing.assert_allclose(clipped[0][0], [factor, 2 * factor], rtol=1e-6)
    np.testing.assert_allclose(
        tf.convert_to_tensor(clipped[1][0])[:, 0], [0, 4 * factor, 0], rtol=1e-6
    )
    np.testing.assert_array_equal(clipped[0][1], [1, 1])
    assert clipped[1][1] is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="`stop` must come after `start`"):
        TaskControlSpec(start=3, stop=3)
    with pytest.raises(ConfigError, match=r"tasks.like.reach: own` needs variables"):
        TaskControl(["like"], {"like": TaskControlSpec(reach="own")}, {"shared": []})
