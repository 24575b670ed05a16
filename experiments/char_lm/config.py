"""The configuration of the study of language models."""

from dataclasses import dataclass
from typing import Literal

from _kit import probes

from gradflow import study
from gradflow.train import Schedule


@dataclass(frozen=True)
class Config(study.Config):
    """Which text, and which nets read it."""

    num_seeds: int = study.field(1, help="Trainings of each cell, one by one.", positive=True)
    precision: Literal["float64", "float32"] = study.field(
        "float32", help="Precision of the training; the flow is measured in float64."
    )
    text: str | None = study.field(None, help="The file of the text.")
    cell: str = study.field(
        "rnn,lstm,gru,stack(cells='gru,gru')",
        help="Cells, separated by commas: a name, name(option=value), path/to/file.py:factory "
        "or package.module:factory.",
    )
    hidden_size: int = study.field(128, help="Units of every layer.", positive=True)
    num_streams: int = study.field(32, help="Places of the text read side by side.", positive=True)
    window: int = study.field(
        32, help="Characters that gradients go back over, and between updates.", positive=True
    )
    num_updates: int = study.field(3000, help="Updates of each net.", positive=True)
    eval_every: int = study.field(
        300, help="Updates between two readings of the last tenth.", positive=True
    )
    optimiser: str = study.field(
        "adam(learning_rate=0.006)",
        help="One of optax's; its learning rate falls linearly, to a tenth.",
    )
    clipping: str = study.field("global_norm(threshold=1)", help="Of the gradient, or none.")
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()
    flow_steps: int = study.field(200, help="Characters over which it is probed.", positive=True)
    flow_sequences: int = study.field(4, help="Windows that are probed.", positive=True)
    warm_up: int = study.field(
        2000, help="Characters read before each stretch of the last tenth.", positive=True
    )

    @property
    def schedule(self) -> Schedule:
        """When the net is looked at; without a probe, its flow at birth and at the end."""
        every = self.probe_every or (self.eval_every if self.probe else self.num_updates)
        return Schedule(self.num_updates, self.eval_every, every, early_stop=False)
