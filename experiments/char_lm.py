"""The next character of a text: what recurrent nets come to, with the flow of the trained ones.

A cell reads one-hot characters in streams side by side, and a linear readout says the next one::

    p(x_{t+1} | x_1 ... x_t) = softmax(W h_t + b)          bits = log2 1/p(x_{t+1})

Truncated backpropagation goes back over a window, and the carry goes on from one to the next. The
bits per character are those of the last tenth of the text, which is not learnt, each of its
characters said once, with the carry of the 2000 and more before it: from s_0 a trained LSTM takes
as long to come to the states that it was trained in. On windows of it, from s_0, log ‖∂h_T/∂h_k‖ is
measured at birth and after training. The claim, in two parts: lstm and gru, each against rnn of as
many units, need fewer bits, by an interval over the same stretches of text that lies above zero;
and after training their gradient is above 1e-3 for more steps.

Source: Karpathy, Johnson, Fei-Fei 2016, arXiv:1506.02078 (the set-up and the text); Feng, Tung,
Ahmed, Bengio, Hajimirsadeghi 2024, arXiv:2410.01201 (published losses, of three-layer nets).

    python experiments/char_lm.py --text=PATH
    python experiments/char_lm.py --text=PATH --sample="ROMEO:" --temperature=0.8
    python experiments/char_lm.py --text=PATH --cell=gru --probe=gates,adjoints --probe_every=500
    python experiments/char_lm.py --text=PATH --full

Any UTF-8 text will do; Tiny Shakespeare is published at https://github.com/karpathy/char-rnn, as
data/tinyshakespeare/input.txt. With --sample, once the run is finished, each net goes on from that
text, character by character, --num_characters of them; the same command again writes at once. The
trained cells are in params/ of the record, for `vanishing.py --params=FILE --inputs=text:PATH`.
Takes three minutes on two cores at the defaults; --full, the LSTM of 512 × 2, half an hour, by
estimate.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.data.characters import (
    TINY_SHAKESPEARE,
    Characters,
    as_streams,
    as_stretches,
    encode,
    read_characters,
)
from gradflow.flow.summary import HORIZON
from gradflow.spec import parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.study.config import sanitise
from gradflow.study.flags import parse
from gradflow.study.record import default_workdir
from gradflow.tasks.reading import reading
from gradflow.train.clipping import resolve_clipping
from gradflow.train.fit import Schedule
from gradflow.train.keeper import Keeper
from gradflow.train.language import Language, State, advance, begin, bits, num_windows
from gradflow.train.language import write as write_symbols
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.probes import Probing, probe, probe_shapes, resolve_probes

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

WHEN = ("at birth", "trained")

TARGET = 2.5
"""The bits per character that a net of the default size is to reach on Tiny Shakespeare."""

PUBLISHED = {"minGRU": 1.548, "Transformer": 1.547, "Mamba": 1.575}
"""Test losses on Tiny Shakespeare in nats per character: Feng et al. 2024."""


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
    probe: str = study.field(
        "", help="Probes beside log_norms, separated by commas: adjoints, components, gates, "
        "spectrum."
    )  # fmt: skip
    probe_every: int | None = study.field(
        None, help="Updates between two probings; by default first and last.", positive=True
    )
    flow_steps: int = study.field(200, help="Characters over which it is probed.", positive=True)
    flow_sequences: int = study.field(4, help="Windows that are probed.", positive=True)
    warm_up: int = study.field(
        2000, help="Characters read before each stretch of the last tenth.", positive=True
    )

    @property
    def schedule(self) -> Schedule:
        """When the net is looked at."""
        every = self.probe_every or self.num_updates
        return Schedule(self.num_updates, self.eval_every, every, early_stop=False)


class Progress(NamedTuple):
    """How far a training is: its state, and what has been found, NaN where not reached.

    Attributes:
      state: After the next evaluation it is gone, for its memory is reused.
      update: How many updates have been made.
      bits: Of each stretch of the last tenth, by evaluation.
      learnt: Mean bits over the windows since the evaluation before.
      probes: By name, (probings, ...).
    """

    state: State
    update: int
    bits: np.ndarray
    learnt: np.ndarray
    probes: dict[str, np.ndarray]


class Trainer:
    """One cell on one text: what is compiled once serves all its seeds."""

    def __init__(self, config: Config, spec: str, text: Characters) -> None:
        self.config, self.spec, self.text = config, spec, text
        self.schedule = config.schedule
        factory = resolve(spec)
        check_structure(factory)
        self.language = Language(
            factory(len(text.alphabet), config.hidden_size),
            len(text.alphabet),
            resolve_optimiser(config.optimiser),
            resolve_clipping(config.clipping),
            config.window,
            config.num_updates,
        )
        split, wide = text.num_trained, config.num_streams
        self.streams = jnp.asarray(as_streams(text.codes[:split], wide))
        num_windows(len(self.streams), config.window)
        self.held_out = as_stretches(text.codes, split, wide, config.warm_up)
        self.reading = reading(text.codes[split:], len(text.alphabet), config.flow_steps)
        names = ("log_norms", *resolve_probes(config.probe, self.language.cell))
        k_probe = jax.random.fold_in(jax.random.key(config.seed), 1)
        self.probing = Probing(tuple(dict.fromkeys(names)), k_probe, config.flow_sequences)

    @cached_property
    def _held_out(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.held_out.codes), jnp.asarray(self.held_out.weights)

    def fit(self, seed: int, folder: Path | None) -> Iterator[Progress]:
        """Trains to the end; with a folder, a killed training goes on from its last evaluation."""
        identity = {**dataclasses.asdict(self.config), "cell": self.spec, "seed": seed}
        with contextlib.nullcontext() if folder is None else Keeper(folder, identity) as keeper:
            progress = self._empty(seed)
            stored = None if keeper is None else keeper.restore(_to_arrays(progress))
            if stored is None:
                progress = self._look(progress, np.nan, keeper)
            else:
                log = jax.tree.map(np.array, stored)  # a copy, to be written to
                state = jax.tree.map(jnp.array, stored.state)
                progress = log._replace(state=state, update=int(stored.update))
            yield progress
            while progress.update < self.schedule.num_updates:
                every = self.schedule.eval_every
                state, losses = advance(self.language, progress.state, self.streams, every)
                learnt = float(jnp.mean(losses)) / np.log(2)
                progress = progress._replace(state=state, update=progress.update + every)
                progress = self._look(progress, learnt, keeper)
                yield progress

    def _empty(self, seed: int) -> Progress:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), 0), seed)
        state = begin(self.language, key, self.config.num_streams)
        times, probings = len(self.schedule.evaluations), len(self.schedule.probings)
        shapes = self._probed(probe_shapes, state)
        return Progress(
            state,
            0,
            np.full((times, self.held_out.codes.shape[1]), np.nan),
            np.full(times, np.nan),
            {name: np.full((probings, *like.shape[1:]), np.nan) for name, like in shapes.items()},
        )

    def _probed(self, what: Any, state: State) -> Any:
        """A probing, or its shapes, of one run."""
        one = jax.tree.map(lambda leaf: leaf[None], state.params)
        return what(self.language.cell, self.reading, one, self.probing)

    def _look(self, progress: Progress, learnt: float, keeper: Keeper | None) -> Progress:
        """Reads the last tenth, probes, enters both in the log, and keeps it."""
        index, every = progress.update // self.schedule.eval_every, self.schedule.probe_every or 1
        found = np.asarray(bits(self.language, progress.state.params, *self._held_out))
        progress.bits[index], progress.learnt[index] = found, learnt
        if progress.update % every == 0:
            for name, values in self._probed(probe, progress.state).items():
                progress.probes[name][progress.update // every] = values[0]
        if keeper is not None:
            row = {"bits": float(np.nanmean(found)), "train_bits": learnt}
            keeper.keep(progress.update, _to_arrays(progress), row, {})
        return progress

    def save_cell(self, params: "Params", path: Path) -> None:
        """Writes the trained cell, to be measured and to write with."""
        from gradflow.interop import save_params

        save_params(
            path,
            params["cell"],
            cell=self.spec,
            input_size=len(self.text.alphabet),
            hidden_size=self.config.hidden_size,
        )


def _to_arrays(progress: Progress) -> Progress:
    return jax.device_get(progress._replace(update=np.int64(progress.update)))  # pyright: ignore[reportArgumentType]


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains each cell from each seed; dimensions cell, seed, update, stretch, lag."""
    import xarray

    specs = split_specs(config.cell)
    if not specs:
        raise ValueError(f"the name of a cell is expected, got {config.cell!r}; try lstm")
    if config.text is None:
        raise ValueError(
            "a text is expected: name its file by --text=PATH, for instance Tiny Shakespeare, "
            f"which is published at {TINY_SHAKESPEARE}"
        )
    text = read_characters(config.text)
    trainers = {spec: Trainer(config, spec, text) for spec in specs}  # so that errors come at once
    parts = []
    for spec, trainer in trainers.items():
        names = [f"cell={spec},seed={seed}" for seed in range(config.num_seeds)]
        seeds = [
            once(name, partial(_train, trainer, seed, once.folder, name))
            for seed, name in enumerate(names)
        ]
        parts.append(xarray.concat(seeds, dim="seed"))
    return xarray.concat(parts, dim="cell", join="outer")  # pyright: ignore[reportReturnType]


