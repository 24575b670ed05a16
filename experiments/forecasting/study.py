"""Forecasting: recurrent networks against baselines, and the gradient flow of the trained cells.

A network reads a window of a series and forecasts the next values: one step ahead (and ten,
autoregressively: iterated), ten at once from the last step (direct), or ten from every step
(seq2seq, where the loss is at every step). Series are Géron's generated ones, whose published
table stands beside ours, or a real one: then every model is fitted once, to the first 70 % of the
series, chosen by the next 10 %, and moved from origin to origin through the last 20 %, beside the
naive forecast, that of a season before, and ARIMA. log ‖∂h_T/∂h_k‖ is measured through the trained
networks, on test windows.

The claims on generated series: with windows of 50 steps the naive forecast has the published
errors, and the errors of a line and of the deep RNN at one step, and of the best model at ten, lie
below given bounds; a network that is asked for ten values at once does better than one that runs
autoregressively. On real series: some model beats the naive forecast, and that of a season before.
On both: networks whose gradient reaches further forecast better. They are decided by 95 %
intervals, over seeds for generated series and by the block bootstrap over origins for real ones;
the last by a permutation test over the networks.

Forecasts are drawn with 80 % intervals: quantiles, at each lead, of the validation errors.

Source: Géron 2019, Hands-On Machine Learning, 2nd ed., chapter 15, and its notebook.

    python experiments/forecasting
    python experiments/forecasting --full
    python experiments/forecasting --data=bitcoin --data_dir=FOLDER
    python experiments/forecasting --probe=log_norms,components,gates
    python experiments/forecasting --series=path/to/series.csv:column --period=12

Takes three to four minutes on two cores at the defaults. A killed run resumes from its last model,
and with --full from its last epoch; params/ has the first seed's trained cells.
"""

from types import ModuleType

import xarray

from forecasting import ratios, results
from forecasting.config import Config
from forecasting.figure import figure
from forecasting.generated import run_generated
from forecasting.measuring import PLAIN, make_net
from forecasting.series import files, run_real
from gradflow import study


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Forecasts by every model; dimensions model, and column (generated) or view (real)."""
    names = config.names
    nets = {name: make_net(config, name) for name in names if name not in PLAIN}
    if "naive" not in names:
        raise ValueError(f"Expected naive among the models, got {names}. Add naive, the baseline.")
    return (run_real if config.is_real else run_generated)(config, nets, once)


def summary(dataset: xarray.Dataset) -> str:
    """The tables of the errors."""
    return _results(dataset).summary(dataset)


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """What holds on generated series, or on a real one."""
    return _results(dataset).claims(dataset)


def _results(dataset: xarray.Dataset) -> ModuleType:
    return ratios if dataset.attrs["kind"] == "real" else results


EXPERIMENT = study.Experiment(
    name="forecasting",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    files=files,
    section="sequences",
    order=1,
    gallery={
        "forecasting": study.Picture(),
        "forecasting_bitcoin": study.Picture(
            ("--data=bitcoin", "--data_dir=data"), ("data/coin_Bitcoin.csv",)
        ),
        "forecasting_sunspots": study.Picture(
            ("--data=sunspots", "--data_dir=data"), ("data/SN_m_tot_V2.0.csv",)
        ),
    },
    quick={
        "models": "naive,linear,dense,rnn,conv_gru,batch_norm",
        "hidden_size": 4,
        "num_steps": 20,
        "num_windows": 128,
        "num_epochs": 1,
        "num_seeds": 2,
    },
    full={"published": True},
    doc=__doc__,
)
