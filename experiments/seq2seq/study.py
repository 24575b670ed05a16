"""Encoder-decoders: accuracy on rewritten strings, and the gradient from decoder to encoder.

The encoder reads characters. The decoder starts from the encoder's last carry s_T and writes
characters, each given the one before it: in training the true one (teacher forcing), in use its own
most likely one (free-running). Digits are reversed; or dates such as ``23 Nov 2026`` become
``2026-11-23``. A tenth of all pairs is held out. The flow is log ‖∂L/∂s_k‖ of the decoder's
cross-entropy L with respect to each carry of the decoder and, from ∂L/∂s_T on, of the encoder::

    ∂L/∂s_k = (∂L/∂s_T) J_T J_{T-1} ... J_{k+1}        s_T: the carry that is handed over

A sequence is correct if all its characters are. (The accuracy of sequences is the same under
teacher forcing and free-running, because both read the true characters before the first error; the
accuracy of characters is not.) Every cell has its own learning rate, the best of five on validation
seeds and validation pairs, and the gates that keep the state have the same initial bias, 1. Three
claims, each decided by the 95 % interval over seeds: (1) the
gated cells get more held-out sequences right than tanh; (2) free-running costs accuracy of
characters, on average over the training; (3) training increases the gradient at the encoder's first
step, relative to that at its last.

Source: Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078; Williams &
Zipser 1989, doi:10.1162/neco.1989.1.2.270 (teacher forcing).

    python experiments/seq2seq
    python experiments/seq2seq --task=dates --num_formats=3
    python experiments/seq2seq --task=reversal --full
    python experiments/seq2seq --probe=log_norms,components,gates

Takes about five minutes on two cores at the defaults. A killed run resumes from its last
evaluation; params/ has the trained encoder and decoder of each cell.
"""

import xarray
from _kit import cells, trained, tuning

from gradflow import statistics, study
from seq2seq.config import Config
from seq2seq.figure import figure
from seq2seq.measuring import measure
from seq2seq.results import STAGES, claims, reaching
from seq2seq.rewriter import Rewriter
from seq2seq.strings import Rewriting, dates, reversal


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains and measures each cell; dimensions cell, seed, update, stage, step, example."""
    specs = cells.specs(config.cells)
    _ = config.schedule  # so that bad numbers are reported before any training
    data = dates(config.num_formats) if config.task == "dates" else reversal(config.length)
    nets = {spec: _net(spec, config, data) for spec in specs}  # all, before one is trained
    parts = [
        trained.unit(once, f"cell={spec}", measure, config, data, spec, net)
        for spec, net in nets.items()
    ]
    return xarray.concat(parts, dim="cell", join="outer", coords="minimal").assign_attrs(
        task=config.task
    )


def _net(spec: str, config: Config, data: Rewriting) -> Rewriter:
    factory, num_read, num_written = cells.factory(spec), len(data.read), len(data.written)
    encoder, decoder = (factory(size, config.hidden_size) for size in (num_read, num_written))
    return Rewriter(encoder, decoder, num_read, num_written)


def summary(dataset: xarray.Dataset) -> str:
    """A table of the cells."""
    last = dataset.isel(update=-1)
    rows = [_row(last.sel(cell=cell)) for cell in dataset.cell.values]
    flow = "(flow: log10 ‖∂L/∂s_1‖ / ‖∂L/∂s_T‖; means over seeds, 95 %)"
    return "\n".join([study.table(rows), flow, tuning.note(dataset)])


def _row(data: xarray.Dataset) -> dict[str, str]:
    return {
        "cell": str(data.cell.values),
        "rate": tuning.text(data),
        "correct sequences": f"{statistics.estimate(data.sequences.values):.3f}",
        "characters, teacher forcing": f"{float(data.forced.mean()):.4f}",
        "free-running": f"{float(data.free.mean()):.4f}",
        **{
            f"flow, {stage}": f"{statistics.estimate(reaching(data).sel(stage=stage).values):.2f}"
            for stage in STAGES
        },
    }


EXPERIMENT = study.Experiment(
    name="seq2seq",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
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
        "learning_rates": (0.003, 0.03),
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