def _train(trainer: Trainer, seed: int, folder_of: Any, name: str) -> "xarray.Dataset":
    folder = folder_of(name)
    *_, last = study.progress(trainer.fit(seed, folder), f"{name}, evaluations")
    if folder is not None and seed == 0:
        trainer.save_cell(last.state.params, _params_file(folder.parents[1], trainer.spec))
    return _dataset(trainer, seed, last)


def _params_file(record: Path, spec: str) -> Path:
    return record / "params" / f"{sanitise(spec)}.safetensors"


def _dataset(trainer: Trainer, seed: int, last: Progress) -> "xarray.Dataset":
    import xarray

    params, text, config = jax.device_get(last.state.params), trainer.text, trainer.config
    run, width = ("cell", "seed"), config.num_streams * config.window
    probes = dict(last.probes)
    norms = probes.pop("log_norms")[:, ::-1]
    return xarray.Dataset(
        {
            "bits": ((*run, "update", "stretch"), last.bits[None, None], {"of": "last tenth"}),
            "train_bits": ((*run, "update"), last.learnt[None, None]),
            "log_norm": ((*run, "probe_update", "lag"), norms[None, None], {"units": "nats"}),
            **{
                f"probe.{name}": (
                    (*run, "probe_update", "index" if name == "spectrum" else "step"),
                    (values if name == "spectrum" else _from_zero(values, norms))[None, None],
                )
                for name, values in sorted(probes.items())
            },
            "num_weights": (run, [[sum(leaf.size for leaf in jax.tree.leaves(params["cell"]))]]),
            "readout_W": ((*run, "symbol", "unit"), params["readout"]["W"][None, None]),
            "readout_b": ((*run, "symbol"), params["readout"]["b"][None, None]),
        },
        coords={
            "cell": [trainer.spec],
            "seed": [seed],
            "update": ("update", trainer.schedule.evaluations, {"units": "updates"}),
            "probe_update": ("probe_update", trainer.schedule.probings, {"units": "updates"}),
            "lag": ("lag", np.arange(norms.shape[-1]), {"units": "steps"}),
            "length": ("stretch", trainer.held_out.weights.sum(axis=0), {"units": "characters"}),
        },
        attrs={
            "alphabet": text.alphabet,
            "num_characters": len(text.codes),
            "num_trained": text.num_trained,
            "characters_an_update": width,
            "alone": trainer.reading.baseline / np.log(2),
        },
    )


