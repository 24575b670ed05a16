"""Encoder-decoders: accuracy on rewritten dates, and the gradient from the decoder to the encoder.

The encoder reads characters. The decoder starts from the encoder's last carry s_T and writes
characters, each given the one before it: in training the true one (teacher forcing), in use its own
most likely one (free-running). Dates such as ``23 Nov 2026`` become ``2026-11-23``; or digits are
reversed. A tenth of all dates is held out. The flow is log ‖∂L/∂s_k‖ of the decoder's
cross-entropy L with respect to each carry of the decoder and, from ∂L/∂s_T on, of the encoder::

    ∂L/∂s_k = (∂L/∂s_T) J_T J_{T-1} ... J_{k+1}        s_T: the carry that is handed over

A sequence is correct if all its characters are. (The accuracy of sequences is the same under
teacher forcing and free-running, because both read the true characters before the first error; the
accuracy of characters is not.) Three claims, each decided by the 95 % interval over seeds: (1) the
gated cells get more held-out sequences right than tanh; (2) free-running costs accuracy of
characters, on average over the training; (3) training increases the gradient at the encoder's first
step, relative to that at its last.

Source: Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078; Williams &
Zipser 1989, doi:10.1162/neco.1989.1.2.270 (teacher forcing).

    python experiments/seq2seq
    python experiments/seq2seq --task=reversal --length=8
    python experiments/seq2seq --task=reversal --full
    python experiments/seq2seq --probe=log_norms,components,gates

Takes about two minutes on two cores at the defaults. A killed run goes on from its last
evaluation; params/ has the trained encoder and decoder of each cell.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from _kit import probes

from gradflow import statistics, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.spec import parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.study.config import sanitise
from gradflow.train.prober import Prober
from gradflow.train.probes import prober
from seq2seq.config import Config
from seq2seq.rewriter import Rewriter
from seq2seq.strings import Pairs, Rewriting, dates, reversal, spelled
from seq2seq.training import METRICS, Encoding, Rewriters, log_adjoints

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

STAGES = ("birth", "end")


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains and measures each cell; dimensions cell, seed, update, stage, step, example."""
    import xarray

    specs = split_specs(config.cells)
    if not specs:
        raise ValueError(
            f"Expected the name of a cell, got {config.cells!r}. Use for example lstm."
        )
    _ = config.schedule  # so that bad numbers are reported before any training
    data = dates(config.num_formats) if config.task == "dates" else reversal(config.length)
    nets = {f"cell={spec}": (spec, _net(spec, config, data)) for spec in specs}
    parts = [
        once(name, partial(_measure, config, data, spec, net, partial(once.folder, name)))
        for name, (spec, net) in nets.items()
    ]
    return xarray.concat(parts, dim="cell", join="outer", coords="minimal").assign_attrs(
        task=config.task
    )


def _net(spec: str, config: Config, data: Rewriting) -> Rewriter:
    factory, num_read, num_written = resolve(spec), len(data.read), len(data.written)
    check_structure(factory)
    encoder, decoder = (factory(size, config.hidden_size) for size in (num_read, num_written))
    return Rewriter(encoder, decoder, num_read, num_written)


def _measure(
    config: Config, data: Rewriting, spec: str, net: Rewriter, folder: Any
) -> "xarray.Dataset":
    """Trains the nets of one cell, and measures them before and after."""
    import xarray

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    born = jax.device_get(jax.jit(jax.vmap(net.init))(keys))
    place, identity = folder(), {**dataclasses.asdict(config), "cell": spec}
    nets = Rewriters(net, data, config)
    steps = nets.fit(born, measure=_prober(config, net, data), folder=place, identity=identity)
    *_, last = study.progress(steps, f"{spec}, evaluations")
    trained = jax.device_get(last.state.params)
    if place is not None:
        _save(study.params_folder(place), spec, (net, config), trained)
    probed = data.test.of_one_length(config.num_probed)
    num_encoder, num_decoder = probed.sources.shape[1], probed.targets.shape[1]
    found = {name: np.moveaxis(values, 0, 1) for name, values in last.probes.items()}
    variables = probes.variables(found, ("seed", "probe_update"), axis="lag")
    return xarray.Dataset(
        {
            **{name: (("seed", "update"), last.metrics[name].T) for name in METRICS},
            **variables,
            "log_adjoint": _norms(net, probed, (born, trained)),
            **_examples(net, data, trained),
        },
        coords={
            "stage": list(STAGES),
            "step": np.arange(-num_encoder, num_decoder + 1),
            "update": config.schedule.evaluations,
            **({"probe_update": config.schedule.probings} if found else {}),
            **({"lag": np.arange(num_encoder + 1)} if found else {}),
            **probes.coordinates(found),
        },
    ).expand_dims(cell=[spec])


