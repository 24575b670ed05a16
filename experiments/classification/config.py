"""The configuration of the study of text classification."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from _kit import fields, probes

from gradflow import study


class Setting(NamedTuple):
    """The settings of a corpus, unless flags override them."""

    max_length: int
    max_words: int
    min_count: int
    batch_size: int
    num_epochs: int
    keep: str = "start"
    buckets: int = 2


SETTINGS = {
    "trec": Setting(max_length=40, max_words=10_000, min_count=2, batch_size=32, num_epochs=12),
    "ag_news": Setting(max_length=80, max_words=20_000, min_count=2, batch_size=64, num_epochs=8),
    "imdb": Setting(200, 10_000, min_count=1, batch_size=64, num_epochs=6, keep="end"),
}


@dataclass(frozen=True)
class Config(study.Config):
    """The corpus, the models, and their training."""

    num_seeds: int = fields.positive(3, help="Trainings of each model.")
    precision: Literal["float64", "float32"] = fields.training_precision()
    data: Literal["trec", "ag_news", "imdb"] = study.field("trec", help="The corpus.")
    data_dir: str | None = study.field(None, help="The folder of its official files.")
    train_file: str | None = study.field(
        None,
        help="AG News: another file of that folder to train on. If its header is label,content, it "
        "has no titles, and those of the test are removed too.",
    )
    models: str = study.field(
        "rnn,lstm,gru,bi_lstm,bi_gru,two_gru,gru(recurrent_dropout=0.25),conv",
        help="Models, separated by commas.",
    )
    embedding_size: int = fields.positive(100, help="Numbers for each word.")
    hidden_size: int = fields.positive(64, help="Units of each cell; windows of conv.")
    dropout: float = study.field(
        0.5, help="Dropout rate of the inputs of layers and head; 0 for none."
    )
    optimiser: str = study.field(
        "adam(learning_rate=0.002)", help="An optimiser of optax, with options."
    )
    clipping: str = study.field(
        "global_norm(threshold=1)", help="Clipping of the gradient, or none."
    )
    batch_size: int | None = fields.positive(None, help="Texts per update.")
    num_epochs: int | None = fields.positive(None, help="The largest number of epochs.")
    patience: int = fields.positive(4, help="Epochs without fewer errors before a training stops.")
    max_length: int | None = fields.positive(
        None, help="Words of a text: its first ones; of IMDB reviews the last."
    )
    max_words: int | None = fields.positive(None, help="Size of the vocabulary.")
    flow_steps: int = fields.positive(200, help="Words on which the gradient flow is measured.")
    flow_sequences: int = fields.positive(
        8, help="Such pieces of the test set, and texts that are probed."
    )
    probe: str = probes.flag()
    probe_every: int = fields.positive(1, help="Epochs between two probings.")

    @property
    def setting(self) -> Setting:
        """The settings of the corpus, with the flags in place of its own."""
        given = {name: getattr(self, name, None) for name in Setting._fields}
        return SETTINGS[self.data]._replace(**{k: v for k, v in given.items() if v})
