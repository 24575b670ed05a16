"""Text classification: accuracy of recurrent networks, and the gradient flow of the trained cells.

An embedding of words, one or two recurrent layers, in one direction or both, and a linear head on
the last hidden state, trained from scratch on TREC's questions, AG News or IMDB's reviews::

    scores = W h_L + b                             ``rnn``, ``lstm``, ``gru``, any cell
    scores = W [→h_L; ←h_1] + b                    ``bi_lstm``
    scores = W h_L of a second layer + b           ``two_gru``
    scores = W max_t relu(window at t) + b         ``conv``, without recurrence

The epoch with the fewest errors on a held-out tenth of the training set is tested once, at the
end. log ‖∂h_T/∂h_k‖ of the first forward cell is measured on the words of the test set, with the
texts concatenated, because many are short. The claim: the gated cells, whose gradient reaches
further, classify better than the tanh RNN.

With --probe the same cell is measured every few epochs on whole held-out texts of one length, the
longest that --flow_sequences of them have, so that there is no padding. The loss L in ∂L/∂h_k and
in the components of ∂L/∂W_h is then -log p(class) of the whole network, with its second layer and
pooling; →h_k reaches it through the forward cell alone, because ←h_k reads the words and not →h.

Source: Li & Roth 2002, doi:10.3115/1072228.1072378 (TREC); Zhang, Zhao, LeCun 2015,
arXiv:1509.01626 (AG News); Maas et al. 2011, https://aclanthology.org/P11-1015 (IMDB).

    python experiments/classification --data_dir=PATH
    python experiments/classification --data_dir=PATH --models='rnn,bi_gru(pooling="max")'
    python experiments/classification --data=imdb --data_dir=PATH --num_seeds=1 \\
        --models='bi_gru(pooling="max")' --embedding_size=64 --hidden_size=32 --num_epochs=5
    python experiments/classification --data=ag_news --data_dir=PATH --train_file=subset.csv
    python experiments/classification --data_dir=PATH --models=rnn,gru --probe=adjoints,gates

A model is a cell, with ``bi_`` or ``two_`` before it, and with ``pooling`` ("last", "max" or
"mean" over the steps) and ``recurrent_dropout`` among its options. Without the files, which are
not fetched, the run says where they are published. Takes five to six minutes on two cores at the
defaults, which are those of TREC. params/ has the cell of each model, of its first seed.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from _kit import probes

from classification.config import Config
from classification.nets import resolve_net
from classification.trainer import Trainer, check_probes, read_corpus
from gradflow import flow, statistics, study
from gradflow.spec import parse_spec, split_specs
from gradflow.study.config import sanitise

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains and tests each model from each seed; dimensions model, seed, example, lag."""
    import xarray

    sizes = config.embedding_size, config.hidden_size
    nets = {spec: resolve_net(spec, *sizes) for spec in split_specs(config.models)}
    if not nets:
        raise ValueError(
            f"Expected the name of a model, got {config.models!r}. Use for example gru."
        )
    check_probes(config, nets)
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
    return xarray.concat(parts, dim="model", join="outer", coords="minimal").assign(  # pyright: ignore[reportReturnType]
        label=("example", corpus.test.labels),
        length=("example", np.array(lengths), {"units": "words"}),
    )


def _one(trainer: Trainer, spec: str, seed: int, once: study.Once) -> "xarray.Dataset":
    import xarray

    folder = once.folder(f"model={spec},seed={seed}")
    done, corpus = trainer.fit(seed, folder), trainer.corpus
    best = done.state.best_params
    curves = [trainer.log_norms(params) for params in (trainer.initial(seed), best)]
    if folder is not None and seed == 0:
        trainer.save_cell(best, study.params_folder(folder) / sanitise(spec))
    predicted = trainer.log_likelihoods(best, corpus.test).argmax(axis=1)
    epochs = ("model", "seed", "epoch")
    probed, times = _probed(trainer, done.probes)
    return xarray.Dataset(
        {
            "predicted": (("model", "seed", "example"), predicted[None, None].astype(np.int16)),
            "error": (epochs, done.metrics["error"][None, None], {"of": "the tenth kept out"}),
            "train_loss": (epochs, done.metrics["train_loss"][None, None], {"units": "nats"}),
            "best_epoch": (("model", "seed"), [[done.state.best_epoch]]),
            "log_norm": (
                ("model", "seed", "when", "sequence", "lag"),
                np.stack(curves)[None, None],
                {"units": "nats", "norm": "spectral"},
            ),
            **probed,
        },
        coords={
            "model": [spec],
            "seed": [seed],
            "when": list(WHEN),
            "lag": ("lag", np.arange(curves[0].shape[-1]), {"units": "steps"}),
            **times,
        },
        attrs={
            "data": trainer.config.data,
            "classes": list(corpus.classes),
            "learnt": len(corpus.training.labels),
            "words": corpus.num_words,
        },
    )


def _probed(trainer: Trainer, found: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """What was probed along the epochs, as variables of the record, and their coordinates."""
    if not found:
        return {}, {}
    each = {name: values[None, None] for name, values in found.items()}
    times = trainer.schedule.probings
    return (
        probes.variables(each, ("model", "seed", "probe_epoch")),
        {"probe_epoch": ("probe_epoch", times, {"units": "epochs"}), **probes.coordinates(found)},
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
    """Accuracy by model, against the horizon and by length; confusions; below them the probes."""
    from matplotlib.figure import Figure

    heights = (6.4, *(probes.ROW_HEIGHT for _ in probes.rows(dataset)))
    fig = Figure(figsize=(7.6, sum(heights)))
    parts: Any = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    top, *rest = parts[:, 0]
    (accuracy, reach), (length, confusion) = top.subplots(2, 2)
    _draw_accuracy(accuracy, dataset)
    _draw_reach(reach, dataset)
    _draw_lengths(length, dataset)
    _draw_confusion(confusion, dataset)
    nets = {words_of(spec): dataset.sel(model=spec) for spec in map(str, dataset.model.values)}
    probes.draw_rows(rest, dataset, nets, time="epoch")
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
    ax.set(xlabel="said", ylabel="true class", title=f"Per cent of a class\n{said}")


def summary(dataset: "xarray.Dataset") -> str:
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
    low, high = statistics.interval(values)
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
        more = statistics.estimate(share.sel(model=spec).values - share.sel(model="rnn").values)
        reached = [
            np.median(np.minimum(horizons(dataset.log_norm.sel(model=m, when="trained")), 1e9))
            for m in (spec, "rnn")
        ]
        word = study.verdict(more.low > 0 and reached[0] > reached[1])
        said.append(f"{spec}: {word} ({more:+.3f})")
    return (
        "gated cells, whose gradient reaches further, classify better than the tanh RNN, by this "
        f"run: {', '.join(said)}"
    )


EXPERIMENT = study.Experiment(
    name="classification",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="sequences",
    order=4,
    gallery={
        "classification": study.Picture(
            ("--data=trec", "--data_dir=data"), ("data/train_5500.label", "data/TREC_10.label")
        )
    },
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; returns the exit code."""
    return study.main(EXPERIMENT, argv)