def _norms(net: Rewriter, pairs: Pairs, stages: "Iterable[Params]") -> tuple:
    """`log_adjoints` of every net and pair at each stage."""

    def of_net(params: "Params") -> jax.Array:
        return map_runs(lambda *pair: log_adjoints(net, params, Pairs(*pair)))(*pairs)

    with jax.enable_x64(True):
        measure = jax.jit(map_runs(of_net))
        norms = [jax.device_get(measure(jax.tree.map(np.float64, params))) for params in stages]
    return ("stage", "seed", "sequence", "step"), np.stack(norms)


def _examples(net: Rewriter, data: Rewriting, params: "Params") -> dict[str, tuple]:
    """What is read, what is to be written, and what each net writes."""
    shown = data.test.at(np.arange(6))

    @jax.jit
    def free(params: "Params", pairs: Pairs) -> jax.Array:
        num_steps = pairs.targets.shape[1]
        write = partial(net.free, lengths=pairs.lengths)
        return jax.vmap(lambda p: write(p, pairs.sources.T, num_steps))(params)

    written = jax.device_get(free(params, shown))
    return {
        "source": ("example", [spelled(row, data.read) for row in shown.sources]),
        "target": ("example", [spelled(row, data.written) for row in shown.targets]),
        "output": (
            ("seed", "example"),
            [[spelled(row, data.written) for row in of_net.T] for of_net in written],
        ),
    }


def _save(folder: Path, spec: str, what: tuple[Rewriter, Config], params: "Params") -> None:
    """Writes the encoder and the decoder of the first seed."""
    net, config = what
    for name, input_size in (("encoder", net.num_read), ("decoder", net.num_written)):
        save_params(
            folder / f"{sanitise(spec)}_{name}.safetensors",
            jax.tree.map(lambda leaf: leaf[0], params[name]),
            cell=spec,
            input_size=input_size,
            hidden_size=config.hidden_size,
        )


def _prober(config: Config, net: Rewriter, data: Rewriting) -> Prober | None:
    """Measures the encoder during the training, on the pairs that the flow is measured on."""
    names = probes.names(config.probe, net.encoder)
    if not names:
        return None
    return prober(names, Encoding(net), data.test.of_one_length(config.num_probed))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """What is right, by update; the flow over both halves, birth and end; examples; the probes."""
    from matplotlib.figure import Figure

    maps = probes.rows(dataset)
    heights = (2.6, 2.6, 1.8, *(probes.ROW_HEIGHT for _ in maps))
    fig = Figure(figsize=(7.0, sum(heights)))
    parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    top, middle, bottom, *rest = parts
    left, right = top.subplots(1, 2)
    _draw_shares(left, right, dataset)
    _draw_flow(middle.subplots(1, 2, sharey=True), dataset)
    _draw_examples(bottom.subplots(), dataset)
    nets = {f"encoder, {cell}": dataset.sel(cell=cell) for cell in map(str, dataset.cell.values)}
    probes.draw_rows(rest, dataset, nets, state="s")
    return fig


def _looks(dataset: "xarray.Dataset") -> Iterator[tuple[str, "xarray.Dataset", dict]]:
    for index, cell in enumerate(map(str, dataset.cell.values)):
        look = study.figure.cell_style(parse_spec(cell)[0], index) | {"label": cell}
        yield cell, dataset.sel(cell=cell), look


def _draw_shares(left: "Axes", right: "Axes", dataset: "xarray.Dataset") -> None:
    for _, data, look in _looks(dataset):
        study.figure.band(left, data["update"], 100 * data.sequences, "seed", **look)
        study.figure.band(right, data["update"], 100 * (1 - data.free), "seed", **look)
        forced = 100 * (1 - data.forced.median("seed"))
        right.plot(data["update"], forced, color=look["color"], lw=0.8, alpha=0.9)
    left.set(
        xlabel="update",
        ylabel="sequences right (%)",
        ylim=(-3, 103),
        title="Held out: median and 10–90 % over seeds",
    )
    left.legend()
    right.set(
        xlabel="update",
        ylabel="characters wrong (%)",
        ylim=(0, None),
        title="Running free; thin: teacher forced",
    )


def _draw_flow(panels: "np.ndarray", dataset: "xarray.Dataset") -> None:
    for ax, stage in zip(panels, STAGES, strict=True):
        for _, data, look in _looks(dataset):
            decades = data.log_adjoint.sel(stage=stage).median("sequence") / np.log(10)
            study.figure.band(ax, data.step, decades, "seed", **look)
        ax.axvline(0, color="#808080", lw=0.8)
        ax.set(xlabel="encoder  ←  step from the hand-over  →  decoder", title=f"Flow at {stage}")
    panels[0].set_ylabel(r"$\log_{10}\,\|\partial L/\partial s_k\|$")


