"""Tokens per second of whole updates of text models, against PyTorch.

An update is the forward and backward pass of the cross-entropy, clipping of the gradient's norm,
and a step of Adam on all parameters, in float32 and without dropout. The models::

    gru, bi_lstm ...          classifiers: a trained embedding, one layer, a linear readout; the
                              sequences have different lengths, and tokens count padding
    char_lstm, char_two_gru   character models: one-hot inputs, streams in windows of T steps; the
                              carry continues from one window to the next, the gradient does not

Each contestant is a process of its own, which compiles, runs once, and then runs on demand. They
alternate, and the median is taken.

    python benchmarks/text.py --models=bi_lstm,gru --repeats=15
    python benchmarks/text.py --models=char_two_gru --sizes=32x32x65x128
    python benchmarks/text.py --full
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from timing import answer, medians_of_processes, print_head, print_row, set_up, with_torch

from gradflow.cells import resolve
from gradflow.train import Descent, resolve_clipping, resolve_optimiser, step

sys.path.append(
    str(Path(__file__).parents[1] / "experiments")
)  # the models are those of the studies

from char_lm.language import Language, advance, initial_state  # noqa: E402
from classification.nets import resolve_net  # noqa: E402
from classification.text import text_classifier  # noqa: E402

CHAR = "char_"

_MODELS = flags.DEFINE_list(
    "models",
    ["bi_lstm", "bi_gru", "gru", f"{CHAR}two_gru", f"{CHAR}lstm"],
    "Classifiers are rnn, lstm or gru, or bi_ and one of these for both directions; character "
    f"models are {CHAR} and the cell, or {CHAR}two_ and the cell for two layers.",
)
_SIZES = flags.DEFINE_list(
    "sizes",
    None,
    "Each as batch x T x embedding x hidden, for all models; the embedding of a character model "
    "is the number of characters. By default those of the two studies: 32x64x100x128 for "
    "classifiers, 32x32x65x128 for character models.",
)
_FULL = flags.DEFINE_bool("full", False, "Also two LSTMs of 512 units: char_lm --full.")
_WORDS = flags.DEFINE_integer("words", 10_000, "Size of a classifier's vocabulary.", lower_bound=2)
_PEERS = flags.DEFINE_list("peers", ["ours", "torch"], "Which contestants.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Timed runs of each.", lower_bound=1)
_UPDATES = flags.DEFINE_integer("updates", 5, "Updates of a run.", lower_bound=1)
_WORKER = flags.DEFINE_string("worker", None, "Run as this contestant; used by the script itself.")

NUM_CLASSES = 6
LEARNING_RATE, THRESHOLD = 1e-3, 1.0
NUM_WINDOWS = 20
FULL = (f"{CHAR}two_lstm", "64x64x65x512")


class Sizes(NamedTuple):
    """Sizes of a model and its batch."""

    batch: int
    num_steps: int
    embedding: int
    hidden: int
    words: int

    @classmethod
    def parse(cls, text: str, words: int) -> "Sizes":
        """Parses ``batch x T x embedding x hidden``, without blanks."""
        batch, num_steps, embedding, hidden = map(int, text.split("x"))
        return cls(batch, num_steps, embedding, hidden, words)

    def batch_of(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids (T, B), lengths between T/2 and T, and classes."""
        draw = np.random.default_rng(0)
        lengths = np.linspace(self.num_steps // 2, self.num_steps, self.batch).astype(np.int32)
        ids = draw.integers(2, self.words, (self.num_steps, self.batch), dtype=np.int32)
        ids[np.arange(self.num_steps)[:, None] >= lengths] = 0
        return ids, lengths, draw.integers(0, NUM_CLASSES, self.batch, dtype=np.int32)

    def streams(self) -> np.ndarray:
        """Character codes (steps, B): a few windows, which are read repeatedly."""
        shape = NUM_WINDOWS * self.num_steps + 1, self.batch
        return np.random.default_rng(0).integers(self.embedding, size=shape, dtype=np.int32)


def our_classifier(name: str, sizes: Sizes) -> Callable[[], Any]:
    """Updates of the classifier of the classification study."""
    net = resolve_net(name, sizes.embedding, sizes.hidden)
    shape = {"num_symbols": sizes.words, "embedding_size": sizes.embedding}
    model = text_classifier(net.layers, **shape, num_classes=NUM_CLASSES)
    optimizer = optax.chain(optax.clip_by_global_norm(THRESHOLD), optax.adam(LEARNING_RATE))
    batch = tuple(map(jnp.asarray, sizes.batch_of()))

    def loss(params: Any, batch: Any) -> jax.Array:
        ids, lengths, labels = batch
        scores = model.apply(params, ids, lengths=lengths)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    def update(state: Descent, batch: Any) -> Descent:
        return step(optimizer, state, jax.grad(loss)(state.params, batch))

    state = Descent.start(optimizer, model.init(jax.random.key(0)))
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
    compiled = jax.jit(update, donate_argnums=0).lower(state, batch).compile()

    def run() -> None:
        nonlocal state
        for _ in range(_UPDATES.value):
            state = compiled(state, batch)
        jax.block_until_ready(state)

    return run


def our_reader(name: str, sizes: Sizes) -> Callable[[], Any]:
    """Updates of the model of the character study."""
    num_layers, cell = layers_of(name)
    factory = resolve(f"stack(cells='{','.join([cell] * num_layers)}')" if num_layers > 1 else cell)
    language = Language(
        factory(sizes.embedding, sizes.hidden),
        sizes.embedding,
        resolve_optimiser("adam"),
        resolve_clipping(f"global_norm(threshold={THRESHOLD})"),
        window=sizes.num_steps,
        num_updates=1_000_000,
    )
    state = initial_state(language, jax.random.key(0), sizes.batch, LEARNING_RATE)
    streams = jnp.asarray(sizes.streams())

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(advance(language, state, streams, _UPDATES.value))

    return run


def layers_of(name: str) -> tuple[int, str]:
    """The number of layers and the cell of a character model."""
    name = name.removeprefix(CHAR)
    return (2 if name.startswith("two_") else 1), name.removeprefix("two_")


def torch_classifier(name: str, sizes: Sizes) -> Callable[[], None]:
    """The same with PyTorch's layers, on packed sequences, which skip padding."""
    import torch  # pyright: ignore[reportMissingImports]

    both, cell = name.startswith("bi_"), name.removeprefix("bi_").upper()
    embedding = torch.nn.Embedding(sizes.words, sizes.embedding, padding_idx=0)
    layer = getattr(torch.nn, cell)(sizes.embedding, sizes.hidden, bidirectional=both)
    head = torch.nn.Linear(sizes.hidden * (1 + both), NUM_CLASSES)
    modules = torch.nn.ModuleList([embedding, layer, head])
    optimizer = torch.optim.Adam(modules.parameters(), LEARNING_RATE)
    ids, lengths, labels = (torch.from_numpy(array).long() for array in sizes.batch_of())

    def scores() -> Any:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            embedding(ids), lengths, enforce_sorted=False
        )
        last = layer(packed)[1]
        last = last[0] if isinstance(last, tuple) else last
        return head(torch.cat(list(last), dim=-1))

    def run() -> None:
        for _ in range(_UPDATES.value):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(scores(), labels).backward()
            torch.nn.utils.clip_grad_norm_(modules.parameters(), THRESHOLD)
            optimizer.step()

    return run


