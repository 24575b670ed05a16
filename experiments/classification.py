"""What kind of text it is: recurrent nets on real texts, with the flow of the trained ones.

An embedding of words, a recurrent layer or two, in one direction or both, and a linear head on
what was read last, trained from nothing on TREC's questions, AG News or IMDB's reviews::

    scores = W h_L + b                             ``rnn``, ``lstm``, ``gru``, any cell
    scores = W [→h_L; ←h_1] + b                    ``bi_lstm``
    scores = W h_L of a second layer + b           ``two_gru``
    scores = W max_t relu(window at t) + b         ``conv``, without recurrence

The epoch with the fewest errors in a tenth of the training set, kept out, is the one that is
tested, once, at the end. Of that net's first forward cell log ‖∂h_T/∂h_k‖ is measured along the
words of the test set, texts one after the other, for many are short. The claim: the gated cells,
whose gradient reaches further, classify better than the tanh RNN.

Source: Li & Roth 2002, doi:10.3115/1072228.1072378 (TREC); Zhang, Zhao, LeCun 2015,
arXiv:1509.01626 (AG News); Maas et al. 2011, https://aclanthology.org/P11-1015 (IMDB).

    python experiments/classification.py --data_dir=PATH
    python experiments/classification.py --data_dir=PATH --models='rnn,bi_gru(pooling="max")'
    python experiments/classification.py --data=imdb --data_dir=PATH --num_seeds=1 \\
        --models='bi_gru(pooling="max")' --embedding_size=64 --hidden_size=32 --num_epochs=5
    python experiments/classification.py --data=ag_news --data_dir=PATH --train_file=subset.csv

A model is a cell, with ``bi_`` or ``two_`` before it, and with ``pooling`` ("last", "max" or
"mean" over the steps) and ``recurrent_dropout`` among its options. Without the files, which are
not fetched, the run says where they are published. Takes five to six minutes on two cores at the
defaults, which are those of TREC. params/ has the cell of each model, of its first seed.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow, study
from gradflow.data.ag_news import read_ag_news
from gradflow.data.batches import Batch, batches_in_order, bucket_sizes, shuffled_batches
from gradflow.data.corpus import Corpus, Part, make_corpus
from gradflow.data.imdb import read_imdb
from gradflow.data.trec import read_trec
from gradflow.interop import save_params
from gradflow.models import Model
from gradflow.models.nets import Net, resolve_net
from gradflow.models.text import text_classifier
from gradflow.spec import parse_spec, split_specs
from gradflow.study.config import sanitise
from gradflow.train.clipping import resolve_clipping
from gradflow.train.epochs import Fit, Learner, fit_epochs
from gradflow.train.keeper import Keeper
from gradflow.train.optimisers import resolve_optimiser

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params


class Setting(NamedTuple):
    """What suits a corpus, where the command line does not say otherwise."""

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

PUBLISHED = {
    "trec": {"conv": (0.912, "Kim 2014: windows of 3, 4, 5")},
    "ag_news": {
        "rnn": (0.8822, "MS course: 120,000 rows, validation"),
        "lstm": (0.8870, "MS course: 120,000 rows, validation"),
    },
    "imdb": {
        "rnn": (0.8460, "Chollet: 500 words, best validation"),
        "lstm": (0.8928, "Chollet: 500 words, best validation"),
        "bi_lstm": (0.8856, "Chollet: 500 words, best validation"),
        "conv": (0.8382, "Chollet: 500 words, best validation"),
    },
}
"""By corpus and model: the accuracy, and what it is of. Kim 2014, arXiv:1408.5882, Table 2,
CNN-rand; Microsoft's AI-For-Beginners; Chollet 2018, Deep Learning with Python, 6.2 to 6.4, whose
Keras keeps the last words of a review, as is done here."""

WHEN = ("at birth", "trained")

LENGTH_BINS = 4


@dataclass(frozen=True)
class Config(study.Config):
    """Which texts, and which nets read them."""

    num_seeds: int = study.field(3, help="Trainings of each model.", positive=True)
    precision: Literal["float64", "float32"] = study.field(
        "float32", help="Precision of the training; the flow is measured in float64."
    )
    data: Literal["trec", "ag_news", "imdb"] = study.field("trec", help="The corpus.")
    data_dir: str | None = study.field(None, help="The folder of its official files.")
    train_file: str | None = study.field(
        None,
        help="AG News: another file of that folder to train on. If its header is label,content, it "
        "has no titles, and those of the test are left out too.",
    )
    models: str = study.field(
        "rnn,lstm,gru,bi_lstm,bi_gru,two_gru,gru(recurrent_dropout=0.25),conv",
        help="Models, separated by commas.",
    )
    embedding_size: int = study.field(100, help="Numbers for each word.", positive=True)
    hidden_size: int = study.field(64, help="Units of each cell; windows of conv.", positive=True)
    dropout: float = study.field(0.5, help="Of what goes into layers and head; 0 for none.")
    optimiser: str = study.field("adam(learning_rate=0.002)", help="One of optax's, with options.")
    clipping: str = study.field("global_norm(threshold=1)", help="Of the gradient, or none.")
    batch_size: int | None = study.field(None, help="Texts an update.", positive=True)
    num_epochs: int | None = study.field(None, help="The most epochs.", positive=True)
    patience: int = study.field(4, help="Epochs to wait for fewer errors.", positive=True)
    max_length: int | None = study.field(
        None, help="Words of a text: its first ones, of IMDB's reviews the last.", positive=True
    )
    max_words: int | None = study.field(None, help="Size of the vocabulary.", positive=True)
    flow_steps: int = study.field(200, help="Words over which the flow is measured.", positive=True)
    flow_sequences: int = study.field(8, help="Such pieces of the test set.", positive=True)

    @property
    def setting(self) -> Setting:
        """What is not said comes from `SETTINGS`."""
        given = {name: getattr(self, name, None) for name in Setting._fields}
        return SETTINGS[self.data]._replace(**{k: v for k, v in given.items() if v})


def read_corpus(config: Config) -> Corpus:
    """Reads the files; the tenth that is kept out is the same one for all seeds.

    Raises:
      ValueError: If a file is missing or damaged, or a flag is for another corpus.
    """
    folder = config.data_dir
    if config.train_file is not None and config.data != "ag_news":
        raise ValueError(f"--train_file is for --data=ag_news alone, got --data={config.data}")
    if config.data == "ag_news":
        titles = config.train_file is None
        train = read_ag_news(folder, "train", name=config.train_file, titles=titles)
        test = read_ag_news(folder, "test", titles=titles)
    else:
        read = {"trec": read_trec, "imdb": read_imdb}[config.data]
        train, test = read(folder, "train"), read(folder, "test")
    s = config.setting
    return make_corpus(
        train,
        test,
        seed=config.seed,
        max_length=s.max_length,
        max_words=s.max_words,
        min_count=s.min_count,
        keep=s.keep,
    )


class Trainer:
    """One model on one corpus: what is compiled once serves all its seeds."""

    def __init__(self, config: Config, net: Net, corpus: Corpus) -> None:
        self.config, self.corpus, self.setting = config, corpus, config.setting
        self.sizes = bucket_sizes(self.setting.max_length, count=self.setting.buckets)
        self.net = net
        self.model = text_classifier(
            net.layers,
            num_symbols=corpus.num_words,
            embedding_size=config.embedding_size,
            num_classes=len(corpus.classes),
            dropout=config.dropout,
            recurrent_dropout=net.recurrent_dropout,
        )
        self.learner = Learner(
            self.model.init,
            partial(cross_entropy, self.model),
            resolve_optimiser(config.optimiser),
            resolve_clipping(config.clipping),
        )

    @cached_property
    def _scores(self) -> Callable[..., jax.Array]:
        return jax.jit(lambda params, ids, lengths: self.model.apply(params, ids, lengths=lengths))

    def log_likelihoods(self, params: "Params", part: Part) -> np.ndarray:
        """log of the probability of every class for every text, without dropout."""
        found = np.zeros((len(part.labels), len(self.corpus.classes)))
        batches = batches_in_order(*part, 4 * self.setting.batch_size, sizes=self.sizes[-1:])
        for rows, batch in batches:
            scores = np.asarray(self._scores(params, batch.ids, batch.lengths), float)
            found[rows] = scores[: len(rows)]
        return found - np.logaddexp.reduce(found, axis=1, keepdims=True)

    def validate(self, params: "Params") -> dict[str, float]:
        """The share of errors and the mean loss on what is kept out of the training."""
        part = self.corpus.kept_out
        found = self.log_likelihoods(params, part)
        loss = -found[np.arange(len(part.labels)), part.labels].mean()
        return {"error": float((found.argmax(axis=1) != part.labels).mean()), "loss": float(loss)}

    def fit(self, seed: int, folder: Path | None) -> Fit:
        """Trains to the end; with a folder, a killed training goes on from its last epoch."""
        # TREC's trainings take seconds, and so would their checkpoints.
        keeper = None
        if folder is not None and self.config.data != "trec":
            keeper = Keeper(folder, {"seed": seed})
        with keeper or contextlib.nullcontext():
            *_, last = study.progress(self._fits(seed, keeper), "epochs")
        return last

    def born(self, seed: int) -> "Params":
        """The parameters that a training begins with."""
        return next(iter(self._fits(seed, None))).best_params

    def _fits(self, seed: int, keeper: Keeper | None) -> Iterator[Fit]:
        return fit_epochs(
            self.learner,
            jax.random.fold_in(jax.random.key(self.config.seed), seed),
            partial(self._epoch, seed),
            self.validate,
            num_epochs=self.setting.num_epochs,
            patience=self.config.patience,
            keeper=keeper,
        )

    def _epoch(self, seed: int, epoch: int) -> Any:
        seeds = (self.config.seed, seed, epoch)
        part, size = self.corpus.fitted, self.setting.batch_size
        return shuffled_batches(*part, size, sizes=self.sizes, seed=seeds)

    def save_cell(self, params: "Params", path: Path) -> None:
        """Writes the cell whose flow is measured, for other studies to measure."""
        if self.net.cell is not None:
            save_params(
                path.with_name(f"{path.name}.safetensors"),
                self.net.cell_params(params["layers"]),
                cell=self.net.cell_spec,
                input_size=self.config.embedding_size,
                hidden_size=self.config.hidden_size,
            )

    def log_norms(self, params: "Params") -> np.ndarray:
        """log ‖∂h_T/∂h_k‖ of the first forward cell along words of the test set; index = lag."""
        shape = self.config.flow_sequences, self.config.flow_steps
        if self.net.cell is None:
            return np.full((shape[0], shape[1] + 1), np.nan)
        words = np.resize(np.concatenate(self.corpus.test.sequences), shape)
        given = self.net.cell_params(params["layers"]), np.asarray(params["embedding"])[words]
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), given)
            return np.asarray(self._flow(*exact))

    @cached_property
    def _flow(self) -> Callable[..., jax.Array]:
        cell = self.net.cell
        assert cell is not None

        def measure(own: "Params", inputs: jax.Array) -> jax.Array:
            return flow.over_runs(partial(flow.log_norms, cell, own))(inputs)

        return flow.jit_to_run_once(measure)


def cross_entropy(model: Model, params: "Params", batch: Batch, key: jax.Array) -> jax.Array:
    """The mean of -log p(class) over the examples of a batch, under dropout."""
    scores = model.apply(params, batch.ids, lengths=batch.lengths, key=key)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), batch.labels[:, None], axis=1)[:, 0]
    return -jnp.sum(batch.weights * chosen) / jnp.sum(batch.weights)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains and tests each model from each seed; dimensions model, seed, example, lag."""
    import xarray

    sizes = config.embedding_size, config.hidden_size
    nets = {spec: resolve_net(spec, *sizes) for spec in split_specs(config.models)}
    if not nets:
        raise ValueError(f"the name of a model is expected, got {config.models!r}; try gru")
    corpus = read_corpus(config)
    parts = []
    for spec, net in study.progress(list(nets.items()), "models"):
        trainer = Trainer(config, net, corpus)
        seeds = [
            once(f"model={spec},seed={seed}", partial(_one, trainer, spec, seed, once))
            for seed in range(config.num_seeds)
        ]
        parts.append(xarray.concat(seeds, dim="seed"))
    lengths = [len(words) for words in corpus.test.sequences]
    return xarray.concat(parts, dim="model").assign(  # pyright: ignore[reportReturnType]
        label=("example", corpus.test.labels),
        length=("example", np.array(lengths), {"units": "words"}),
    )


