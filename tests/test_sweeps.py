"""Many runs as one table: the same wherever they are run, and nothing is measured twice."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import scenarios, sweeps
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.readers import figures, sweep_view
from popcorn_edu.sweeps import Swept, sweep

GRID = {"kernels": 3, "messages": [2, 5], "gap_ns": [300, 3_000], "seed": range(2)}


def small(**options) -> Swept:
    return sweep("fan_in", **({"keep": False, "progress": False} | GRID | options))


def half(run):
    return len(run) / 2


def breaks(run):
    return 1 / 0


def test_the_table_is_the_grid_in_order():
    """One row for each point, the last axis fastest, with the measures of figures.summary."""
    table = small()
    assert [(r["messages"], r["gap_ns"], r["seed"]) for r in table] == [
        (m, g, s) for m in (2, 5) for g in (300, 3_000) for s in (0, 1)
    ]
    run = scenarios.fan_in(kernels=3, messages=5, gap_ns=300, seed=1)
    assert table[5] == {"messages": 5, "gap_ns": 300, "seed": 1} | figures.summary(run)
    assert table.complete


def test_the_run_behind_a_row_is_played_again():
    """run(n) is that point's run, and call(n) the line that makes it."""
    import popcorn_edu as pk

    table = small()
    assert table.call(5) == "pk.scenarios.fan_in(kernels=3, messages=5, gap_ns=300, seed=1)"
    assert table.run(5).trace.digest() == eval(table.call(5), {"pk": pk}).trace.digest()


@pytest.mark.parametrize("metric", ["p99_ns", half, {"half": half, "records": len}])
def test_a_metric_is_a_name_or_a_function(metric):
    """Each gives a column of its name."""
    table = small(metric=metric)
    names = (
        {"p99_ns"} if metric == "p99_ns" else {"half"} if metric is half else {"half", "records"}
    )
    assert set(table.columns) == {"messages", "gap_ns", "seed"} | names


def test_threads_give_the_same_table():
    """Any executor of concurrent.futures: same rows, same order."""
    with ThreadPoolExecutor(3) as pool:
        assert list(small(executor=pool)) == list(small())


