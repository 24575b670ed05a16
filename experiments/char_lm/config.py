"""The configuration of the study of language models."""

from dataclasses import dataclass
from typing import Literal

from _kit import fields, probes

from gradflow import study
from gradflow.train import Schedule


@dataclass(frozen=True)
class Config(study.Config):
    """The text, the networks, and their training."""

    num_seeds: int = study.field(1, help="Trainings of each cell, sequentially.", positive=True)
    precision: Literal["float64", "float32"] = fields.training_precision()
    text: str | None = study.field(None, help="The file of the text.")
    cell: str = fields.cell("rnn,lstm,gru,stack(cells='gru,gru')", several=True)
    hidden_size: int = fields.hidden_size(128)
    num_streams: int = study.field(
        32, help="Streams of the text that are read in parallel.", positive=True
    )
    window: int = study.field(
        32, help="Window of truncated backpropagation, in characters.", positive=True
    )
    num_updates: int = fields.num_updates(3000)
    eval_every: int = fields.eval_every(300)
    optimiser: str = study.field(
        "adam(learning_rate=0.006)",
        help="An optimiser of optax; its learning rate falls linearly to a tenth.",
    )
    clipping: str = study.field(
        "global_norm(threshold=1)", help="Clipping of the gradient, or none."
    )
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()
    flow_steps: int = study.field(
        200, help="Characters of a window on which the gradient flow is measured.", positive=True
    )
    flow_sequences: int = study.field(
        4, help="Windows on which the gradient flow is measured.", positive=True
    )
    warm_up: int = study.field(
        2000, help="Characters read before each stretch of the last tenth.", positive=True
    )

    @property
    def schedule(self) -> Schedule:
        """When the network is evaluated and probed; by default the latter before and after."""
        every = self.probe_every or (self.eval_every if self.probe else self.num_updates)
        return Schedule(self.num_updates, self.eval_every, every, early_stop=False)
