"""Language models of characters: bits per character, and the gradient flow of the trained cells.

A cell reads one-hot characters in parallel streams, and a linear readout predicts the next one::

    p(x_{t+1} | x_1 ... x_t) = softmax(W h_t + b)          bits = log2 1/p(x_{t+1})

Backpropagation is truncated at a window, and the carry is passed from one window to the next. The
bits per character are those of the last tenth of the text, which is held out. Each of its
characters is predicted once, after a warm-up on the 2000 or more characters before it: from s_0 a
trained LSTM takes that long to reach the states of its training. On windows of the last tenth,
from s_0, log ‖∂h_T/∂h_k‖ is measured at initialisation and after training, and with --probe during
the training. The claims: lstm and gru need fewer bits than an rnn of as many units (the interval of
the paired differences lies above zero), and after training their gradient is above 1e-3 for more
steps. The pairs are the seeds. With a single seed they are stretches of text: the interval is then
over other text and not over other trainings.

Source: Karpathy, Johnson, Fei-Fei 2016, arXiv:1506.02078 (the set-up and the text); Feng, Tung,
Ahmed, Bengio, Hajimirsadeghi 2024, arXiv:2410.01201 (published losses, of three-layer nets).

    python experiments/char_lm --text=PATH
    python experiments/char_lm --text=PATH --sample="ROMEO:" --temperature=0.8
    python experiments/char_lm --text=PATH --cell=gru --probe=gates,adjoints --probe_every=600
    python experiments/char_lm --text=PATH --full

Any UTF-8 text will do; Tiny Shakespeare is published at https://github.com/karpathy/char-rnn, as
data/tinyshakespeare/input.txt. With --sample each trained network continues that text
by --num_characters characters; a finished run is not trained again. The
trained cells are in params/ of the record, for `vanishing.py --params=FILE --inputs=text:PATH`.
Takes three minutes on two cores at the defaults; --full, the LSTM of 512 × 2, half an hour, by
estimate.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from _kit import probes

from char_lm.config import Config
from char_lm.sampling import train_and_write
from char_lm.training import Reader, readers, train
from gradflow import flow, statistics, study
from gradflow.data.characters import TINY_SHAKESPEARE, read_characters
from gradflow.flow.summary import HORIZON
from gradflow.spec import parse_spec, split_specs

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHEN = ("at birth", "trained")

TARGET = 2.5
"""The bits per character that a net of the default size is to reach on Tiny Shakespeare."""

PUBLISHED = {"minGRU": 1.548, "Transformer": 1.547, "Mamba": 1.575}
"""Test losses on Tiny Shakespeare in nats per character: Feng et al. 2024."""


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains each cell from each seed; dimensions cell, seed, update, stretch, lag."""
    import xarray

    specs = split_specs(config.cell)
    if not specs:
        raise ValueError(f"Expected the name of a cell, got {config.cell!r}. Use for example lstm.")
    if config.text is None:
        raise ValueError(
            "Expected the file of a text, got none. Set --text=PATH, for example to Tiny "
            f"Shakespeare, which is published at {TINY_SHAKESPEARE}."
        )
    characters = read_characters(config.text)
    _ = config.schedule  # so that bad numbers are reported before any training
    todo, parts = readers(config, specs, characters), []
    for reader in todo:
        names = [f"cell={reader.spec},seed={seed}" for seed in range(config.num_seeds)]
        seeds = [
            once(name, partial(_measure, config, reader, seed, partial(once.folder, name)))
            for seed, name in enumerate(names)
        ]
        parts.append(xarray.concat(seeds, dim="seed"))
    whole = xarray.concat(parts, dim="cell", join="outer", coords="minimal")
    return whole.assign_attrs(  # pyright: ignore[reportReturnType]
        alphabet=characters.alphabet,
        num_characters=len(characters.codes),
        num_trained=characters.num_trained,
        characters_an_update=config.num_streams * config.window,
        alone=todo[0].task.baseline / np.log(2),
    )