def _one(trainer: Trainer, spec: str, seed: int, once: study.Once) -> "xarray.Dataset":
    import xarray

    folder = once.folder(f"model={spec},seed={seed}")
    born, done, corpus = trainer.born(seed), trainer.fit(seed, folder), trainer.corpus
    curves = [trainer.log_norms(params) for params in (born, done.best_params)]
    if folder is not None and seed == 0:
        trainer.save_cell(done.best_params, folder.parents[1] / "params" / sanitise(spec))
    predicted = trainer.log_likelihoods(done.best_params, corpus.test).argmax(axis=1)
    epochs = ("model", "seed", "epoch")
    return xarray.Dataset(
        {
            "predicted": (("model", "seed", "example"), predicted[None, None].astype(np.int16)),
            "error": (epochs, done.log["error"][None, None], {"of": "the tenth kept out"}),
            "train_loss": (epochs, done.log["train_loss"][None, None], {"units": "nats"}),
            "best_epoch": (("model", "seed"), [[done.best_epoch]]),
            "log_norm": (
                ("model", "seed", "when", "sequence", "lag"),
                np.stack(curves)[None, None],
                {"units": "nats", "norm": "spectral"},
            ),
        },
        coords={
            "model": [spec],
            "seed": [seed],
            "when": list(WHEN),
            "lag": ("lag", np.arange(curves[0].shape[-1]), {"units": "steps"}),
        },
        attrs={
            "data": trainer.config.data,
            "classes": list(corpus.classes),
            "learnt": len(corpus.fitted.labels),
            "words": corpus.num_words,
        },
    )


