"""Many runs over a grid of parameters, as one table.

    >>> swept = sweep("fan_in", gap_ns=[500, 2_000, 8_000], budget=[1, 128], seed=range(5))
    ...                                                                      # doctest: +SKIP
    >>> swept.plot(x="gap_ns", y="p99_ns", by="budget")                      # doctest: +SKIP
    >>> swept.run(3).play()                                                  # doctest: +SKIP

What is a list, a range or a tuple is an axis of the grid; anything else holds for all points. Each
point is a run of the scenario, and a row of the table says what was measured of it: by default the
numbers of ``figures.summary``, else your own function of a run, or several by name.

Nothing is measured twice: a finished point is kept in a folder, by a key of the scenario, its
arguments, the metric and the kit's own source. So a sweep that was interrupted goes on where it
stopped, and Ctrl-C (or the notebook's stop button) gives the table of what is done.

It runs here, on processes of its own (``workers=4``), or on any executor with ``submit``: that of
concurrent.futures, or of a class's Dask cluster (``executor=client.get_executor()``). The table is
the same whichever.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import itertools
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import popcorn_edu
from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError, near_names, write_whole
from popcorn_edu.engine.world import Run
from popcorn_edu.model import flat
from popcorn_edu.readers import figures

POINTS_AT_MOST = 20_000
COMPILE_FROM = 50  # points: fewer are played before numba has compiled, the first time
BATCHES_PER_WORKER = 8  # fewer hand-overs than points, and still something left to share out
NOT_AXES = ("cpus", "lists")  # arguments that are themselves lists
WORKERS_AT_MOST = 256

Metric = str | Callable[[Run], object] | Mapping[str, Callable[[Run], object]] | None


class Swept(Sequence[dict]):
    """The rows of a sweep, one dict for each point, in the order of the grid.

    ``complete`` is False if it was interrupted: the points that are missing are left out.
    """

    def __init__(self, scenario: str, axes: list[str], points: list[dict], rows: list[dict]):
        self.scenario, self.axes = scenario, axes
        self._points = [point for point, row in zip(points, rows, strict=True) if row is not None]
        self._rows = [row for row in rows if row is not None]
        self.complete = len(self._rows) == len(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, n):
        return self._rows[n]

    def __repr__(self) -> str:
        state = "" if self.complete else ", interrupted"
        return f"<Sweep of {self.scenario}: {len(self)} points over {', '.join(self.axes)}{state}>"

    @property
    def columns(self) -> list[str]:
        return list(self._rows[0]) if self._rows else list(self.axes)

    def column(self, name: str) -> list:
        """The values of one column, row by row."""
        if name not in self.columns:
            raise PopcornError(f"there is no column {name!r}; {near_names(name, self.columns)}")
        return [row[name] for row in self._rows]

    def call(self, n: int) -> str:
        """The line of Python that makes the run of row ``n``."""
        given = ", ".join(f"{name}={value!r}" for name, value in self._point(n).items())
        return f"pk.scenarios.{self.scenario}({given})"

    def run(self, n: int) -> Run:
        """The run of row ``n``, played again."""
        return scenarios.run(self.scenario, **self._point(n))

    def _point(self, n: int) -> dict:
        if type(n) is not int or not -len(self) <= n < len(self):
            raise PopcornError(f"row {n!r}: expected a number from 0 to {len(self) - 1}")
        return self._points[n]

    def best(self, name: str, largest: bool = False) -> int:
        """The row in which that column is least (or largest)."""
        values = [(value, n) for n, value in enumerate(self.column(name)) if value is not None]
        if not values:
            raise PopcornError(f"column {name!r} has no value in any row")
        return (max if largest else min)(values, key=lambda pair: (pair[0], 0))[1]

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as CSV; written whole to ``path`` if one is given."""
        sheet = io.StringIO()
        writer = csv.DictWriter(sheet, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        if path is not None:
            write_whole(Path(path), sheet.getvalue().encode())
        return sheet.getvalue()

    def to_pandas(self):
        """A pandas DataFrame, if pandas is installed."""
        try:
            import pandas  # not a dependency of the kit
        except ImportError:
            raise PopcornError("pandas is not installed: pip install pandas") from None
        return pandas.DataFrame(self._rows, columns=self.columns)

    def _repr_html_(self) -> str:
        shown = [tuple(row.values()) for row in self._rows]
        return figures.table_html(self.columns, shown)

    def plot(self, x: str, y: str, by: str | None = None):
        """The points, those of one ``by`` joined. Choose one, and its run opens below."""
        from popcorn_edu.readers.sweep_view import View  # late: a table needs no pictures

        return View(self, x, y, by)


def sweep(
    scenario: str = "fan_in",
    *,
    metric: Metric = None,
    workers: int = 1,
    executor=None,
    keep: bool | str | Path = True,
    progress: bool | Callable[[int, int], None] | None = None,
    **grid,
) -> Swept:
    """Run a scenario at every point of a grid, and measure each run.

    metric     None: figures.summary(run). A name of it; a function of a run; {name: function}
    workers    how many processes; 1: here
    executor   instead: anything with submit(function, *arguments), such as Dask's
    keep       False: no file. A folder for what is measured. True: the user's cache folder
    progress   None: shown if somebody looks. False: never. A function of (done, of how many)
    """
    fixed, axes = _axes(scenario, grid)
    points = [
        fixed | dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    measured = _metrics(metric)
    if type(workers) is not int or not 1 <= workers <= WORKERS_AT_MOST:
        raise PopcornError(f"workers={workers!r}: expected a number from 1 to {WORKERS_AT_MOST}")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise PopcornError(f"executor={executor!r:.60}: expected something with submit()")
    store = _Store(keep, scenario, measured)
    rows: list[dict | None] = [None] * len(points)
    todo = []
    for n, point in enumerate(points):
        found = store.get(point)
        if found is None:
            todo.append(n)
        else:
            rows[n] = {axis: point[axis] for axis in axes} | found
    told = _told(progress)
    told(len(points) - len(todo), len(points))
    batches = _batches(scenario, points, todo, measured, workers, executor)
    done = len(points) - len(todo)
    try:
        for n, found in batches:
            store.put(points[n], found)
            rows[n] = {axis: points[n][axis] for axis in axes} | found
            done += 1
            told(done, len(points))
    except KeyboardInterrupt:
        print(f"stopped: {done} of {len(points)} points are done, and kept", file=sys.stderr)
    finally:
        batches.close()
    return Swept(scenario, list(axes), points, rows)


def _axes(scenario: str, grid: dict) -> tuple[dict, dict[str, list]]:
    """What holds for all points, and what varies; misspelt arguments are refused."""
    known = scenarios.options(scenario)
    fixed, axes = {}, {}
    for name, value in grid.items():
        if name not in known:
            raise PopcornError(
                f"scenario {scenario} has no option {name!r}; {near_names(name, known)}"
            )
        if isinstance(value, (list, tuple, range)) and name not in NOT_AXES:
            axes[name] = list(value)
            if not axes[name]:
                raise PopcornError(f"{name}: an empty list has no point; give it a value")
        else:
            fixed[name] = value
    size = 1
    for name, values in axes.items():
        size *= len(values)
        if size > POINTS_AT_MOST:
            raise PopcornError(
                f"this grid has {size:,} points or more (up to {name}); {POINTS_AT_MOST:,} are "
                "the most: sweep fewer values, or in parts"
            )
    if not axes:
        raise PopcornError("there is nothing to vary: give an option a list, as in seed=range(5)")
    return fixed, axes


def _metrics(metric: Metric) -> dict[str, Callable[[Run], object]]:
    """What is measured, by the column's name."""
    if metric is None:
        return {"": figures.summary}
    if isinstance(metric, str):
        return {metric: _Named(metric)}
    if isinstance(metric, Mapping) and metric and all(map(callable, metric.values())):
        return {str(name): function for name, function in metric.items()}
    if callable(metric):
        return {getattr(metric, "__name__", "metric").strip("<>"): metric}
    raise PopcornError(
        f"metric={metric!r:.60}: expected the name of a number of figures.summary, a function of a "
        "run, or {name: function}"
    )


class _Named:
    """One number of the summary; a class, so that it can be sent to another process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, run: Run) -> object:
        return self.of(figures.summary(run))

    def of(self, found: dict) -> object:
        if self.name not in found:
            raise PopcornError(f"metric={self.name!r}: {near_names(self.name, found)}")
        return found[self.name]


def measure(scenario: str, point: dict, metrics: dict[str, Callable]) -> dict:
    """One point: the run, and what is measured of it. Also called in other processes."""
    usual = [f is figures.summary or isinstance(f, _Named) for f in metrics.values()]
    if all(usual):
        told = scenarios.measure(scenario, **point)  # the same numbers, if need be without a trace
        found = {}
        for name, function in metrics.items():
            found |= told if name == "" else {name: function.of(told)}
        return found
    run = scenarios.run(scenario, **point)
    found = {}
    for name, function in metrics.items():
        try:
            value = function(run)
        except Exception as error:
            if isinstance(error, PopcornError) and isinstance(function, _Named):
                raise
            given = ", ".join(f"{key}={value!r}" for key, value in point.items())
            raise PopcornError(
                f"the metric {name or 'summary'!r} cannot measure {scenario}({given}): "
                f"{type(error).__name__}: {error}"
            ) from error
        found |= value if name == "" else {name: value}
    return found


def engine(points: int) -> str:
    """Who plays the runs: numba where it is there and the sweep is long enough for it to pay. The
    traces are the same, byte for byte."""
    return "numba" if points >= COMPILE_FROM and find_spec("numba") else "lists"


def _measure_batch(
    scenario: str, points: list[dict], metrics: dict, played_by: str
) -> tuple[list, str]:
    """What was found, up to the first point that cannot be measured, and why it cannot."""
    found: list[dict] = []
    try:
        with flat.played_by(played_by):
            for point in points:
                found.append(measure(scenario, point, metrics))
    except PopcornError as problem:
        return found, str(problem)
    return found, ""


def _batches(
    scenario: str, points: list[dict], todo: list[int], metrics: dict, workers: int, executor
) -> Iterator[tuple[int, dict]]:
    """(number of the point, what was found), as they come."""
    if not todo:
        return
    if executor is None and workers == 1:
        for n in todo:
            with flat.played_by(engine(len(todo))):
                found = measure(scenario, points[n], metrics)
            yield n, found
        return
    with _pool(executor, workers) as pool:
        count = min(len(todo), BATCHES_PER_WORKER * (workers if executor is None else 8))
        shares = [todo[first::count] for first in range(count)]  # alike: a grid grows along an axis
        futures, player = {}, engine(len(todo))
        try:
            for share in shares:
                batch = [points[n] for n in share]
                futures[pool.submit(_measure_batch, scenario, batch, metrics, player)] = share
            left = set(futures)
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    found, problem = _result(future)
                    yield from zip(futures[future], found, strict=False)
                    if problem:
                        raise PopcornError(problem)
        finally:
            for future in futures:
                future.cancel()


def _result(future) -> tuple[list, str]:
    try:
        return future.result()
    except (AttributeError, TypeError, ImportError, BrokenExecutor, pickle.PicklingError) as error:
        raise PopcornError(
            f"another process cannot get what it shall run ({error}); a function that is written "
            "in a file can be sent there, one of this cell cannot: workers=1 measures it here"
        ) from error


class _pool:
    """The executor that was given, or processes of our own, which end with the sweep."""

    def __init__(self, executor, workers: int) -> None:
        self.own = None
        if executor is None:
            # spawn: the same on every system, and safe beside a notebook's threads
            self.own = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        self.executor = executor or self.own

    def __enter__(self):
        return self.executor

    def __exit__(self, *_) -> None:
        if self.own:
            self.own.shutdown(cancel_futures=True)


# -- what is kept ---------------------------------------------------------------------------------


@cache
def source_digest() -> str:
    """Of the files that decide what a run is and what is measured of it."""
    root = Path(popcorn_edu.__file__).parent
    seen = hashlib.sha256(popcorn_edu.__version__.encode())
    for folder in (".", "engine", "model", "readers"):
        for file in sorted((root / folder).glob("*.py")):
            seen.update(file.name.encode() + file.read_bytes())
    return seen.hexdigest()


def cache_folder() -> Path:
    """Where finished points are kept if nobody says where."""
    given = os.environ.get("POPCORN_EDU_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(given) if given else Path(home or Path.home() / ".cache") / "popcorn_edu" / "sweeps"


class _Store:
    """Finished points, a small file for each. A folder that cannot be written keeps nothing."""

    def __init__(self, keep: bool | str | Path, scenario: str, metrics: dict) -> None:
        self.folder: Path | None = None
        if keep is False:
            return
        sources = [name + _source_of(function) for name, function in metrics.items()]
        if any(source.endswith("?") for source in sources):
            return  # nobody can say whether this function is the same next time
        self.folder = cache_folder() if keep is True else Path(keep)
        self.key = [source_digest(), scenario, *sources]

    def _file(self, point: dict) -> Path | None:
        if self.folder is None or any(map(callable, point.values())):
            return None
        words = [*self.key, *(f"{name}={point[name]!r}" for name in sorted(point))]
        digest = hashlib.sha256("\n".join(words).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"

    def get(self, point: dict) -> dict | None:
        file = self._file(point)
        if file is None:
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, point: dict, found: dict) -> None:
        file = self._file(point)
        if file is None or json_twin(found) != found:
            return  # what would come back different is not kept
        with suppress(OSError, PopcornError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(found).encode())


def json_twin(found: dict) -> object:
    """What a value becomes in a file and back; None if it cannot be kept."""
    try:
        return json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _source_of(function: Callable) -> str:
    """What a metric does, as text; "?" if that cannot be known."""
    if isinstance(function, _Named):
        return f"summary {function.name}"
    if function is figures.summary:
        return "summary"
    code = getattr(function, "__code__", None)
    if code is None or function.__closure__:
        return "?"  # what it holds on to is not in its text
    scope = function.__globals__
    for name in code.co_names:
        module = getattr(scope.get(name), "__module__", getattr(scope.get(name), "__name__", ""))
        if name in scope and not str(module).startswith("popcorn_edu"):
            return "?"  # nor is what it uses from around it, unless that is the kit's own
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return "?"


# -- progress -------------------------------------------------------------------------------------


def _told(progress: bool | Callable | None) -> Callable[[int, int], None]:
    if callable(progress):
        return progress
    if progress is False:
        return lambda done, of: None
    if "IPython" in sys.modules and (shown := _bar()):
        return shown
    if progress or (progress is None and sys.stderr.isatty()):
        return _line
    return lambda done, of: None


def _line(done: int, of: int) -> None:
    """One line of a terminal, written over and over."""
    end = "\n" if done == of else ""
    print(f"\r{done:,} of {of:,} points", end=end, file=sys.stderr, flush=True)


def _bar() -> Callable[[int, int], None] | None:
    """A bar in the notebook, which goes when all is done."""
    from popcorn_edu.readers.sweep_view import bar  # late, likewise

    return bar()