def _measure(config: Config, reader: Reader, seed: int, folder: Any) -> "xarray.Dataset":
    import xarray

    last, run = jax.device_get(train(config, reader, seed, folder)), ("cell", "seed")
    params, lengths = last.state.params, np.asarray(reader.text.weights).sum(axis=0)
    bits, train_bits = (last.metrics[name][None, None] for name in ("stretch_bits", "train_bits"))
    each = {name: values[None, None] for name, values in last.probes.items()}
    probed = probes.variables(each, (*run, "probe_update"), axis="lag")
    dims, log_norm = probed["log_norms"]
    if "log_norms" not in split_specs(config.probe):
        del probed["log_norms"]
    return xarray.Dataset(
        {
            "bits": ((*run, "update", "stretch"), bits, {"of": "last tenth"}),
            "train_bits": ((*run, "update"), train_bits),
            "log_norm": (dims, log_norm, {"units": "nats"}),
            **probed,
            "num_weights": (run, [[sum(leaf.size for leaf in jax.tree.leaves(params["cell"]))]]),
            "readout_W": ((*run, "symbol", "unit"), params["readout"]["W"][None, None]),
            "readout_b": ((*run, "symbol"), params["readout"]["b"][None, None]),
        },
        coords={
            "cell": [reader.spec],
            "seed": [seed],
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
            "probe_update": ("probe_update", config.schedule.probings, {"units": "updates"}),
            "lag": ("lag", np.arange(log_norm.shape[-1]), {"units": "steps"}),
            "length": ("stretch", lengths, {"units": "characters"}),
            **probes.coordinates(last.probes),
        },
    )


