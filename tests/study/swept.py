"""A study for sweeps: its jobs log what they do, and can fail, be killed or wait on purpose."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray

from gradflow import study


@dataclass(frozen=True)
class Config(study.Config):
    cell: str = study.field("lstm", help="The cell.")
    hidden_size: int = study.field(4, help="The size.", positive=True)
    lags: tuple[int, ...] = study.field((0, 1), help="The lags.")
    place: str = study.field("", help="The folder with the log.")
    fail_at: str = study.field("", help="The job that fails until the file fixed exists.")
    kill_at: str = study.field("", help="The job that is killed the first time.")
    wait_at: str = study.field("", help="The job that waits until the file go exists.")


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    name, place = f"{config.cell}-{config.hidden_size}", Path(config.place)

    def measure() -> xarray.Dataset:
        with (place / "log.txt").open("a") as file:
            file.write(f"{name}\n")
        norms = -np.asarray(config.lags, float) * config.hidden_size
        return xarray.Dataset({"log_norm": ("lag", norms)}, coords={"lag": list(config.lags)})

    dataset = once("measure", measure)
    if config.wait_at == name:
        while not (place / "go").exists():
            time.sleep(0.02)
    if config.kill_at == name and not (place / "killed").exists():
        (place / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if config.fail_at == name and not (place / "fixed").exists():
        raise ValueError(f"Expected {name} to be\nsmaller. Choose another size.")
    return dataset


def figure(dataset: xarray.Dataset):
    from matplotlib.figure import Figure

    return Figure()


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    number = study.Measured("smallest", float(dataset.log_norm.min()), (-99.0, 0.0))
    return [study.claim("small", "The norm falls.", True, measured=[number], criterion="it does")]


EXPERIMENT = study.Experiment(
    name="swept", config=Config, run=run, figure=figure, claims=claims, quick={"hidden_size": 2}
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
