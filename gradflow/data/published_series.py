"""Published series by name: where each is, what its columns are, and how long a season is."""

from pathlib import Path
from typing import NamedTuple

from gradflow.data.files import official_file
from gradflow.data.series import Series, read_series
from gradflow.spec import check_name


class Published(NamedTuple):
    """A published series: where it is, and what is known of it.

    Attributes:
      file: The file's name, as published.
      source: Where it is published.
      column: The column of the values, as `read_series` takes it.
      times: The columns that say when.
      unit: Of the values.
      step: What lies between two of them.
      period: Steps in a season, from one time to the next that it should be like.
    """

    file: str
    source: str
    column: str
    times: tuple[str, ...]
    unit: str
    step: str
    period: int


PUBLISHED = {
    "bitcoin": Published(
        "coin_Bitcoin.csv",
        "https://www.kaggle.com/datasets/sudalairajkumar/cryptocurrencypricehistory",
        column="Close",
        times=("Date",),
        unit="USD",
        step="day",
        period=7,
    ),
    "etth1": Published(
        "ETTh1.csv",
        "https://github.com/zhouhaoyi/ETDataset (ETT-small)",
        column="OT",
        times=("date",),
        unit="°C",
        step="hour",
        period=24,
    ),
    "sunspots": Published(
        "SN_m_tot_V2.0.csv",
        "https://www.sidc.be/SILSO/INFO/snmtotcsv.php",
        column="4",
        times=("1", "2"),
        unit="sunspots",
        step="month",
        period=132,  # a solar cycle is 11 years long, more or less
    ),
    "temperatures": Published(
        "daily-min-temperatures.csv",
        "https://github.com/jbrownlee/Datasets",
        column="Temp",
        times=("Date",),
        unit="°C",
        step="day",
        period=365,  # the file leaves the 29th of February out
    ),
}
"""The published series by name."""


def read_published(name: str, data_dir: str | Path | None) -> Series:
    """Reads a published series from its official file.

    Args:
      name: One of `PUBLISHED`: ``bitcoin`` (closing prices), ``etth1`` (oil temperature of a
        transformer; Zhou et al. 2021), ``sunspots`` (WDC-SILSO, Royal Observatory of Belgium,
        Brussels) or ``temperatures`` (daily minimum in Melbourne).
      data_dir: The folder of the file.

    Raises:
      ValueError: If there is no such series, the file is missing, or it is not as published.
    """
    check_name("series", name, PUBLISHED)
    found = PUBLISHED[name]
    path = official_file(data_dir, found.file, source=found.source)
    return read_series(path, found.column, times=found.times)
