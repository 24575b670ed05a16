"""What a decoder's loss says to the encoder: an encoder-decoder that learns to write dates anew.

The encoder reads characters, and the decoder starts from the encoder's last carry s_T and writes
others, each given the one before it: in training the true one (teacher forcing), in use its own
best one (free running). Dates such as ``23 Nov 2026`` become ``2026-11-23``; or digits are
reversed. A tenth of all dates is held out. The flow is log ‖∂L/∂s_k‖ of the decoder's
cross-entropy L with respect to each carry of the decoder and, from ∂L/∂s_T on, of the encoder::

    ∂L/∂s_k = (∂L/∂s_T) J_T J_{T-1} ... J_{k+1}        s_T: the carry that is handed over

A sequence is right when all its characters are. (That share is the same under teacher forcing and
running free: both have the true characters before the first error. The share of characters is not.)
Three claims, each judged by the 95 % interval over seeds: (1) the gated cells get more held-out
sequences right than tanh does; (2) running free costs characters, on average over the training; (3)
training lifts the gradient that reaches the encoder's first step, against that at the hand-over.

Source: Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078; Williams &
Zipser 1989, doi:10.1162/neco.1989.1.2.270 (teacher forcing).

    python experiments/seq2seq.py
    python experiments/seq2seq.py --task=reversal --length=8
    python experiments/seq2seq.py --task=reversal --full
    python experiments/seq2seq.py --probe=log_norms,components,gates

Takes about two minutes on two cores at the defaults. A killed run goes on from its last
evaluation; params/ has the trained encoder and decoder of each cell.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import _probes
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from gradflow import flow, study, unroll
from gradflow.cell import whole_carry
from gradflow.cells import resolve
from gradflow.interop import save_params
from gradflow.models import encoder_decoder
from gradflow.spec import parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.study.config import sanitise
from gradflow.train.epochs import Fit, Learner, fit_epochs
from gradflow.train.fit import Schedule
from gradflow.train.keeper import Keeper
from gradflow.train.model import init_model, read_out
from gradflow.train.optimisers import Optimiser
from gradflow.train.prober import Watch
from gradflow.train.probes import Subject, prober

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell, Params

MONTHS = (
    "January February March April May June July August September October November December"
).split()
"""Their names, whatever language the machine speaks."""

NUM_FORMATS = 3

STAGES = ("birth", "end")


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, on what, and for how long."""

    num_seeds: int = study.field(5, help="Nets of each cell, side by side.", positive=True)
    precision: Literal["float64", "float32"] = study.field(
        "float32", help="Precision of the training; the flow is measured in float64."
    )
    cells: str = study.field("rnn,lstm,gru", help="Cells, with options or without.")
    task: Literal["dates", "reversal"] = study.field("dates", help="What is to be written.")
    num_formats: int = study.field(1, help="Formats of the dates, up to 3.", positive=True)
    length: int = study.field(8, help="Digits that are reversed.", positive=True)
    hidden_size: int = study.field(64, help="Hidden units.", positive=True)
    batch_size: int = study.field(64, help="Sequences in an update.", positive=True)
    num_updates: int = study.field(1200, help="Updates.", positive=True)
    num_evaluations: int = study.field(12, help="Evaluations after the first.", positive=True)
    eval_size: int = study.field(256, help="Held-out sequences in an evaluation.", positive=True)
    num_probed: int = study.field(8, help="Sequences that the flow is measured on.", positive=True)
    learning_rate: float = study.field(
        0.01, help="Of Adam, falling to 0 by a cosine; the same for all.", positive=True
    )
    probe: str = _probes.flag()
    probe_every: int | None = _probes.every_flag()

    @property
    def schedule(self) -> Schedule:
        """When there is an evaluation, and a probing."""
        every = self.num_updates // self.num_evaluations
        return Schedule(self.num_updates, every, self.probe_every, early_stop=False)


class Pairs(NamedTuple):
    """Sequences of symbols by number; -1 fills up the short ones.

    Attributes:
      sources: What is read, (pairs, T).
      lengths: Symbols in each source.
      targets: What is to be written, (pairs, S).
    """

    sources: Any
    lengths: Any
    targets: Any

    def at(self, chosen: np.ndarray) -> "Pairs":
        """Those of these numbers."""
        return Pairs(*(array[chosen] for array in self))