def _from_zero(values: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """What a probe finds at each step from 0 on: NaN there, where it begins at step 1."""
    missing = norms.shape[-1] - values.shape[-1]
    return np.pad(values, ((0, 0), (missing, 0)), constant_values=np.nan)


def per_character(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """The bits of a character of the last tenth, by cell, seed and update."""
    return dataset.bits.weighted(dataset.length).mean("stretch")


def horizons(log_norm: "xarray.DataArray") -> np.ndarray:
    """The first lag at which each curve is 1e-3 or less; infinite where it never is."""
    gone = log_norm.transpose(..., "lag").values <= np.log(HORIZON)
    return np.where(gone.any(axis=-1), gone.argmax(axis=-1), np.inf)


def interval(dataset: "xarray.Dataset", spec: str) -> tuple[float, float]:
    """95 % of the bits at the end: over seeds, or of one seed over the stretches of text."""
    last = dataset.sel(cell=spec).isel(update=-1)
    if dataset.sizes["seed"] > 1:
        return flow.bootstrap(per_character(last).values)
    return flow.bootstrap(last.bits.isel(seed=0).values)


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Bits along the training and at its end; below them the flow at birth and after it."""
    from matplotlib.figure import Figure

    probes = [str(name) for name in dataset if str(name).startswith("probe.")]
    fig = Figure(figsize=(7.0, 5.2 + 1.6 * len(probes)))
    heights = (2.7, 2.5, *(1.6 for _ in probes))
    top, middle, *rows = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_learning(left, dataset)
    _draw_ends(right, dataset)
    panels = middle.subplots(1, 2, sharey=True)
    for ax, when, at in zip(panels, WHEN, (0, -1), strict=True):
        _draw_flow(ax, dataset.log_norm.isel(probe_update=at))
        ax.set_title(f"Gradient flow along the last tenth, {when}")
    panels[0].set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|$")
    for row, name in zip(rows, probes, strict=True):
        _draw_probe(row, dataset[name])
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
        low, high = interval(dataset, spec)
        value = float(ends.sel(cell=spec))
        ax.plot([low, high], [place, place], color=look["color"], lw=2.5, alpha=0.5)
        ax.plot([value], [place], marker=look["marker"], color=look["color"], ms=6)
        ax.annotate(f"{value:.2f}", (value, place), (0, 6), textcoords="offset points",
                    fontsize=8, ha="center")  # fmt: skip
    over = "seeds" if dataset.sizes["seed"] > 1 else "text"
    ax.set(xlabel="bits per character", title=f"At the end; 95 % over {over}")
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


def _draw_probe(row: Any, values: "xarray.DataArray") -> None:
    """One map a cell, over the updates, of one probe."""
    cells = [str(cell) for cell in values.cell.values]
    name = str(values.name).removeprefix("probe.")
    panels = row.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    shown = values.median("seed")
    if not name.startswith("gates."):
        shown = shown / np.log(10)
    shown = shown.where(np.isfinite(shown))
    limits = {"vmin": float(shown.min()), "vmax": float(shown.max())}
    axis = shown.dims[-1]
    meshes = []
    for ax, cell in zip(panels, cells, strict=True):
        image = shown.sel(cell=cell).transpose(axis, "probe_update")
        places = np.arange(shown.sizes[axis])
        look: Any = {"shading": "nearest", "cmap": "cividis", "rasterized": True, **limits}
        meshes.append(ax.pcolormesh(shown.probe_update, places, image.values, **look))
        ax.grid(False)
        ax.set_title(_short(cell), fontsize=8)
    panels[0].set_ylabel("index" if axis == "index" else "step k")
    row.supxlabel("update", fontsize=9)
    label = f"{name}: saturated share" if name.startswith("gates.") else f"{name} (log₁₀)"
    row.colorbar(meshes[0], ax=list(panels)).set_label(label, fontsize=7)


def closing(dataset: "xarray.Dataset") -> str:
    """Bits and horizons of each cell, what is published, and the verdict."""
    specs = [str(spec) for spec in dataset.cell.values]
    ends = per_character(dataset).isel(update=-1).mean("seed")
    best = specs[int(ends.argmin("cell"))]
    low, high = interval(dataset, best)
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
    low, high = interval(dataset, spec)
    ends = per_character(data).isel(update=-1)
    reached = [np.median(horizons(data.log_norm.isel(probe_update=at))) for at in (0, -1)]
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
    last = dataset.bits.isel(update=-1)
    fewer, further = [], []
    for spec in gated:
        # The same stretches for both, and the same seeds: each pair is one difference.
        saved = (last.sel(cell="rnn") - last.sel(cell=spec)).values.ravel()
        low, high = flow.bootstrap(saved)
        fewer.append(
            f"{spec}: {study.verdict(low > 0)} ({saved.mean():+.3f} [{low:+.3f}, {high:+.3f}])"
        )
        reached = [
            np.median(horizons(dataset.log_norm.sel(cell=c).isel(probe_update=-1)))
            for c in (spec, "rnn")
        ]
        further.append(f"{spec}: {study.verdict(bool(reached[0] > reached[1]))}")
    return [
        f"gated cells need fewer bits than the tanh RNN, by this run: {', '.join(fewer)}",
        f"and their gradient reaches further once trained: {', '.join(further)}",
    ]


def write(
    record: Path, start: str, temperature: float, num_characters: int, seed: int
) -> Iterator[str]:
    """What each net of a finished run writes, piece by piece, from a text that it begins with.

    Raises:
      ValueError: If the text is empty or has a character that the net has not seen, or the
        temperature is not above zero.
      OSError: If there is no finished run.
    """
    from gradflow.interop import read_description, read_params

    dataset = study.read_dataset(record / "result.nc")
    alphabet = dataset.attrs["alphabet"]
    codes = encode(start, alphabet)
    for spec in map(str, dataset.cell.values):
        path = _params_file(record, spec)
        about = read_description(path)
        cell = resolve(about.cell)(about.input_size, about.hidden_size)
        own = read_params(path, jax.eval_shape(cell.init, jax.eval_shape(jax.random.key, 0)))
        data = dataset.sel(cell=spec).isel(seed=0)
        W, b = data.readout_W.dropna("unit", how="all").values, data.readout_b.values
        params = {"cell": own, "readout": {"W": jnp.asarray(W), "b": jnp.asarray(b)}}
        drawn = write_symbols(cell, params, codes, jax.random.key(seed), temperature)
        yield f"\n--- {spec}, temperature {temperature:g} ---\n{start}"
        for _, code in zip(range(num_characters), drawn, strict=False):
            yield alphabet[code]
        yield "\n"


EXPERIMENT = study.Experiment(
    name="char_lm",
    config=Config,
    run=run,
    figure=figure,
    closing=closing,
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
    arguments = sys.argv[1:] if argv is None else list(argv)
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--sample")
    reader.add_argument("--temperature", type=float, default=0.8)
    reader.add_argument("--num_characters", type=int, default=500)
    try:
        asked, rest = reader.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    code = study.main(EXPERIMENT, rest)
    if code or asked.sample is None:
        return code
    request = parse(EXPERIMENT, rest)
    options = request.options
    config = EXPERIMENT.resolve(request.given, quick=options.quick, full=options.full)
    folder = Path(options.workdir or default_workdir(EXPERIMENT.name, config)).expanduser()
    try:
        with study.precision(config):
            how = asked.temperature, asked.num_characters, config.seed
            for piece in write(folder, asked.sample, *how):
                print(piece, end="", flush=True)
    except (ValueError, OSError) as error:
        print("error:", *str(error).split(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
