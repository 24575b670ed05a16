"""The configuration of the study of forecasting."""

from dataclasses import dataclass
from typing import Literal

from _kit import fields, probes

from gradflow import study
from gradflow.spec import split_specs


@dataclass(frozen=True)
class Config(study.Config):
    """The series, the models, and their training."""

    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()
    data: Literal["generated", "sunspots", "temperatures", "etth1", "bitcoin"] = study.field(
        "generated", help="The series."
    )
    data_dir: str | None = study.field(None, help="The folder of a real series' official file.")
    series: str | None = study.field(
        None, help="PATH:COLUMN of a CSV file, in place of data; a number where columns lack names."
    )
    period: int | None = fields.positive(None, help="Steps in a season of --series.")
    models: str | None = study.field(
        None,
        help="naive, seasonal, linear, arima, dense, deep_rnn, deep_lstm, deep_gru, conv_gru, "
        "conv_deep_gru, batch_norm or any cell, separated by commas; by default the table's.",
    )
    hidden_size: int = fields.hidden_size(20)
    num_steps: int = fields.positive(50, help="Steps of a window.")
    num_windows: int = fields.positive(7000, help="The largest number of training windows.")
    batch_size: int | None = fields.positive(
        None, help="Windows per update; by default 64, or the published 32."
    )
    num_epochs: int | None = fields.positive(
        None, help="Epochs; by default 8, or the published 20; 30 and 100 for a real series."
    )
    learning_rate: float | None = study.field(
        None,
        help="Learning rate of Adam; by default 0.005 falling to 0 by a cosine, or the published.",
    )
    published: bool = study.field(
        False, help="Whether models, batches, epochs and learning rates are the published ones."
    )
    returns: bool = study.field(
        False, help="Whether log returns are forecast too; always so for bitcoin."
    )
    probe: str = probes.flag()
    probe_every: int = fields.positive(1, help="Epochs between two probings.")

    @property
    def is_real(self) -> bool:
        """Whether the series is not generated."""
        return self.series is not None or self.data != "generated"

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        found = {(False, False): 8, (False, True): 20, (True, False): 30, (True, True): 100}
        return self.num_epochs or found[self.is_real, self.published]

    @property
    def batch(self) -> int:
        """The number of windows per update."""
        return self.batch_size or (32 if self.published else 64)

    @property
    def names(self) -> tuple[str, ...]:
        """The models."""
        if self.models is not None:
            return tuple(dict.fromkeys(split_specs(self.models)))
        season = ("seasonal",) if self.is_real and (self.series is None or self.period) else ()
        plain = ("naive", *season, "linear", *(("arima",) if self.is_real else ()), "dense")
        nets = ("rnn", "deep_rnn", "lstm", "gru", "conv_gru")
        if self.published:
            nets = ("rnn", "deep_rnn", "lstm", "deep_lstm", "gru", "deep_gru", "conv_deep_gru")
        return (*plain, *nets, *(() if self.is_real else ("batch_norm", "gru_layer_norm")))
