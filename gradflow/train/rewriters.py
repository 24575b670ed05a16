"""Training nets to rewrite strings: seeds side by side, judged as they are told and as they go on.

The net is a `gradflow.models.rewriter.Rewriter`, and the loss is the mean cross-entropy of the
symbols under teacher forcing, in nats. Told the true symbols, a net may do well that goes astray by
itself: both are counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from gradflow import flow
from gradflow.cell import Key, Params
from gradflow.devices import map_runs
from gradflow.tasks.rewriting import Pairs, Rewriting
from gradflow.train.epochs import Fit, Learner, fit_epochs
from gradflow.train.keeper import Keeper
from gradflow.train.optimisers import Optimiser
from gradflow.train.prober import Watch
from gradflow.train.probes import Subject

SHARES = ("loss", "sequences", "forced", "free")
"""What `judge` gives."""


@dataclass(frozen=True)
class Plan:
    """How nets are trained: by Adam, at a rate that falls to 0 by a cosine.

    Attributes:
      num_updates: Updates; a multiple of the evaluations.
      num_evaluations: Evaluations after the first.
      batch_size: Pairs in an update, each seed's own.
      eval_size: The most held-out pairs in an evaluation.
      learning_rate: Of Adam, at first.
      num_seeds: Nets.
      seed: Of the batches.

    Raises:
      ValueError: If the updates are not a multiple of the evaluations.
    """

    num_updates: int
    num_evaluations: int
    batch_size: int
    eval_size: int
    learning_rate: float
    num_seeds: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_updates % self.num_evaluations:
            raise ValueError(
                "num_updates is expected to be a multiple of "
                f"num_evaluations={self.num_evaluations}, got {self.num_updates}"
            )


def cross_entropy(
    logits: Float[Array, "*pairs symbols"], targets: Int[Array, "*pairs"]
) -> Float[Array, ""]:
    """The mean over all symbols of -log p(target), in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def judge(net: Any, params: Params, pairs: Pairs) -> dict[str, Float[Array, ""]]:
    """How one net does on pairs, by name.

    Returns:
      ``loss``, in nats; ``sequences``, the share of the pairs that it writes without an error (the
      same when it is told and when it goes on by itself: both have the true symbols before the
      first error); and the shares of symbols that are right, ``forced`` and ``free``.
    """
    sources, targets = pairs.sources.T, pairs.targets.T
    logits = net.forced(params, sources, targets, lengths=pairs.lengths)
    right = net.free(params, sources, len(targets), lengths=pairs.lengths) == targets
    return {
        "loss": cross_entropy(logits, targets),
        "sequences": jnp.mean(jnp.all(right, axis=0), dtype=logits.dtype),
        "forced": jnp.mean(jnp.argmax(logits, axis=-1) == targets, dtype=logits.dtype),
        "free": jnp.mean(right, dtype=logits.dtype),
    }


class Encoding(NamedTuple):
    """The encoder on one pair, for `gradflow.train.probes.prober`: its h is its whole carry."""

    net: Any

    def __call__(self, params: Params, pair: Pairs) -> Subject:
        """What of a net's parameters and a pair is to be measured."""
        half = self.net.encoding(params, pair.sources, pair.targets, cross_entropy)
        return Subject(half.cell, half.params, half.inputs, half.loss)


def log_adjoints(net: Any, params: Params, pair: Pairs) -> Float[Array, " both_and_one"]:
    """log ‖∂L/∂s_k‖ of one pair under teacher forcing, through both halves of a net.

    Returns:
      The encoder's T + 1 carries, of which the last is handed over, and the decoder's S after it.
    """
    norms = []
    for half in (net.encoding, net.decoding):
        cell, own, inputs, carry, loss = half(params, pair.sources, pair.targets, cross_entropy)
        norms.append(flow.log_adjoint_norms(loss, cell, own, inputs, source="carry", carry=carry))
    in_encoder, in_decoder = norms
    return jnp.concatenate([in_encoder, in_decoder[1:]])


class Rewriters:
    """The nets of one kind, a seed each, side by side as one fit: none hears of another.

    Args:
      net: A `gradflow.models.rewriter.Rewriter`.
      data: What it learns.
      plan: For how long, and how.
    """

    def __init__(self, net: Any, data: Rewriting, plan: Plan) -> None:
        self.net, self.data, self.plan = net, data, plan
        self._judge = jax.jit(self._judged)

    def _judged(self, params: Params, pairs: Pairs) -> dict[str, Float[Array, " seeds"]]:
        return map_runs(lambda own: judge(self.net, own, pairs), sequential=False)(params)

    def fit(
        self, born: Params, *, watch: Watch | None = None, keeper: Keeper | None = None
    ) -> Iterator[Fit]:
        """Trains parameters with the seeds in front, and yields after each evaluation.

        An epoch is what lies between two evaluations. The log has each seed's of `judge`, as
        ``loss_0``, ``loss_1``, ...; see `curves`.
        """
        falling = partial(optax.cosine_decay_schedule, decay_steps=self.plan.num_updates)
        adam = Optimiser(lambda rate: optax.adam(falling(rate)), self.plan.learning_rate)
        return fit_epochs(
            Learner(lambda _: born, self.loss, adam),
            jax.random.key(self.plan.seed),
            self.batches,
            self.validate,
            num_epochs=self.plan.num_evaluations,
            watch=watch,
            keeper=keeper,
        )

    def loss(self, params: Params, batch: Pairs, key: Key) -> Float[Array, ""]:
        """The sum of all seeds' losses, of a batch with the seeds in front."""
        del key  # there is no noise but the batch

        def of_net(run: tuple[Params, Pairs]) -> Array:
            params, pairs = run
            sources, targets = pairs.sources.T, pairs.targets.T
            logits = self.net.forced(params, sources, targets, lengths=pairs.lengths)
            return cross_entropy(logits, targets)

        return jnp.sum(map_runs(of_net, sequential=False)((params, batch)))

    def batches(self, epoch: int) -> Iterator[Pairs]:
        """Each seed's own pairs, drawn with repetition."""
        plan, train = self.plan, self.data.train
        rng = np.random.default_rng((plan.seed, epoch))
        for _ in range(plan.num_updates // plan.num_evaluations):
            shape = plan.num_seeds, plan.batch_size
            yield train.at(rng.integers(len(train.lengths), size=shape))

    def validate(self, params: Params) -> dict[str, float]:
        """What `judge` says of the first held-out pairs: the mean loss, and each seed's all."""
        test = self.data.test
        pairs = test.at(np.arange(min(self.plan.eval_size, len(test.lengths))))
        found = jax.device_get(self._judge(params, pairs))
        each = {f"{name}_{i}": float(x) for name, xs in found.items() for i, x in enumerate(xs)}
        return {"mean_loss": float(np.mean(found["loss"])), **each}

    def curves(self, fit: Fit) -> dict[str, Float[np.ndarray, "seeds evaluations"]]:
        """What `judge` said after each evaluation of a fit, by name."""
        seeds = range(self.plan.num_seeds)
        return {name: np.stack([fit.log[f"{name}_{i}"] for i in seeds]) for name in SHARES}
