"""The configuration of the study of trainings."""

from dataclasses import dataclass
from typing import Literal

from _kit import fields, probes

from gradflow import study
from gradflow.spec import parse_spec
from gradflow.train import Schedule, resolve_clipping, resolve_optimiser
from gradflow.train.clipping import check_thresholds
from gradflow.train.optimisers import check_learning_rate


@dataclass(frozen=True)
class Config(study.Config):
    """What is trained on what, and how."""

    num_seeds: int = fields.num_seeds(5)
    num_validation: int = fields.num_validation(2)
    precision: Literal["float64", "float32"] = fields.training_precision()
    cell: str = fields.cell("gru", several=True)
    hidden_size: int = fields.hidden_size(32)
    init: str | None = fields.init()
    task: str = fields.task("adding(num_steps=100)")
    optimiser: str = fields.optimiser("adam")
    learning_rate: tuple[float, ...] | None = fields.positive(
        None, help="Learning rates, trained side by side; by default the optimiser's own."
    )
    clipping: str = study.field(
        "none",
        help="none, global_norm(threshold=1), per_leaf, value, pascanu(factor=1), agc, adjoint or "
        "normalise, each with options.",
    )
    clip_threshold: tuple[float, ...] | None = fields.positive(
        None,
        help="Thresholds of the clipping (the clipping of agc, factor of pascanu, size of "
        "normalise), trained side by side; by default the clipping's own.",
    )
    regulariser: str | None = study.field(
        None, help="Term added to the loss: omega(weight=1) or flossing(weight=1)."
    )
    truncation: tuple[int, ...] | None = fields.positive(
        None, help="k1,k2 of truncated backpropagation; by default the full gradient."
    )
    batch_size: int = fields.batch_size(32)
    num_updates: int = fields.num_updates(1500)
    eval_every: int = fields.eval_every(100)
    eval_size: int = fields.eval_size(256)
    early_stop: bool = study.field(
        True, help="Whether to stop when every run has solved the task or died."
    )
    tensorboard: bool = study.field(False, help="Whether to write event files for TensorBoard.")
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()
    probe_sequences: int = fields.positive(4, help="Sequences that the probes use.")

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation, and a probing."""
        return Schedule(self.num_updates, self.eval_every, self.probe_every, self.early_stop)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates to try: those of the flag, or the one of the optimiser.

        Raises:
          ValueError: If there is one in the optimiser's options as well.
        """
        optimiser = resolve_optimiser(self.optimiser)
        if self.learning_rate is None:
            return (optimiser.learning_rate,)
        if "learning_rate" in parse_spec(self.optimiser)[1]:
            raise ValueError(
                "Expected one learning rate, got --learning_rate and one in "
                f"{self.optimiser!r}. Remove it from the optimiser."
            )
        return tuple(dict.fromkeys(map(check_learning_rate, self.learning_rate)))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds of the clipping to try: those of the flag, or the clipping's own.

        Raises:
          ValueError: If there is one in the clipping's options as well, or the clipping has none.
        """
        if self.clip_threshold is None:
            return (resolve_clipping(self.clipping).threshold,)
        return check_thresholds(self.clipping, self.clip_threshold)

    @property
    def windows(self) -> tuple[int, int] | None:
        """k1 and k2 of truncated backpropagation; None for the full gradient.

        Raises:
          ValueError: If the flag has not two numbers.
        """
        if self.truncation is None:
            return None
        if len(self.truncation) != 2:
            raise ValueError(
                f"Expected --truncation=k1,k2, got {self.truncation}. Try --truncation=20,40."
            )
        k1, k2 = self.truncation
        return k1, k2