def _draw_examples(ax: "Axes", dataset: "xarray.Dataset") -> None:
    """A row for each example; what the first seed of a cell got wrong has a cross behind it."""
    cells = [str(cell) for cell in dataset.cell.values]
    columns = ["read", "to be written", *cells]
    places = np.cumsum([0, 0.27, *(0.19 for _ in cells)])
    ax.set(xlim=(0, max(1, places[-1] + 0.17)), ylim=(-len(dataset.example) - 0.5, 0.7))
    ax.axis("off")
    for x, column in zip(places, columns, strict=True):
        ax.text(x, 0, column, fontsize=8, fontweight="bold")
    size = min(7.0, 150 / max(len(str(text)) for text in dataset.source.values.flat))
    for i in range(dataset.sizes["example"]):
        data = dataset.isel(example=i)
        target = str(data.target.values[0])
        row = [str(data.source.values[0]), target, *map(str, data.output.isel(seed=0).values)]
        for x, text in zip(places, row, strict=True):
            wrong = x > places[1] and text != target
            look = {
                "fontsize": size,
                "family": "monospace",
                "color": "#A02000" if wrong else "black",
            }
            ax.text(x, -i - 1, f"{text} ×" if wrong else text, **look)


def reaching(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """log ‖∂L/∂s_1‖ - log ‖∂L/∂s_T‖ of the encoder, by cell, stage and seed, in nats."""
    first = dataset.log_adjoint.isel(step=1) - dataset.log_adjoint.sel(step=0)
    return first.median("sequence")


def summary(dataset: "xarray.Dataset") -> str:
    """What each cell came to, and whether the three claims hold in this run."""
    last = dataset.isel(update=-1)
    rows = [_row(str(cell), last.sel(cell=cell)) for cell in dataset.cell.values]
    wrong = (dataset.forced - dataset.free).mean("update")
    lift = reaching(dataset).sel(stage="end") - reaching(dataset).sel(stage="birth")
    lifts = "training lifts the gradient at the encoder's first step"
    lines = [
        _gates(last),
        f"running free costs characters, by this run: {_above_zero(wrong)}",
        f"{lifts}, by this run: {_above_zero(lift)}",
    ]
    return "\n".join([study.table(rows), "(means over seeds, 95 % intervals)", *lines])


def _row(cell: str, data: "xarray.Dataset") -> dict[str, str]:
    birth, end = (reaching(data).sel(stage=stage) / np.log(10) for stage in STAGES)
    return {
        "cell": cell,
        "sequences right": f"{statistics.estimate(data.sequences.values):.3f}",
        "characters, forced": f"{float(data.forced.mean()):.4f}",
        "free": f"{float(data.free.mean()):.4f}",
        "∂L/∂s₁ over ∂L/∂s_T (decades) at birth": f"{statistics.estimate(birth.values):.2f}",
        "at the end": f"{statistics.estimate(end.values):.2f}",
    }


def _gates(last: "xarray.Dataset") -> str:
    """Whether each gated cell is better than the first cell, the vanilla one, over all seeds."""
    claim = "gated cells get more sequences right than tanh"
    if "rnn" not in last.cell.values or last.sizes["cell"] == 1:
        return f"{claim}: not judged without rnn and another"
    gain = last.sequences - last.sequences.sel(cell="rnn")
    return f"{claim}, by this run: {_above_zero(gain.drop_sel(cell='rnn'))}"


def _above_zero(values: "xarray.DataArray") -> str:
    """The verdict on each cell: whether the interval of its mean over seeds is above 0."""
    found = {str(c): statistics.estimate(values.sel(cell=c).values) for c in values.cell.values}
    return study.verdicts({cell: mean.low > 0 for cell, mean in found.items()})


EXPERIMENT = study.Experiment(
    name="seq2seq",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="sequences",
    order=3,
    gallery={"seq2seq": study.Picture()},
    quick={
        "cells": "rnn,lstm",
        "hidden_size": 6,
        "batch_size": 8,
        "num_updates": 6,
        "num_evaluations": 3,
        "eval_size": 16,
        "num_probed": 2,
        "num_seeds": 3,
    },
    full={
        "hidden_size": 256,
        "batch_size": 128,
        "num_updates": 20_004,
        "length": 30,
        "num_formats": 3,
    },
    doc=__doc__,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; returns the exit code."""
    return study.main(EXPERIMENT, argv)