def correct(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """Whether each model of each seed said the class of each tested text."""
    return dataset.predicted == dataset.label


def horizons(log_norm: "xarray.DataArray") -> np.ndarray:
    """The lag at which the gradient of each seed's cell is gone; infinite where it never is."""
    curves = log_norm.transpose("seed", "sequence", "lag").values
    return np.array([np.nan if np.isnan(c).all() else flow.summary(c).horizon for c in curves])


def length_bins(dataset: "xarray.Dataset") -> list[np.ndarray]:
    """The tested texts in parts alike in number, by length, the shortest first."""
    length = dataset.length.values
    edges = np.unique(np.quantile(length, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, length)
    return [
        np.flatnonzero(place == part) for part in range(len(edges) + 1) if (place == part).any()
    ]


def chosen(dataset: "xarray.Dataset") -> str:
    """The model with the fewest errors on what was kept out, by the mean over its seeds."""
    return str(dataset.model.values[int(dataset.error.min("epoch").mean("seed").argmin("model"))])


def words_of(spec: str) -> str:
    """A model's spec as it stands beside a point or a line."""
    name, options = parse_spec(spec)
    said = [f"{key.replace('_', ' ')} {value}" for key, value in options.items()]
    return "\n".join([name.replace("bi_", "bi-").replace("two_", "2-layer "), *said])


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Accuracy by model, against the horizon and by length; the best model's confusions."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.6, 6.4))
    (accuracy, reach), (length, confusion) = fig.subplots(2, 2)
    _draw_accuracy(accuracy, dataset)
    _draw_reach(reach, dataset)
    _draw_lengths(length, dataset)
    _draw_confusion(confusion, dataset)
    return fig


def _looks(dataset: "xarray.Dataset") -> dict[str, dict[str, Any]]:
    """The colours and markers of the models."""
    specs = [str(spec) for spec in dataset.model.values]
    return {spec: study.figure.cell_style(spec, number) for number, spec in enumerate(specs)}


def _draw_accuracy(ax: "Axes", dataset: "xarray.Dataset") -> None:
    looks, share = _looks(dataset), correct(dataset).mean("example")
    published, marks = PUBLISHED[dataset.attrs["data"]], []
    for row, (spec, look) in enumerate(looks.items()):
        values = share.sel(model=spec).values
        ax.plot(values, np.full(len(values), row), **{**look, "linestyle": "", "alpha": 0.6})
        ax.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=look["color"], lw=2)
        if spec in published:
            marks.append((published[spec][0], row))
    if marks:
        look = {"marker": "d", "mfc": "white", "mec": "black", "ms": 6, "linestyle": ""}
        ax.plot(*zip(*marks, strict=True), **look)
    ax.set_yticks(range(len(looks)), [words_of(spec) for spec in looks], fontsize=7)
    ax.invert_yaxis()
    note = " (◇: published, of another set-up)" if marks else ""
    title = f"{dataset.attrs['data']}: each seed, and their mean"
    ax.set(xlabel=f"test accuracy{note}", title=title)


def _draw_reach(ax: "Axes", dataset: "xarray.Dataset") -> None:
    longest = int(dataset.lag[-1])
    for spec, look in _looks(dataset).items():
        data = dataset.sel(model=spec)
        reached = horizons(data.log_norm.sel(when="trained"))
        if not np.isnan(reached).any():
            at, values = np.minimum(reached, longest), correct(data).mean("example").values
            ax.plot(at, values, **{**look, "linestyle": ""}, label=words_of(spec), ms=5)
    ax.axvline(longest, color="black", lw=0.8, ls=(0, (1, 1)))
    ax.margins(x=0.1, y=0.1)
    ax.set_xlim(left=0)
    ax.set(
        xlabel=f"horizon, trained (steps; dotted: {longest} or more)",
        ylabel="test accuracy",
        title=r"Lag where $\|\partial h_T/\partial h_k\|$ falls below $10^{-3}$",
    )
    if ax.lines[1:]:
        ax.legend(fontsize=6, loc="best", handlelength=1)


def _draw_lengths(ax: "Axes", dataset: "xarray.Dataset") -> None:
    bins, length = length_bins(dataset), dataset.length.values
    share, looks = correct(dataset), _looks(dataset)
    shown = [spec for spec in looks if spec in ("rnn", "lstm", "gru") or spec == chosen(dataset)]
    for spec in shown:
        of_seed = np.stack([share.sel(model=spec).values[:, part].mean(axis=1) for part in bins])
        study.figure.band(ax, range(len(bins)), of_seed, 1, **looks[spec], label=words_of(spec))
    names = [f"{length[part].min()}–{length[part].max()}" for part in bins]
    ax.set_xticks(range(len(bins)), names)
    ax.set(xlabel="words of the text", ylabel="test accuracy", title="By length, in quarters")
    ax.margins(y=0.15)
    if shown:
        ax.legend(fontsize=7)


def confusions(dataset: "xarray.Dataset", spec: str) -> np.ndarray:
    """The share of the texts of each class (row) that were said to be of each (column)."""
    number = len(dataset.attrs["classes"])
    said = dataset.predicted.sel(model=spec).values
    counts = np.zeros((number, number))
    np.add.at(counts, (np.broadcast_to(dataset.label.values, said.shape), said), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def _draw_confusion(ax: "Axes", dataset: "xarray.Dataset") -> None:
    spec, classes = chosen(dataset), list(dataset.attrs["classes"])
    shares = confusions(dataset, spec)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, size=7)
    ax.set_xticks(range(len(classes)), classes, fontsize=7)
    ax.set_yticks(range(len(classes)), classes, fontsize=7)
    ax.grid(False)
    said = words_of(spec).replace("\n", ", ")
    ax.set(xlabel="said", ylabel="true class", title=f"Per cent of a class, {said}")


def closing(dataset: "xarray.Dataset") -> str:
    """Accuracy and horizon of each model, what only the tanh RNN loses, and the verdict."""
    specs = [str(spec) for spec in dataset.model.values]
    rows = [_row(spec, dataset.sel(model=spec), length_bins(dataset)) for spec in specs]
    best = chosen(dataset)
    share = correct(dataset).sel(model=best).mean("example").values
    lines = [
        study.table(rows),
        f"learnt from {dataset.attrs['learnt']} texts of {dataset.attrs['words']} known words; "
        f"tested once on {dataset.sizes['example']}",
        f"the fewest errors on what was kept out: {best}, test accuracy {_mean(share)} over seeds",
    ]
    for spec, (value, of) in PUBLISHED[dataset.attrs["data"]].items():
        lines.append(f"published, {spec}: {value} ({of})")
    gated = [spec for spec in ("lstm", "gru") if {"rnn", spec} <= set(specs)]
    return "\n".join([*lines, *(_lost(dataset, spec) for spec in gated), _verdict(dataset, gated)])


def _row(spec: str, data: "xarray.Dataset", bins: list[np.ndarray]) -> dict[str, str]:
    share, longest = correct(data), int(data.lag[-1])
    reached = [np.median(horizons(data.log_norm.sel(when=when))) for when in WHEN]
    return {
        "model": spec,
        "test accuracy": _mean(share.mean("example").values),
        "kept out": f"{1 - float(data.error.min('epoch').mean()):.3f}",
        "shortest": f"{float(share.isel(example=bins[0]).mean()):.3f}",
        "longest": f"{float(share.isel(example=bins[-1]).mean()):.3f}",
        "best epoch": f"{float(data.best_epoch.mean()):.1f}",
        **{f"horizon {w}": _steps(r, longest) for w, r in zip(WHEN, reached, strict=True)},
    }


def _steps(lag: float, longest: int) -> str:
    if np.isnan(lag):
        return "-"
    return f"{lag:.0f}" if np.isfinite(lag) else f"> {longest}"


def _mean(values: np.ndarray) -> str:
    low, high = flow.bootstrap(values)
    return f"{values.mean():.3f}" + (f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) else "")