def per_character(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """The bits of a character of the last tenth, by cell, seed and update."""
    return dataset.bits.weighted(dataset.length).mean("stretch")


def units(dataset: "xarray.Dataset", spec: str) -> np.ndarray:
    """The bits at the end of each seed; of a single seed, those of each stretch of text."""
    last = dataset.sel(cell=spec).isel(update=-1)
    several = dataset.sizes["seed"] > 1
    return per_character(last).values if several else last.bits.isel(seed=0).values


def over(dataset: "xarray.Dataset") -> str:
    """What the intervals are over."""
    return "seeds" if dataset.sizes["seed"] > 1 else "text"


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Bits along the training and at its end; the flow at birth and after it; the probes."""
    from matplotlib.figure import Figure

    heights = (2.7, 2.5, *(probes.ROW_HEIGHT for _ in probes.rows(dataset)))
    fig = Figure(figsize=(7.0, sum(heights)))
    top, middle, *rest = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_learning(left, dataset)
    _draw_ends(right, dataset)
    panels = middle.subplots(1, 2, sharey=True)
    for ax, when, at in zip(panels, WHEN, (0, -1), strict=True):
        _draw_flow(ax, dataset.log_norm.isel(probe_update=at))
        ax.set_title(f"Gradient flow along the last tenth, {when}")
    panels[0].set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|$")
    nets = {look["label"]: dataset.sel(cell=spec) for spec, look in _looks(dataset).items()}
    probes.draw_rows(rest, dataset, nets)
    return fig


def _looks(dataset: "xarray.Dataset") -> dict[str, dict[str, Any]]:
    """By cell, its label and its style."""
    specs = [str(spec) for spec in dataset.cell.values]
    return {
        spec: {"label": _short(spec), **study.figure.cell_style(parse_spec(spec)[0], index)}
        for index, spec in enumerate(specs)
    }


def _short(spec: str) -> str:
    """A stack by its layers; other cells as they are."""
    name, options = parse_spec(spec)
    return options["cells"].replace(",", " + ") if name == "stack" and options else spec


def _draw_learning(ax: "Axes", dataset: "xarray.Dataset") -> None:
    read = dataset["update"] * dataset.attrs["characters_an_update"] / 1e6
    found = per_character(dataset)
    for spec, look in _looks(dataset).items():
        study.figure.band(ax, read, found.sel(cell=spec), "seed", **look)
    published = PUBLISHED["minGRU"] / np.log(2)
    ax.axhline(published, color="black", lw=0.8, ls=(0, (1, 1)))
    ax.annotate("minGRU, published", (float(read[0]), published), fontsize=7, va="top")
    low, high = (float(end(found.isel(update=-1))) for end in (np.min, np.max))
    ax.set(
        xlabel="characters learnt from (millions)",
        ylabel="bits per character",
        title="The last tenth of the text, not learnt",
        ylim=(min(published, low) - 0.15, max(dataset.attrs["alone"], high) + 0.1),
    )
    ax.locator_params(axis="x", nbins=5)
    ax.legend()


def _draw_ends(ax: "Axes", dataset: "xarray.Dataset") -> None:
    ends = per_character(dataset).isel(update=-1).mean("seed")
    for place, (spec, look) in enumerate(_looks(dataset).items()):
        low, high = statistics.interval(units(dataset, spec))
        value = float(ends.sel(cell=spec))
        ax.plot([low, high], [place, place], color=look["color"], lw=2.5, alpha=0.5)
        ax.plot([value], [place], marker=look["marker"], color=look["color"], ms=6)
        ax.annotate(f"{value:.2f}", (value, place), (0, 6), textcoords="offset points",
                    fontsize=8, ha="center")  # fmt: skip
    ax.set(xlabel="bits per character", title=f"At the end; 95 % over {over(dataset)}")
    ax.set_yticks(
        range(dataset.sizes["cell"]), [look["label"] for look in _looks(dataset).values()]
    )
    ax.set_ylim(dataset.sizes["cell"] - 0.5, -0.7)
    ax.margins(x=0.15)


def _draw_flow(ax: "Axes", log_norm: "xarray.DataArray") -> None:
    for spec, look in _looks(log_norm.to_dataset()).items():
        decades = log_norm.sel(cell=spec) / np.log(10)
        study.figure.band(ax, log_norm.lag, decades, "seed", **look)
    ax.axhline(np.log10(HORIZON), color="black", lw=0.8, ls=(0, (1, 1)))
    ax.set(xlabel="lag T − k (characters)", xlim=(0, log_norm.sizes["lag"] - 1))


def summary(dataset: "xarray.Dataset") -> str:
    """Bits and horizons of each cell, what is published, and the verdict."""
    specs = [str(spec) for spec in dataset.cell.values]
    ends = per_character(dataset).isel(update=-1).mean("seed")
    best = specs[int(ends.argmin("cell"))]
    low, high = statistics.interval(units(dataset, best))
    published = ", ".join(f"{name} {nats / np.log(2):.2f}" for name, nats in PUBLISHED.items())
    held_out = dataset.attrs["num_characters"] - dataset.attrs["num_trained"]
    return "\n".join(
        [
            study.table([_row(spec, dataset) for spec in specs]),
            f"tested on the last {held_out} characters of {dataset.attrs['num_characters']}; "
            f"by their frequencies alone: {dataset.attrs['alone']:.2f} bits per character",
            f"published for Tiny Shakespeare, of larger nets and other tenths: {published}",
            f"best: {best}, {float(ends.min()):.3f} [{low:.3f}, {high:.3f}] bits per character; at "
            f"or below {TARGET}: {'yes' if float(ends.min()) <= TARGET else 'no'}",
            *_verdicts(dataset),
        ]
    )


def _row(spec: str, dataset: "xarray.Dataset") -> dict[str, str]:
    data = dataset.sel(cell=spec)
    low, high = statistics.interval(units(dataset, spec))
    ends = per_character(data).isel(update=-1)
    reached = [
        np.median(flow.horizons(data.log_norm.isel(probe_update=at).values)) for at in (0, -1)
    ]
    longest = dataset.sizes["lag"] - 1
    return {
        "cell": spec,
        "weights": f"{int(data.num_weights[0])}",
        "bits per character": f"{float(ends.mean()):.3f} [{low:.3f}, {high:.3f}]",
        "learnt": f"{float(data.train_bits.isel(update=-1).mean()):.3f}",
        **{
            f"horizon {when}": f"{lag:.0f}" if np.isfinite(lag) else f"> {longest}"
            for when, lag in zip(WHEN, reached, strict=True)
        },
    }


def _verdicts(dataset: "xarray.Dataset") -> list[str]:
    specs = [str(spec) for spec in dataset.cell.values]
    gated = [spec for spec in specs if spec in ("lstm", "gru")]
    if not gated or "rnn" not in specs:
        return ["gated cells against the tanh RNN: not measured, which takes rnn, and lstm or gru"]
    fewer, further = [], {}
    for spec in gated:
        saved = statistics.estimate(units(dataset, "rnn") - units(dataset, spec))
        fewer.append(f"{spec}: {study.verdict(saved.low > 0)} ({saved:+.3f})")
        reached = [
            np.median(flow.horizons(dataset.log_norm.sel(cell=c).isel(probe_update=-1).values))
            for c in (spec, "rnn")
        ]
        further[spec] = reached[0] > reached[1]
    return [
        f"gated cells need fewer bits than the tanh RNN, by this run: {', '.join(fewer)}; "
        f"intervals over {over(dataset)}",
        f"and their gradient reaches further once trained: {study.verdicts(further)}",
    ]


EXPERIMENT = study.Experiment(
    name="char_lm",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="sequences",
    order=5,
    gallery={"char_lm": study.Picture(("--text=data/input.txt",), ("data/input.txt",))},
    quick={
        "cell": "rnn,gru",
        "hidden_size": 8,
        "num_streams": 4,
        "window": 8,
        "num_updates": 60,
        "eval_every": 20,
        "flow_steps": 12,
        "flow_sequences": 2,
        "warm_up": 12,
    },
    full={
        "cell": "stack(cells='lstm,lstm')",
        "hidden_size": 512,
        "num_streams": 64,
        "window": 64,
        "num_updates": 1500,
        "eval_every": 125,
        "optimiser": "adam(learning_rate=0.003)",
    },
    doc=__doc__,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, unless that is done, and with --sample writes; returns the exit code."""
    return train_and_write(EXPERIMENT, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
