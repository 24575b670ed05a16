"""Trains, tests and measures one model from one seed: a part of the record."""

from pathlib import Path

import numpy as np
import xarray
from _kit import curves, probes

from classification.results import WHEN
from classification.trainer import Trainer
from gradflow import study
from gradflow.study.config import sanitise


def measure(trainer: Trainer, spec: str, seed: int, folder: Path | None) -> xarray.Dataset:
    """Trains, tests and measures one model from one seed."""
    done, corpus = trainer.fit(seed, folder), trainer.corpus
    best = done.state.best_params
    norms = [trainer.log_norms(params) for params in (trainer.initial(seed), best)]
    if folder is not None and seed == 0:
        trainer.save_cell(best, study.params_folder(folder) / sanitise(spec))
    predicted = trainer.log_likelihoods(best, corpus.test).argmax(axis=1)
    epochs = ("model", "seed", "epoch")
    each = {name: values[None, None] for name, values in done.probes.items()}
    times = ("probe_epoch", trainer.schedule.probings, {"units": "epochs"})
    probed, at = probes.record(each, ("model", "seed", "probe_epoch"), times)
    return xarray.Dataset(
        {
            "predicted": (("model", "seed", "example"), predicted[None, None].astype(np.int16)),
            "error": (epochs, done.metrics["error"][None, None], {"of": "the held-out tenth"}),
            "train_loss": (epochs, done.metrics["train_loss"][None, None], {"units": "nats"}),
            "best_epoch": (("model", "seed"), [[done.state.best_epoch]]),
            "log_norm": (
                ("model", "seed", "when", "sequence", "lag"),
                np.stack(norms)[None, None],
                {"units": "nats", "norm": "spectral"},
            ),
            **probed,
        },
        coords={
            "model": [spec],
            "seed": [seed],
            "when": list(WHEN),
            "lag": curves.coordinates(norms[0].shape[-1] - 1)["lag"],
            **at,
        },
        attrs={
            "data": trainer.config.data,
            "classes": list(corpus.classes),
            "learnt": len(corpus.training.labels),
            "words": corpus.num_words,
        },
    )