@pytest.mark.slow
def test_processes_give_the_same_table():
    """Processes of its own: same rows, same order."""
    assert list(small(workers=2)) == list(small())


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table():
    """A real LocalCluster through its client's executor: same rows, same order."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        table = small(executor=client.get_executor(), metric={"half": half, "records": len})
    assert list(table) == list(small(metric={"half": half, "records": len}))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 200), min_size=1, max_size=3, unique=True),
)
def test_any_grid_is_the_same_here_and_elsewhere(messages, budgets):
    """Whatever the grid: serially, and shared out."""
    grid = {"kernels": 2, "messages": messages, "budget": budgets, "metric": "records"}
    with ThreadPoolExecutor(2) as pool:
        there = sweep("fan_in", executor=pool, keep=False, progress=False, **grid)
    assert list(there) == list(sweep("fan_in", keep=False, progress=False, **grid))


# -- what is kept ---------------------------------------------------------------------------------


def test_a_finished_point_is_not_run_again(tmp_path, monkeypatch):
    """The second sweep reads what the first has kept; a new point alone is run."""
    first = small(keep=tmp_path)
    ran = []
    measure = sweeps.measure
    monkeypatch.setattr(sweeps, "measure", lambda *given: ran.append(given[1]) or measure(*given))
    assert list(small(keep=tmp_path)) == list(first) and ran == []
    small(keep=tmp_path, messages=[2, 5, 6])
    assert {point["messages"] for point in ran} == {6}


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, capsys):
    """Ctrl-C gives the table of what is done; the next call does the rest."""
    count = []

    def stop(done, of):
        count.append(done)
        if done == 3:
            raise KeyboardInterrupt

    part = small(keep=tmp_path, progress=stop)
    assert len(part) == 3 and not part.complete and "interrupted" in repr(part)
    assert "3 of 8 points" in capsys.readouterr().err
    told = []
    whole = small(keep=tmp_path, progress=lambda done, of: told.append(done))
    assert told[0] == 3 and list(whole) == list(small())
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_metric_is_another_point(tmp_path):
    """What was kept for one metric is not taken for another, nor for a changed function."""
    small(keep=tmp_path, metric="records")
    assert "p99_ns" in small(keep=tmp_path, metric="p99_ns").columns
    assert small(keep=tmp_path, metric={"records": half})[0]["records"] == pytest.approx(
        small(metric="records")[0]["records"] / 2
    )


def test_a_damaged_file_is_measured_anew(tmp_path):
    """A file that was cut off or is not ours is no answer."""
    table = small(keep=tmp_path)
    for n, file in enumerate(sorted(tmp_path.rglob("*.json"))):
        file.write_text(("{", "[]", "", json.dumps(3))[n % 4])
    assert list(small(keep=tmp_path)) == list(table)


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    """The sweep goes on all the same."""
    (tmp_path / "file").write_text("")
    assert list(small(keep=tmp_path / "file")) == list(small())


def test_a_function_that_holds_on_to_something_is_not_kept(tmp_path):
    """Its text does not say all that it does."""
    factor = threading.active_count()
    small(keep=tmp_path, metric=lambda run: len(run) * factor)
    assert not list(tmp_path.rglob("*.json"))


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"gap": [1]}, "no option 'gap'; did you mean gap_ns"),
        ({"metric": "p95"}, "metric='p95': expected one of: delivered"),
        ({"metric": 5}, "metric=5: expected the name"),
        ({"workers": 0}, "workers=0: expected a number from 1"),
        ({"executor": 3}, "executor=3: expected something with submit"),
        ({"seed": []}, "seed: an empty list has no point"),
        ({"seed": range(30_000)}, "points or more .up to seed.; 20,000 are the most"),
        ({"messages": [2, -1]}, "messages=-1: expected a whole number"),
        ({"metric": breaks}, "'breaks' cannot measure fan_in.kernels=3, .*ZeroDivisionError"),
    ],
)
def test_a_mistake_is_one_sentence(given, sentence):
    """It names the argument, or the point that cannot be measured."""
    with pytest.raises(PopcornError, match=sentence):
        small(**given)


def test_nothing_to_vary_is_said():
    """A sweep wants an axis."""
    with pytest.raises(PopcornError, match="nothing to vary"):
        sweep("fan_in", kernels=3)


# -- the table and its picture --------------------------------------------------------------------


def test_the_table_goes_to_csv(tmp_path):
    """Whole, with a header."""
    table = small(metric="records")
    text = table.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == text
    assert text.splitlines()[0] == "messages,gap_ns,seed,records" and len(text.splitlines()) == 9


def test_the_best_row():
    """Least, or largest; ties are the first row."""
    table = small()
    assert table[table.best("records")]["records"] == min(table.column("records"))
    assert table[table.best("records", largest=True)]["records"] == max(table.column("records"))
    with pytest.raises(PopcornError, match="did you mean records"):
        table.best("record")


def test_the_lines_of_a_chart():
    """A line for each value of ``by``, its points by x, each with its row."""
    table = small()
    drawn = sweep_view.lines(table, "gap_ns", "p50_ns", "messages")
    assert list(drawn) == ["2", "5"]
    for name, points in drawn.items():
        assert points == sorted(points)
        for x, y, n in points:
            row = table[n]
            assert (str(row["messages"]), row["gap_ns"], row["p50_ns"]) == (name, x, y)


def test_the_chart_has_a_twin_and_says_what_makes_each_run():
    """A table with every point, and the exact call behind it."""
    view = small().plot(x="gap_ns", y="p99_ns", by="messages")
    html = view.chart.html(library=False)
    assert html.count("pk.scenarios.fan_in(") >= 8
    assert "p99_ns over gap_ns, as a table" in html


def test_the_chosen_point_opens_its_run():
    """The button plays the run of the row that is chosen."""
    view = small().plot(x="gap_ns", y="p99_ns")
    view.choose.value = 3
    view.button.click()
    assert view.choose.options[3][0].startswith("3: messages=2, gap_ns=3000, seed=1")


def test_too_many_lines_are_refused():
    """Four can be told apart."""
    table = small(seed=range(5))
    with pytest.raises(PopcornError, match="by='seed' has 5 values; 4 lines"):
        table.plot(x="gap_ns", y="p99_ns", by="seed")


def test_the_chart_stays_without_a_kernel():
    """It is an output of its own, beside the controls, and its text is the table."""
    shown = small().plot(x="gap_ns", y="p99_ns", by="messages")
    assert "p99_ns over gap_ns" in repr(shown)
    assert shown.chart not in shown.controls.children


def test_a_long_sweep_is_compiled_and_says_the_same(monkeypatch):
    """With numba the runs are the same runs, so the table is the same table."""
    assert sweeps.engine(sweeps.COMPILE_FROM - 1) == "lists"
    monkeypatch.setattr(sweeps, "COMPILE_FROM", 1)
    assert sweeps.engine(5) == "numba"
    compiled = list(small())
    monkeypatch.setattr(sweeps, "COMPILE_FROM", 10**6)
    assert compiled == list(small())


def test_a_faulty_run_is_measured_as_it_is():
    """Not as the sound run that it was made from."""
    from popcorn_edu.model import flat

    given = {"kernels": 3, "messages": 4, "fault": "kernel panic"}
    with flat.played_by("numba"):
        found = scenarios.measure("fan_in", **given)
    assert found == figures.summary(scenarios.run("fan_in", **given))