def _lost(dataset: "xarray.Dataset", spec: str) -> str:
    """How many texts most seeds of the tanh RNN got wrong and most of the other right."""
    right = correct(dataset).mean("seed") > 0.5
    ours, theirs = right.sel(model=spec).values, right.sel(model="rnn").values
    length = dataset.length.values

    def words(texts: np.ndarray) -> str:
        return (
            f"{texts.sum()} (median {np.median(length[texts]):.0f} words)" if texts.any() else "0"
        )

    return (
        f"texts that rnn loses and {spec} keeps: {words(ours & ~theirs)}; that {spec} loses and "
        f"rnn keeps: {words(theirs & ~ours)}; all: {words(length > 0)}"
    )


def _verdict(dataset: "xarray.Dataset", gated: list[str]) -> str:
    if not gated:
        return "gated cells against the tanh RNN: not measured, which takes rnn, and lstm or gru"
    share, said = correct(dataset).mean("example"), []
    for spec in gated:
        more = share.sel(model=spec).values - share.sel(model="rnn").values
        low, high = flow.bootstrap(more)
        reached = [
            np.median(np.minimum(horizons(dataset.log_norm.sel(model=m, when="trained")), 1e9))
            for m in (spec, "rnn")
        ]
        word = study.verdict(low > 0 and reached[0] > reached[1])
        said.append(f"{spec}: {word} ({more.mean():+.3f} [{low:+.3f}, {high:+.3f}])")
    return (
        "gated cells, whose gradient reaches further, classify better than the tanh RNN, by this "
        f"run: {', '.join(said)}"
    )


EXPERIMENT = study.Experiment(
    name="classification",
    config=Config,
    run=run,
    figure=figure,
    closing=closing,
    quick={
        "models": "rnn,gru,bi_lstm(pooling='max'),conv",
        "embedding_size": 8,
        "hidden_size": 6,
        "num_seeds": 2,
        "num_epochs": 2,
        "flow_steps": 20,
        "flow_sequences": 2,
    },
    full={"num_seeds": 5, "hidden_size": 128, "num_epochs": 25},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