class Data(NamedTuple):
    """What is to be learned, what is held out, and the symbols that the numbers stand for."""

    train: Pairs
    test: Pairs
    read: str
    written: str


def dates(num_formats: int) -> Data:
    """Every day from 1950 to 2049, each in one of the formats, and as ISO 8601 writes it."""
    if not 1 <= num_formats <= NUM_FORMATS:
        raise ValueError(f"1 to {NUM_FORMATS} formats are expected, got {num_formats}")
    rng = np.random.default_rng(0)
    first, last = (datetime.date(year, 1, 1).toordinal() for year in (1950, 2050))
    days = [datetime.date.fromordinal(day) for day in rng.permutation(np.arange(first, last))]
    forms = rng.integers(num_formats, size=len(days))
    sources = [_written(day, int(form)) for day, form in zip(days, forms, strict=True)]
    is_test = np.arange(len(days)) < len(days) // 10
    return _data(sources, [day.isoformat() for day in days], is_test)


def _written(day: datetime.date, form: int) -> str:
    month = MONTHS[day.month - 1]
    return (
        f"{day.day:02d} {month[:3]} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.day}.{day.month}.{day.year}",
    )[form]


def reversal(length: int, *, num_drawn: int = 50_000) -> Data:
    """Sequences of digits, no two alike, and the same from behind; a tenth is held out."""
    rng = np.random.default_rng(0)
    digits = rng.permutation(np.unique(rng.integers(10, size=(num_drawn, length)), axis=0))
    sources = ["".join(map(str, row)) for row in digits]
    is_test = np.arange(len(sources)) < len(sources) // 10
    return _data(sources, [text[::-1] for text in sources], is_test)


def _data(sources: list[str], targets: list[str], is_test: np.ndarray) -> Data:
    read, written = ("".join(sorted(set("".join(texts)))) for texts in (sources, targets))
    longest = max(map(len, sources))
    pairs = Pairs(
        np.array([_numbers(text, read, longest) for text in sources]),
        np.array([len(text) for text in sources]),
        np.array([_numbers(text, written, len(text)) for text in targets]),
    )
    return Data(pairs.at(~is_test), pairs.at(is_test), read, written)


def _numbers(text: str, symbols: str, length: int) -> list[int]:
    return [symbols.index(symbol) for symbol in text] + [-1] * (length - len(text))


