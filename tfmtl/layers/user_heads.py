"""Heads of several tasks on one user representation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tfmtl._keras import keras, tf
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import Start
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense, StackedMLP
from tfmtl.layers.towers import Towers

HeadKind = Literal["ctr", "ppp", "l2r"]


class Head(NamedTuple):
    """One task's head.

    Attributes:
        owner: Group of its variables (`task/click`).
        kind: `ctr` reads the user and an item, `ppp` the user alone, `l2r` weighs
            ranking features by the user.
        outputs: `TaskSpec.width`; 1 for `l2r`.
        items: Names of the item features that a `ctr` head reads.
        initial_bias: Where the outputs start.
    """

    owner: str
    kind: HeadKind
    outputs: int
    items: tuple[str, ...]
    initial_bias: Start


class UserHeads(keras.layers.Layer):
    """The heads of DUPN.

        ctr:  s = MLP([rep; ReLU(W i + b)])          user and item
        ppp:  s = MLP(rep)                           user alone
        l2r:  s = ReLU(V MLP(rep) + a) . r           weights of ranking features r

    Heads of one kind are computed as one einsum a layer. The ranking weights start near
    those of a mean: started at 0, a few of them may all lie behind the ReLU for every
    row, where nothing can be learnt.

    Args:
        heads: One a task.
        item_units: Width of a head's encoding of its item.
        pair_units: Widths of the hidden layers of `ctr` heads.
        user_units: Widths of those of `ppp` and `l2r` heads.
        ranking_features: R, how many features `l2r` heads weigh.
        ranking_bias: Add a bias to the scores of `l2r` heads; the paper has none.
        seed: Of kernels and masks.
        dropout: After each hidden layer, in training.

    References:
        Y. Ni et al., "Perceive Your Users in Depth", KDD 2018, section 3.5.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        *,
        item_units: int,
        pair_units: Sequence[int],
        user_units: Sequence[int],
        ranking_features: int = 0,
        ranking_bias: bool = False,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = tuple(heads)
        self.ranking_bias = ranking_bias
        places: dict[str, list[int]] = {"ctr": [], "ppp": [], "l2r": []}
        for t, head in enumerate(self.heads):
            places[head.kind].append(t)
        self._pairs, self._users, self._ranks = places.values()
        # Heads that read the same of an item are encoded together.
        readers: dict[tuple[str, ...], list[int]] = {}
        for t in self._pairs:
            readers.setdefault(self.heads[t].items, []).append(t)
        self._readers = [(items, readers[items]) for items in sorted(readers)]
        self.encoders = [
            StackedMLP(
                len(members),
                [item_units],
                seed=child_seed(seed, "items", *items),
                dropout=dropout,
                owners=self._owners(members),
                name=f"items_{i}",
            )
            for i, (items, members) in enumerate(self._readers)
        ]
        self.towers = {
            kind: Towers(
                self._owners(members),
                units,
                [self.heads[t].outputs for t in members],
                seed=child_seed(seed, kind),
                dropout=dropout,
                initial_bias=[self.heads[t].initial_bias for t in members],
                name=kind,
            )
            for kind, members, units in (
                ("ctr", self._pairs, pair_units),
                ("ppp", self._users, user_units),
            )
            if members
        }
        if self._ranks:
            self.rank_hidden = StackedMLP(
                len(self._ranks),
                user_units,
                seed=child_seed(seed, "l2r"),
                dropout=dropout,
                owners=self._owners(self._ranks),
                name="l2r",
            )
            self.rank_weights = StackedDense(
                len(self._ranks),
                ranking_features,
                "relu",
                seed=child_seed(seed, "l2r", "weights"),
                owners=self._owners(self._ranks),
                initial_bias=[1 / ranking_features] * len(self._ranks),
                name="l2r_weights",
            )
        self._rank_biases: list[Any] = []

    def _owners(self, members: Sequence[int]) -> list[str]:
        return [self.heads[t].owner for t in members]

    def build(self, input_shape: Any) -> None:
        for t in self._ranks if self.ranking_bias else ():
            head = self.heads[t]
            name = head.owner.replace("|", "_")
            self._rank_biases.append(
                self.add_weight(
                    f"{name}/rank_bias",
                    [],
                    initializer=keras.initializers.Constant(head.initial_bias),
                )
            )
        super().build(input_shape)

    def call(
        self,
        user: Any,
        items: Mapping[tuple[str, ...], Any],
        ranking: Any,
        training: bool = False,
    ) -> list[Any]:
        """Runs the heads.

        Args:
            user: [B, H], the user's representation.
            items: Names of item features to these, [B, D], for each `Head.items`.
            ranking: [B, R], or None without `l2r` heads.
            training: Whether dropout acts.

        Returns:
            T float32 tensors, [B] or [B, C].
        """
        results: list[Any] = [None] * len(self.heads)
        if self._pairs:
            encoded = self._encode(items, training)  # [B, n, I]
            repeated = tf.repeat(user[:, None], len(self._pairs), axis=1)
            pairs = tf.concat([repeated, encoded], axis=2)  # [B, n, H + I]
            outputs = self.towers["ctr"](pairs, training=training)
            for t, output in zip(self._pairs, outputs):
                results[t] = output
        if self._users:
            outputs = self.towers["ppp"](user, training=training)
            for t, output in zip(self._users, outputs):
                results[t] = output
        if self._ranks:
            scores = self._rank(user, ranking, training)  # [B, n]
            for position, t in enumerate(self._ranks):
                results[t] = scores[:, position]
        return results

    def _encode(self, items: Mapping[tuple[str, ...], Any], training: bool) -> Any:
        by_task: dict[int, Any] = {}
        for encoder, (names, members) in zip(self.encoders, self._readers):
            encoded = encoder(items[names], training=training)  # [B, m, I]
            if len(self._readers) == 1:
                return encoded
            by_task.update(zip(members, tf.unstack(encoded, axis=1)))
        return tf.stack([by_task[t] for t in self._pairs], axis=1)

    def _rank(self, user: Any, ranking: Any, training: bool) -> Any:
        hidden = self.rank_hidden(user, training=training)
        weights = tf.cast(self.rank_weights(hidden), tf.float32)  # [B, n, R]
        scores = tf.einsum("bnr,br->bn", weights, tf.cast(ranking, tf.float32))
        if self._rank_biases:
            scores += tf.cast(tf.stack(self._rank_biases), tf.float32)
        return scores

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to the variables of its head."""
        layers: list[Any] = [*self.encoders, *self.towers.values()]
        if self._ranks:
            layers += [self.rank_hidden, self.rank_weights]
        groups = merged_groups(layers)
        for t, bias in zip(self._ranks, self._rank_biases):
            groups.setdefault(self.heads[t].owner, []).append(bias)
        return groups