def torch_reader(name: str, sizes: Sizes) -> Callable[[], None]:
    """The same with PyTorch's layers."""
    import torch  # pyright: ignore[reportMissingImports]

    num_layers, cell = layers_of(name)
    stack = getattr(torch.nn, cell.upper())(sizes.embedding, sizes.hidden, num_layers)
    head = torch.nn.Linear(sizes.hidden, sizes.embedding)
    modules = torch.nn.ModuleList([stack, head])
    optimizer = torch.optim.Adam(modules.parameters(), LEARNING_RATE)
    codes, one_hot = torch.from_numpy(sizes.streams()).long(), torch.eye(sizes.embedding)
    windows = codes[:-1].split(sizes.num_steps), codes[1:].split(sizes.num_steps)
    carry, place = None, 0

    def run() -> None:
        nonlocal carry, place
        for _ in range(_UPDATES.value):
            inputs, targets = (part[place] for part in windows)
            outputs, carry = stack(one_hot[inputs], None if place == 0 else carry)
            optimizer.zero_grad()
            scores = head(outputs).flatten(0, 1)
            torch.nn.functional.cross_entropy(scores, targets.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(modules.parameters(), THRESHOLD)
            optimizer.step()
            both = isinstance(carry, tuple)
            carry = tuple(part.detach() for part in carry) if both else carry.detach()
            place = (place + 1) % NUM_WINDOWS

    return run


Peer = Callable[[str, Sizes], Callable[[], Any]]

PEERS: dict[str, tuple[Peer, Peer]] = {
    "ours": (our_classifier, our_reader),
    "torch": (torch_classifier, torch_reader),
}
"""For each contestant, how it runs a classifier and a character model."""


def measured(name: str, sizes: str, peers: Sequence[str]) -> dict[str, float]:
    """The median time of a run of each contestant in seconds."""
    flags_of = [__file__, f"--models={name}", f"--sizes={sizes}"]
    flags_of += [f"--words={_WORDS.value}", f"--updates={_UPDATES.value}"]
    commands = {peer: [*flags_of, f"--worker={peer}"] for peer in peers}
    return medians_of_processes(commands, _REPEATS.value)


def contests() -> list[tuple[str, str]]:
    """The models and their sizes."""
    found = []
    for name in _MODELS.value:
        usual = "32x32x65x128" if name.startswith(CHAR) else "32x64x100x128"
        found += [(name, sizes) for sizes in _SIZES.value or [usual]]
    return [*found, FULL] if _FULL.value else found


def print_table(peers: Sequence[str]) -> None:
    """Prints tokens per second, and the first contestant's relative to each other one's."""
    rates = (f"{peer}, tokens/s" for peer in peers)
    print_head("model", "sizes", *rates, *(f"{peers[0]} / {peer}" for peer in peers[1:]))
    for name, sizes in contests():
        shape = Sizes.parse(sizes, _WORDS.value)
        tokens = shape.batch * shape.num_steps * _UPDATES.value
        first, *others = (tokens / taken for taken in measured(name, sizes, peers).values())
        ratios = (f"{first / other:.2f}" for other in others)
        print_row(name, sizes, *(f"{rate:,.0f}" for rate in (first, *others)), *ratios)


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv, x64=False)
    if _WORKER.value:
        ((name, sizes),) = contests()
        peer = PEERS[_WORKER.value][name.startswith(CHAR)]
        answer(peer(name, Sizes.parse(sizes, _WORDS.value)))
        return
    print_table([peer for peer in _PEERS.value if with_torch() or peer != "torch"])


if __name__ == "__main__":
    app.run(main)