class Net(NamedTuple):
    """An encoder and a decoder of one kind, and how many symbols they read and write."""

    encoder: "Cell"
    decoder: "Cell"
    num_read: int
    num_written: int

    def init(self, key: jax.Array) -> "Params":
        """Draws the parameters of the encoder, the decoder and the readout."""
        k_encoder, k_decoder = jax.random.split(key)
        written = init_model(self.decoder, self.num_written, k_decoder)
        encoder = self.encoder.init(k_encoder)
        return {"encoder": encoder, "decoder": written["cell"], "readout": written["readout"]}

    def one_hot(self, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
        """What the encoder reads, and what the decoder is given under teacher forcing."""
        read = jax.nn.one_hot(pairs.sources.T, self.num_read)
        before = jax.nn.one_hot(pairs.targets.T[:-1], self.num_written)
        return read, jnp.concatenate([jnp.zeros((1, *before.shape[1:])), before])

    def forced(self, params: "Params", pairs: Pairs) -> jax.Array:
        """Logits (S, B, written), each given the true symbols before it."""
        read, before = self.one_hot(pairs)
        model = encoder_decoder(self.encoder, self.decoder)
        h = model.apply(params, read, before, lengths=pairs.lengths)
        return read_out(params["readout"], h)

    def free(self, params: "Params", pairs: Pairs) -> jax.Array:
        """The symbols (S, B) that it writes by itself, the likeliest at each step."""
        read, before = self.one_hot(pairs)
        carries = unroll(self.encoder, params["encoder"], read, lengths=pairs.lengths).carries
        step = jax.vmap(partial(self.decoder.step, params["decoder"]))

        def write(state: tuple, _: None) -> tuple[tuple, jax.Array]:
            carry, given = state
            carry, h = step(carry, given)
            symbol = jnp.argmax(read_out(params["readout"], h), axis=-1)
            return (carry, jax.nn.one_hot(symbol, self.num_written, dtype=given.dtype)), symbol

        start = jax.tree.map(lambda leaf: leaf[-1], carries), before[0]
        return jax.lax.scan(write, start, length=len(before))[1]


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean over all symbols, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def log_adjoints(net: Net, params: "Params", pair: Pairs) -> jax.Array:
    """log ‖∂L/∂s_k‖ of one pair: the encoder's T + 1 carries, and after them the decoder's S."""
    encoder, own, read, loss = Encoder(net)(params, pair)
    in_encoder = flow.log_adjoint_norms(loss, encoder, own, read, source="carry")
    carries = unroll(net.encoder, own, read).carries
    handed = jax.tree.map(lambda leaf: leaf[-1], carries)
    in_decoder = flow.log_adjoint_norms(
        partial(_loss_of, params, pair),
        net.decoder,
        params["decoder"],
        net.one_hot(_alone(pair))[1][:, 0],
        source="carry",
        carry=handed,
    )
    return jnp.concatenate([in_encoder, in_decoder[1:]])


class Encoder(NamedTuple):
    """The encoder on one pair, as a cell whose output is its whole carry.

    Its loss is the decoder's, as a function of the carry that is handed over.
    """

    net: Net

    def __call__(self, params: "Params", pair: Pairs) -> Subject:
        """What of a net's parameters and a pair is to be measured."""
        encoder, decoder = self.net.encoder, self.net.decoder
        read, before = self.net.one_hot(_alone(pair))
        unravel = ravel_pytree(encoder.initial_carry())[1]

        def loss(carries: jax.Array) -> jax.Array:
            carry = unravel(carries[-1])
            h = unroll(decoder, params["decoder"], before[:, 0], carry=carry).outputs
            return _loss_of(params, pair, h)

        whole = encoder._replace(step=partial(_whole_step, encoder), hidden=whole_carry)
        return Subject(whole, params["encoder"], read[:, 0], loss)


def _alone(pair: Pairs) -> Pairs:
    """A batch of one."""
    return jax.tree.map(lambda array: jnp.asarray(array)[None], pair)


def _loss_of(params: "Params", pair: Pairs, h: jax.Array) -> jax.Array:
    return cross_entropy(read_out(params["readout"], h), pair.targets)


def _whole_step(cell: "Cell", params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    carry, _ = cell.step(params, carry, x)
    return carry, whole_carry(carry)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains and measures each cell; dimensions cell, seed, update, stage, step, example."""
    import xarray

    specs = split_specs(config.cells)
    if not specs:
        raise ValueError(f"the name of a cell is expected, got {config.cells!r}; try lstm")
    if config.num_updates % config.num_evaluations:
        raise ValueError(
            "num_updates is expected to be a multiple of "
            f"num_evaluations={config.num_evaluations}, got {config.num_updates}"
        )
    _ = config.schedule  # that bad numbers are said at once
    data = dates(config.num_formats) if config.task == "dates" else reversal(config.length)
    nets = {spec: _net(spec, config, data) for spec in specs}
    names = {spec: f"cell={spec}" for spec in specs}
    parts = [
        once(
            names[spec],
            partial(_measure, config, spec, net, data, partial(once.folder, names[spec])),
        )
        for spec, net in nets.items()
    ]
    return xarray.concat(parts, dim="cell", join="outer").assign_attrs(task=config.task)


def _net(spec: str, config: Config, data: Data) -> Net:
    factory, num_read, num_written = resolve(spec), len(data.read), len(data.written)
    check_structure(factory)
    encoder, decoder = (factory(size, config.hidden_size) for size in (num_read, num_written))
    return Net(encoder, decoder, num_read, num_written)


def _measure(config: Config, spec: str, net: Net, data: Data, folder: Any) -> "xarray.Dataset":
    import xarray

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    born = jax.device_get(jax.jit(jax.vmap(net.init))(keys))
    place, identity = folder(), {**dataclasses.asdict(config), "cell": spec}
    with contextlib.nullcontext() if place is None else Keeper(place, identity) as keeper:
        fits = _fitted(config, net, data, born, _watch(config, net, data), keeper)
        *_, last = study.progress(fits, f"{spec}, evaluations")
    trained = jax.device_get(last.state.params)
    if place is not None:
        _save(place.parents[1] / "params", spec, (net, config), trained)
    probed = _probed(data.test, config.num_probed)
    with jax.enable_x64(True):
        measure = flow.jit_to_run_once(flow.over_runs(partial(_log_adjoints, net, probed)))
        norms = [jax.device_get(measure(_to_float64(params))) for params in (born, trained)]
    shown = data.test.at(np.arange(6))
    free = jax.device_get(jax.jit(jax.vmap(net.free, (0, None)))(trained, shown))
    metrics = {
        name: (("seed", "update"), np.stack([last.log[f"{name}_{i}"] for i in range(len(keys))]))
        for name in ("loss", "sequences", "forced", "free")
    }
    num_encoder, num_decoder = probed.sources.shape[1], probed.targets.shape[1]
    probes = {name: np.moveaxis(values, 0, 1) for name, values in last.probes.items()}
    return xarray.Dataset(
        {
            **metrics,
            **_probes.variables(probes, ("seed", "probe_update"), axis="lag"),
            "log_adjoint": (("stage", "seed", "sequence", "step"), np.stack(norms)),
            "source": ("example", [_text(row, data.read) for row in shown.sources]),
            "target": ("example", [_text(row, data.written) for row in shown.targets]),
            "output": (
                ("seed", "example"),
                [[_text(row, data.written) for row in s.T] for s in free],
            ),
        },
        coords={
            "stage": list(STAGES),
            "step": np.arange(-num_encoder, num_decoder + 1),
            "update": config.schedule.evaluations,
            **({"probe_update": config.schedule.probings} if probes else {}),
            **({"lag": np.arange(num_encoder + 1)} if probes else {}),
            **_probes.coordinates(probes),
        },
    ).expand_dims(cell=[spec])


def _save(folder: Path, spec: str, what: tuple[Net, Config], params: "Params") -> None:
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


def _text(numbers: np.ndarray, symbols: str) -> str:
    return "".join(symbols[number] for number in numbers if number >= 0)


def _watch(config: Config, net: Net, data: Data) -> Watch | None:
    """What is probed along the training: the encoder, on the pairs that the flow is measured on."""
    names = _probes.names(config.probe, net.encoder)
    if not names:
        return None
    pairs = _probed(data.test, config.num_probed)
    every = (config.probe_every or config.schedule.eval_every) // config.schedule.eval_every
    return Watch(prober(names, Encoder(net), pairs), every)


def _fitted(
    config: Config,
    net: Net,
    data: Data,
    born: "Params",
    watch: Watch | None,
    keeper: Keeper | None,
) -> Iterator[Fit]:
    """Trains all seeds side by side, each on batches of its own; an epoch is an evaluation."""
    schedule = partial(optax.cosine_decay_schedule, decay_steps=config.num_updates)
    optimiser = Optimiser(lambda rate: optax.adam(schedule(rate)), config.learning_rate)

    def loss(params: "Params", batch: Pairs, key: jax.Array) -> jax.Array:
        del key  # there is no noise but the batch
        return jnp.sum(
            jax.vmap(lambda p, b: cross_entropy(net.forced(p, b), b.targets.T))(params, batch)
        )

    learner = Learner(lambda _: born, loss, optimiser)
    test = data.test.at(np.arange(min(config.eval_size, len(data.test.lengths))))
    evaluate = jax.jit(jax.vmap(partial(evaluated, net), (0, None)))

    def batches(epoch: int) -> Iterator[Pairs]:
        rng = np.random.default_rng((config.seed, epoch))
        shape = config.num_seeds, config.batch_size
        for _ in range(config.num_updates // config.num_evaluations):
            yield data.train.at(rng.integers(len(data.train.lengths), size=shape))

    def validate(params: "Params") -> dict[str, float]:
        found = jax.device_get(evaluate(params, test))
        each = {f"{name}_{i}": float(x) for name, xs in found.items() for i, x in enumerate(xs)}
        return {"mean_loss": float(np.mean(found["loss"])), **each}

    key = jax.random.key(config.seed)
    return fit_epochs(
        learner,
        key,
        batches,
        validate,
        num_epochs=config.num_evaluations,
        watch=watch,
        keeper=keeper,
    )


def evaluated(net: Net, params: "Params", pairs: Pairs) -> dict[str, jax.Array]:
    """The loss, the share of sequences that are right, and that of symbols, forced and free."""
    logits, free = net.forced(params, pairs), net.free(params, pairs)
    right = free == pairs.targets.T
    return {
        "loss": cross_entropy(logits, pairs.targets.T),
        "sequences": jnp.mean(jnp.all(right, axis=0), dtype=logits.dtype),
        "forced": jnp.mean(jnp.argmax(logits, axis=-1) == pairs.targets.T, dtype=logits.dtype),
        "free": jnp.mean(right, dtype=logits.dtype),
    }


def _probed(pairs: Pairs, number: int) -> Pairs:
    """The first pairs of the commonest length of a source, without what filled them up."""
    length = int(np.bincount(pairs.lengths).argmax())
    chosen = pairs.at(np.flatnonzero(pairs.lengths == length)[:number])
    return chosen._replace(sources=chosen.sources[:, :length])


def _log_adjoints(net: Net, pairs: Pairs, params: "Params") -> jax.Array:
    return flow.over_runs(lambda *pair: log_adjoints(net, params, Pairs(*pair)))(*pairs)


def _to_float64(params: "Params") -> "Params":
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def figure(dataset: "xarray.Dataset") -> "Figure":
    """What is right, by update; the flow over both halves, birth and end; examples; the probes."""
    from matplotlib.figure import Figure

    maps = _probes.rows(dataset)
    heights = (2.6, 2.6, 1.8, *(_probes.ROW_HEIGHT for _ in maps))
    fig = Figure(figsize=(7.0, sum(heights)))
    parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    top, middle, bottom, *rest = parts
    left, right = top.subplots(1, 2)
    _draw_shares(left, right, dataset)
    _draw_flow(middle.subplots(1, 2, sharey=True), dataset)
    _draw_examples(bottom.subplots(), dataset)
    nets = {f"encoder, {cell}": dataset.sel(cell=cell) for cell in map(str, dataset.cell.values)}
    _probes.draw_rows(rest, dataset, nets, state="s")
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


def closing(dataset: "xarray.Dataset") -> str:
    """What each cell came to, and whether the three claims hold in this run."""
    last = dataset.isel(update=-1)
    rows = [_row(str(cell), last.sel(cell=cell)) for cell in dataset.cell.values]
    wrong = (dataset.forced - dataset.free).mean("update")
    cost = {str(cell): wrong.sel(cell=cell) for cell in wrong.cell.values}
    lift = reaching(dataset).sel(stage="end") - reaching(dataset).sel(stage="birth")
    lines = [
        _gates(last),
        "running free costs characters, by this run: "
        + _words({cell: flow.bootstrap(values.values)[0] > 0 for cell, values in cost.items()}),
        "training lifts the gradient at the encoder's first step, by this run: "
        + _words(
            {str(c): flow.bootstrap(lift.sel(cell=c).values)[0] > 0 for c in lift.cell.values}
        ),
    ]
    return "\n".join([study.table(rows), "(means over seeds, 95 % intervals)", *lines])


def _row(cell: str, data: "xarray.Dataset") -> dict[str, str]:
    decades = reaching(data) / np.log(10)
    return {
        "cell": cell,
        "sequences right": _mean(data.sequences.values),
        "characters, forced": f"{float(data.forced.mean()):.4f}",
        "free": f"{float(data.free.mean()):.4f}",
        "∂L/∂s₁ over ∂L/∂s_T (decades) at birth": _mean(decades.sel(stage="birth").values, 2),
        "at the end": _mean(decades.sel(stage="end").values, 2),
    }


def _gates(last: "xarray.Dataset") -> str:
    """Whether each gated cell is better than the first cell, the vanilla one, over all seeds."""
    if "rnn" not in last.cell.values or last.sizes["cell"] == 1:
        return "gated cells get more sequences right than tanh: not judged without rnn and another"
    gain = last.sequences - last.sequences.sel(cell="rnn")
    held = {
        str(cell): flow.bootstrap(gain.sel(cell=cell).values)[0] > 0
        for cell in last.cell.values
        if cell != "rnn"
    }
    return "gated cells get more sequences right than tanh, by this run: " + _words(held)


def _words(held: dict[str, bool]) -> str:
    return ", ".join(f"{k}: {study.verdict(v)}" for k, v in held.items())


def _mean(values: np.ndarray, digits: int = 3) -> str:
    low, high = flow.bootstrap(values)
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


EXPERIMENT = study.Experiment(
    name="seq2seq",
    config=Config,
    run=run,
    figure=figure,
    closing=closing,
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

if __name__ == "__main__":
    study.main(EXPERIMENT)
