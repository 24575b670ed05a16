"""Published time series by name: their source, columns and seasonal period."""

from pathlib import Path
from typing import NamedTuple

from gradflow.data.files import official_file
from gradflow.data.series import Series, read_series
from gradflow.spec import check_name


class Published(NamedTuple):
    """The description of a published series.

    Attributes:
      file: The file's name, as published.
      source: Where it is published.
      column: The column of the values, as `read_series` takes it.
      times: The columns of the date.
      unit: Unit of the values.
      step: Time between two values.
      period: Seasonal period, in steps.
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
        period=132,  # a solar cycle is about 11 years
    ),
    "temperatures": Published(
        "daily-min-temperatures.csv",
        "https://github.com/jbrownlee/Datasets",
        column="Temp",
        times=("Date",),
        unit="°C",
        step="day",
        period=365,  # the file omits 29 February
    ),
}
"""The published series by name."""


def read_published(name: str, data_dir: str | Path | None) -> Series:
    """Reads a published series from its official file.

    Args:
      name: A name in `PUBLISHED`: ``bitcoin`` (closing prices), ``etth1`` (oil temperature of a
        transformer; Zhou et al. 2021), ``sunspots`` (WDC-SILSO, Royal Observatory of Belgium,
        Brussels) or ``temperatures`` (daily minimum in Melbourne).
      data_dir: Folder of the file.

    Raises:
      ValueError: If there is no such series, or the file is missing or differs from the published
        format.
    """
    check_name("series", name, PUBLISHED)
    found = PUBLISHED[name]
    path = official_file(data_dir, found.file, source=found.source)
    return read_series(path, found.column, times=found.times)
