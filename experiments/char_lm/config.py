"""The configuration of the study of language models."""

from dataclasses import dataclass
from typing import Literal

from _kit import fields, probes, tuning

from gradflow import study
from gradflow.train import Schedule


@dataclass(frozen=True)
class Config(study.Config):
    """The text, the networks of equal numbers of weights, and their training.

    A training takes 1,000 updates, an epoch of Tiny Shakespeare, so that the five learning rates,
    the validation seed and three seeds of each cell take some ten minutes on two idle cores.
    """

    num_seeds: int = fields.positive(3, help="Trainings of each cell, sequentially.")
    num_validation: int = fields.num_validation(1)
    precision: Literal["float64", "float32"] = fields.training_precision()
    text: str | None = study.field(None, help="The file of the text.")
    cell: str = fields.cell("rnn,lstm(forget_bias=1),gru(update_bias=1)", several=True)
    num_weights: int = fields.positive(
        50_000, help="Weights of each cell, without the readout, as nearly as can be."
    )
    hidden_size: int | None = fields.positive(
        None, help="Hidden units of a layer, in place of a number of weights."
    )
    num_streams: int = fields.positive(32, help="Streams of the text that are read in parallel.")
    window: int = fields.positive(32, help="Window of truncated backpropagation, in characters.")
    num_updates: int = fields.num_updates(1000)
    eval_every: int = fields.eval_every(100)
    optimiser: str = fields.optimiser("adam")
    learning_rates: tuple[float, ...] = fields.positive(
        tuning.GRID, help="Learning rates that are tried; each falls linearly to a tenth."
    )
    clipping: str = study.field(
        "global_norm(threshold=1)", help="Clipping of the gradient, or none."
    )
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()
    flow_steps: int = fields.positive(
        200, help="Characters of a window on which the gradient flow is measured."
    )
    flow_sequences: int = fields.positive(4, help="Windows on which the gradient flow is measured.")
    warm_up: int = fields.positive(
        2000, help="Characters read before each stretch of the last tenth."
    )

    @property
    def schedule(self) -> Schedule:
        """When the network is evaluated and probed; by default the latter before and after."""
        every = self.probe_every or (self.eval_every if self.probe else self.num_updates)
        return Schedule(self.num_updates, self.eval_every, every, early_stop=False)
