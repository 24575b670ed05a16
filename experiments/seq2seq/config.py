"""The configuration of the study of encoder-decoders."""

from dataclasses import dataclass
from typing import Literal

from _kit import fields, probes

from gradflow import study
from gradflow.train import Schedule


@dataclass(frozen=True)
class Config(study.Config):
    """The networks, the task, and their training.

    The budget, 1,200 updates of 32 pairs, leaves all cells below 100 % on twelve digits. With more,
    or on the dates, whose sources are shorter, all of them reach 100 %.
    """

    num_seeds: int = fields.num_seeds(5)
    precision: Literal["float64", "float32"] = fields.training_precision()
    num_validation: int = fields.num_validation(1)
    cells: str = fields.cell("rnn,lstm(forget_bias=1),gru(update_bias=1)", several=True)
    task: Literal["dates", "reversal"] = study.field(
        "reversal", help="The task: dates in ISO format, or reversed digits."
    )
    num_formats: int = fields.positive(1, help="Formats of the dates, up to 3.")
    length: int = fields.positive(12, help="Digits that are reversed.")
    hidden_size: int = fields.hidden_size(64)
    batch_size: int = fields.batch_size(32)
    num_updates: int = fields.num_updates(1200)
    num_evaluations: int = fields.num_evaluations(12)
    eval_size: int = fields.positive(256, help="Held-out sequences per evaluation.")
    num_probed: int = fields.positive(8, help="Sequences on which the gradient flow is measured.")
    learning_rates: tuple[float, ...] = fields.learning_rates()
    clip: float = fields.clip(1.0)
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()

    @property
    def schedule(self) -> Schedule:
        """When there is an evaluation, and a probing.

        Raises:
          ValueError: If the updates are not a multiple of the evaluations, or of the probings.
        """
        if self.num_updates % self.num_evaluations:
            raise ValueError(
                f"Expected num_updates to be a multiple of num_evaluations={self.num_evaluations}, "
                f"got {self.num_updates}."
            )
        every = self.num_updates // self.num_evaluations
        return Schedule(self.num_updates, every, self.probe_every, early_stop=False)
