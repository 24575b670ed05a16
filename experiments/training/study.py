"""A network learns what its gradient reaches, and learning changes how far its gradient reaches.

Trains each cell, with a linear readout, at every learning rate (and every threshold of the
clipping, if they are swept) from every seed, side by side in one compiled program. Loss and
accuracy, the fraction of sequences that are processed correctly, are those of fresh sequences; a
run has solved its task at the first evaluation at which the accuracy reaches the paper's own
criterion. Where several settings are tried, a cell is judged in the one that is best on validation
seeds: most of them solve the task in it, and of equal ones the loss is the smallest. The figure
draws that setting alone where there are more than four. Probes measure the gradient flow along the
way: log ‖∂h_T/∂h_k‖, ‖∂L/∂h_k‖, the contribution of each step to ∂L/∂W_h, the singular values of
∂h_T/∂h_0, the saturation of the gates.

Three claims. Whether a task is learnt depends on the cell: two cells are solved by different
fractions of the seeds. With --probe=adjoints or log_norms: the further the gradient of a cell
reaches at initialisation, by log10 of its norm at step 0 over the largest, the more seeds solve the
task; and training changes that number in every cell. Each is decided by 95 % intervals over seeds.

Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; Vorontsov, Trabelsi, Kadoury,
Pal 2017, arXiv:1702.00071, Fig. 3 for the maps over update and step.

    python experiments/training --cell=gru,lstm --task='adding(num_steps=100)'
    python experiments/training --cell=rnn,gru --learning_rate=0.0003,0.001,0.003,0.01,0.03
    python experiments/training --cell=rnn --clipping=global_norm --clip_threshold=0.1,1,10
    python experiments/training --cell=gru --probe=adjoints,gates --probe_every=100
    python experiments/training --cell=path/to/mine.py:my_cell --task='copy(lag=50)'

Takes about a minute a cell on two cores at the defaults. A killed run resumes from its last
evaluation, unless the file of a user's cell has changed since; the folder of each cell under units/
has metrics.jsonl, checkpoints and timings.jsonl. Dropout and sampled zoneout are off in evaluations
and probes. An update with clipping of adjoints takes twice the time, because its effect is computed
from the gradient without it.
"""

import xarray
from _kit import cells, trained

from gradflow import study
from training.config import Config
from training.figure import figure
from training.measuring import set_up, train
from training.results import claims, summary


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains each cell; dimensions cell, learning_rate, seed, update, and those of the probes."""
    # All is checked before anything is trained, so that bad input is reported at once.
    trainings = {spec: set_up(spec, config) for spec in cells.specs(config.cell, "gru")}
    _ = config.schedule, config.learning_rates, config.thresholds
    parts = [
        trained.unit(once, f"cell={spec}", train, config, spec, training)
        for spec, training in trainings.items()
    ]
    return xarray.concat(parts, dim="cell", join="outer", coords="minimal")


EXPERIMENT = study.Experiment(
    name="training",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="training",
    order=1,
    gallery={
        "training": study.Picture(
            (
                "--cell=rnn,lstm(forget_bias=1),gru(update_bias=1)",
                "--learning_rate=0.0003,0.001,0.003,0.01,0.03",
                "--num_seeds=3",
                "--probe=adjoints",
            )
        )
    },
    quick={
        "task": "adding(num_steps=10)",
        "hidden_size": 6,
        "num_seeds": 2,
        "batch_size": 8,
        "num_updates": 60,
        "eval_every": 20,
        "eval_size": 32,
    },
    doc=__doc__,
)
