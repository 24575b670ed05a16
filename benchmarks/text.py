"""Tokens per second of whole updates of a text classifier: ours and PyTorch's, side by side.

An update is the forward and backward pass of the cross-entropy, clipping of the gradient's norm,
and a step of Adam on all parameters, the embedding's too; float32; no dropout; every sequence has
its own length, of which all steps are counted, padding included. Each contestant has a process of
its own, which compiles, runs once, and then waits to be told to run again; they are told in turns,
and the median is taken.

    python benchmarks/text.py --models=bi_lstm,gru --repeats=15
"""

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from gradflow.models.nets import resolve_net
from gradflow.models.text import text_classifier

_MODELS = flags.DEFINE_list("models", ["bi_lstm", "bi_gru", "gru"], "Of MODELS.")
_SIZES = flags.DEFINE_list("sizes", ["32x64x100x128"], "Each as batch x T x embedding x hidden.")
_WORDS = flags.DEFINE_integer("words", 10_000, "Size of the vocabulary.", lower_bound=2)
_PEERS = flags.DEFINE_list("peers", ["ours", "torch"], "Who is timed.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Runs of each, in turns.", lower_bound=1)
_UPDATES = flags.DEFINE_integer("updates", 5, "Updates in a run.", lower_bound=1)
_WORKER = flags.DEFINE_string("worker", None, "Be this peer: for the script's own use.")

NUM_CLASSES = 6
LEARNING_RATE, THRESHOLD = 1e-3, 1.0


class Sizes(NamedTuple):
    """What is run."""

    batch: int
    num_steps: int
    embedding: int
    hidden: int
    words: int

    @classmethod
    def parse(cls, text: str, words: int) -> "Sizes":
        """From ``batch x T x embedding x hidden`` without the blanks."""
        batch, num_steps, embedding, hidden = map(int, text.split("x"))
        return cls(batch, num_steps, embedding, hidden, words)

    def batch_of(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words (T, B), lengths from a half of the steps to all of them, and classes."""
        draw = np.random.default_rng(0)
        lengths = np.linspace(self.num_steps // 2, self.num_steps, self.batch).astype(np.int32)
        ids = draw.integers(2, self.words, (self.num_steps, self.batch), dtype=np.int32)
        ids[np.arange(self.num_steps)[:, None] >= lengths] = 0
        return ids, lengths, draw.integers(0, NUM_CLASSES, self.batch, dtype=np.int32)


def ours(name: str, sizes: Sizes) -> Callable[[], Any]:
    """Updates of the model of the study of classification."""
    net = resolve_net(name, sizes.embedding, sizes.hidden)
    shape = {"num_symbols": sizes.words, "embedding_size": sizes.embedding}
    model = text_classifier(net.layers, **shape, num_classes=NUM_CLASSES)
    optimizer = optax.chain(optax.clip_by_global_norm(THRESHOLD), optax.adam(LEARNING_RATE))
    batch = tuple(map(jnp.asarray, sizes.batch_of()))

    def loss(params: Any, batch: Any) -> jax.Array:
        ids, lengths, labels = batch
        scores = model.apply(params, ids, lengths=lengths)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    def update(state: Any, batch: Any) -> Any:
        params, memory = state
        steps, memory = optimizer.update(jax.grad(loss)(params, batch), memory, params)
        return optax.apply_updates(params, steps), memory

    params = model.init(jax.random.key(0))
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (params, optimizer.init(params)))
    compiled = jax.jit(update, donate_argnums=0).lower(state, batch).compile()

    def run() -> None:
        nonlocal state
        for _ in range(_UPDATES.value):
            state = compiled(state, batch)
        jax.block_until_ready(state)

    return run


def torch_run(name: str, sizes: Sizes) -> Callable[[], None]:
    """The same of PyTorch's layers, whose sequences are packed so that padding takes no part."""
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


PEERS: dict[str, Callable[[str, Sizes], Callable[[], Any]]] = {"ours": ours, "torch": torch_run}


def work(peer: str, name: str, sizes: Sizes) -> None:
    """Runs once for every line that comes in, and answers each with the seconds it took."""
    run = PEERS[peer](name, sizes)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def start_worker(peer: str, name: str, sizes: str) -> subprocess.Popen:
    """A process of this script that is one peer."""
    flags_of = [f"--worker={peer}", f"--models={name}", f"--sizes={sizes}"]
    flags_of += [f"--words={_WORDS.value}", f"--updates={_UPDATES.value}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__, *flags_of], **pipes)


def measured(name: str, sizes: str, peers: Sequence[str]) -> dict[str, float]:
    """The median time of a run of each peer in seconds, each in its own process, in turns."""
    workers = {peer: start_worker(peer, name, sizes) for peer in peers}
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    for worker in workers.values():
        assert worker.stdout is not None
        if worker.stdout.readline().strip() != "ready":
            raise RuntimeError(f"a peer of {peers} did not come up; its message is above")
    for _ in range(_REPEATS.value):
        for peer, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write("run\n")
            worker.stdin.flush()
            times[peer].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return {peer: statistics.median(taken) for peer, taken in times.items()}


def table(names: Sequence[str], peers: Sequence[str]) -> list[str]:
    """Rows of Markdown: tokens a second, and how many times the second peer's are the first's."""
    titles = [*(f"{peer}, tokens/s" for peer in peers), *(f"of {peer}'s" for peer in peers[1:])]
    rows = ["| model | sizes | " + " | ".join(titles) + " |", "|---" * (2 + len(titles)) + "|"]
    for name in names:
        for sizes in _SIZES.value:
            shape = Sizes.parse(sizes, _WORDS.value)
            tokens = shape.batch * shape.num_steps * _UPDATES.value
            rates = {peer: tokens / taken for peer, taken in measured(name, sizes, peers).items()}
            entries = [f"{rates[peer]:,.0f}" for peer in peers]
            entries += [f"{rates[peers[0]] / rates[peer]:.2f}" for peer in peers[1:]]
            rows.append(f"| {name} | {sizes} | " + " | ".join(entries) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        work(_WORKER.value, _MODELS.value[0], Sizes.parse(_SIZES.value[0], _WORDS.value))
        return
    here = [p for p in _PEERS.value if p != "torch" or importlib.util.find_spec("torch")]
    print("\n".join(table(_MODELS.value, here)))


if __name__ == "__main__":
    app.run(main)
