"""Text classification: accuracy of recurrent networks, and the gradient flow of the trained cells.

An embedding of words, one or two recurrent layers, in one direction or both, and a linear head on
the last hidden state, trained from scratch on TREC's questions, AG News or IMDB's reviews::

    scores = W h_L + b                             ``rnn``, ``lstm``, ``gru``, any cell
    scores = W [→h_L; ←h_1] + b                    ``bi_lstm``
    scores = W h_L of a second layer + b           ``two_gru``
    scores = W max_t relu(window at t) + b         ``conv``, without recurrence

The epoch with the fewest errors on a held-out tenth of the training set is tested once, at the
end. log ‖∂h_T/∂h_k‖ of the first forward cell is measured on the words of the test set, with the
texts concatenated, because many are short. The claims: lstm and gru classify better than the tanh
RNN, and their gradient reaches further after training. Each is decided by the 95 % interval of the
paired differences over seeds.

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

import numpy as np
import xarray
from _kit import trained

from classification.config import Config
from classification.corpora import files, read_corpus
from classification.figure import figure
from classification.measuring import measure
from classification.nets import resolve_net
from classification.probing import check_probes
from classification.results import claims, summary
from classification.trainer import Trainer
from gradflow import study
from gradflow.spec import split_specs


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains and tests each model from each seed; dimensions model, seed, example, lag."""
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
            trained.unit(once, f"model={spec},seed={seed}", measure, trainer, spec, seed)
            for seed in range(config.num_seeds)
        ]
        parts.append(xarray.concat(seeds, dim="seed"))
    lengths = [len(words) for words in corpus.test.sequences]
    return xarray.concat(parts, dim="model", join="outer", coords="minimal").assign(  # pyright: ignore[reportReturnType]
        label=("example", corpus.test.labels),
        length=("example", np.array(lengths), {"units": "words"}),
    )


EXPERIMENT = study.Experiment(
    name="classification",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    files=files,
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
