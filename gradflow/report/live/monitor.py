"""Watches a training: when it measures, what it records, and of what it warns."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gradflow.checks import check_flag, check_integer, check_number, shorten
from gradflow.flow.norms import Norm, check_norm
from gradflow.flow.summary import HORIZON
from gradflow.paths import user_path, write_bytes
from gradflow.report.live.boards import Boards
from gradflow.report.live.measure import Measured, Measurer, Subject
from gradflow.report.live.page import report_of
from gradflow.report.live.record import Record, dataset_of, line_of
from gradflow.report.page import render

if TYPE_CHECKING:
    import xarray


class Settings(NamedTuple):
    """The options of `gradflow.watch`, which documents them."""

    every: int
    folder: str
    needed_lag: int | None
    num_sequences: int
    norm: Norm
    max_cost: float | None
    tensorboard: bool
    wandb: bool

    def check(self) -> "Settings":
        """Returns the settings.

        Raises:
          TypeError: If an option is of another type.
          ValueError: If an option is out of range.
        """
        check_integer("every", self.every, 1)
        check_integer("num_sequences", self.num_sequences, 1)
        if self.needed_lag is not None:
            check_integer("needed_lag", self.needed_lag, 1)
        if self.max_cost is not None:
            check_number("max_cost", self.max_cost, "positive", example=0.02)
        check_norm(self.norm)
        check_flag("tensorboard", self.tensorboard)
        check_flag("wandb", self.wandb)
        return self


class Monitor:
    """Measures a training every few updates, and never raises into it.

    A context manager; `close` does the same. What fails is recorded and reported once.

    Args:
      settings: The options.
      framework: Where the model comes from.

    Attributes:
      spent: The time of all measurements without compilations, in seconds.
    """

    def __init__(self, settings: Settings, framework: str) -> None:
        self.settings = settings.check()
        self.spent = 0.0
        self._framework = framework
        self._measurer = Measurer(settings.norm)
        self._record = Record(
            user_path(settings.folder), {"framework": framework, **settings._asdict()}
        )
        self._boards = Boards(Path(self._record.path.parent), settings.tensorboard, settings.wandb)
        self._start = time.perf_counter()
        self._last: int | None = None
        self._last_cost = 0.0
        self._reported: dict[str, float] = {}
        self._has_failed = False

    @property
    def compiling(self) -> float:
        """The time that compilations have taken, in seconds."""
        return self._measurer.compiling

    def is_due(self, update: int) -> bool:
        """Returns whether an update is to be measured: the first, and then every few.

        It is put off while another measurement would make them cost more of the time of the loop
        than they may.
        """
        if self._last is None:
            return True
        if update - self._last < self.settings.every:
            return False
        if self.settings.max_cost is None:
            return True
        elapsed = time.perf_counter() - self._start - self.compiling
        return self.spent + self._last_cost <= self.settings.max_cost * elapsed

    def measure(self, update: int, subjects: Callable[[], Sequence[Subject]]) -> None:
        """Measures the layers at an update. Whatever fails is recorded, not raised.

        Args:
          update: The number of the update.
          subjects: Returns the layers; called within the guard.
        """
        begin, compiled = time.perf_counter(), self.compiling
        self._last = update
        with self.guarded(update):
            found = self._measurer(subjects())
            if not found:
                raise ValueError("no recurrent layer was run, or its inputs are unknown")
            compiling = self.compiling - compiled
            seconds = time.perf_counter() - begin - compiling
            self._keep(update, found, seconds, compiling)
        self._last_cost = time.perf_counter() - begin - (self.compiling - compiled)
        self.spent += self._last_cost

    def _keep(
        self, update: int, found: dict[str, Measured], seconds: float, compiling: float
    ) -> None:
        needed = {
            name: self.settings.needed_lag or len(one.log_norms) - 1 for name, one in found.items()
        }
        line = {"update": update, "seconds": round(seconds, 6), "compiling": round(compiling, 6)}
        layers = [line_of(name, one, needed[name]) for name, one in found.items()]
        for name, one in found.items():
            self._warn(update, name, one, needed[name])
        self._record.add(line | {"layers": layers})
        self._boards.show(update, found)

    def _warn(self, update: int, name: str, measured: Measured, needed: int) -> None:
        """Prints a line for a layer that is not finite, or whose horizon is too short."""
        if measured.nonfinite_step >= 0:
            if not math.isnan(self._reported.get(name, 0.0)):
                self._reported[name] = math.nan
                self._say(
                    f"update {update}: {name} is not finite from step "
                    f"{measured.nonfinite_step} of {len(measured.log_norms) - 1}"
                )
            return
        horizon, before = measured.horizon, self._reported.get(name)
        if horizon >= needed:
            return
        if before is None or not before / 2 < horizon < 2 * before:
            self._reported[name] = horizon
            self._say(
                f"update {update}: {name}: ‖∂h_T/∂h_k‖ is below {HORIZON:g} after "
                f"{horizon:g} steps, but the loss needs {needed}: the last step cannot teach what "
                f"the first {needed - horizon:g} have to do"
            )

    @contextlib.contextmanager
    def guarded(self, update: int) -> Iterator[None]:
        """Records an exception instead of raising it, and reports the first."""
        try:
            yield
        except Exception as error:
            text = f"{type(error).__name__}: {shorten(error)}"
            with contextlib.suppress(Exception):
                self._record.add({"update": update, "error": text})
            if not self._has_failed:
                self._has_failed = True
                self._say(f"update {update} could not be measured ({text}); training goes on")

    def _say(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a closed stream must not end a training
            print(f"gradflow.watch: {text}", file=sys.stderr, flush=True)

    def dataset(self) -> "xarray.Dataset":
        """Returns what was measured so far, with the dimensions layer, update and lag.

        It has ``log_norms``, ``horizon``, ``factor``, ``nonfinite_step``, ``needed_lag``,
        ``saturation`` (by gate and end) and ``seconds``, the time of each measurement.
        """
        return dataset_of(self._record.lines)

    def close(self) -> None:
        """Removes hooks, closes boards and writes the page. The record is complete without it."""
        self._boards.close()
        with self.guarded(self._last or 0):
            if (found := self.dataset()).sizes["layer"]:
                page = render(report_of(found, self._framework)).encode()
                write_bytes(self._record.path.with_name("report.html"), page)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
