"""The configuration of the study of ReLU against tanh."""

from dataclasses import dataclass

from _kit import fields

from gradflow import study
from gradflow.train import Schedule


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, and how long they run and train."""

    num_seeds: int = fields.num_seeds(5)
    num_validation: int = fields.num_validation(1)
    activations: tuple[str, ...] = study.field(
        ("tanh", "relu", "leaky_relu", "softplus", "sigmoid", "identity"),
        help="Elementwise functions of jax.nn by name; identity and tanh as well.",
    )
    inits: str = study.field(
        "orthogonal,identity,glorot,normal,sparse",
        help="Initialisers of W_h, separated by commas: a name, or name(option=value).",
    )
    hidden_size: int = fields.hidden_size(32)
    input_size: int = fields.input_size(4)
    num_steps: int = fields.num_steps(100)
    input_stds: tuple[float, ...] = fields.positive(
        (0.01, 0.03, 0.1, 0.3, 1.0),
        help="Standard deviations of the inputs at which rates are measured; all else is at the "
        "last one.",
    )
    num_gains: int = fields.positive(60, help="Gains of the sweep.")
    max_gain: float = fields.positive(3.0, help="Largest gain; the sweep begins at 0.")
    task: str = fields.task("adding(num_steps=50)")
    learning_rates: tuple[float, ...] = fields.learning_rates()
    num_updates: int = fields.num_updates(1000)
    eval_every: int = fields.eval_every(50)
    batch_size: int = fields.batch_size(32)

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation."""
        return Schedule(self.num_updates, self.eval_every, early_stop=False)
