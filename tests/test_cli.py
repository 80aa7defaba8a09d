"""popcorn-edu: what a terminal shows, and what it says to who mistypes."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_edu import Machine, __version__, cli, faults, load, scenarios
from popcorn_edu.cli import main
from popcorn_edu.model.partition import Partition
from popcorn_edu.readers import checks

ROOT = Path(__file__).resolve().parent.parent


def program(*arguments, **options):
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "popcorn_edu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        **options,
    )


@pytest.fixture
def said(capsys):
    """Run main() and return its exit code, what it printed, and what it complained."""

    def run(*arguments):
        code = main(list(map(str, arguments)))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def saved(tmp_path):
    return scenarios.ping().save(tmp_path / "ping.popcorn")


class TestList:
    def test_it_names_everything_there_is(self, said):
        """Scenarios, machines, checks and labs, each with what it is."""
        code, out, err = said("list")
        assert (code, err) == (0, "")
        for name in [*scenarios.names(), *Machine.names(), *checks.ALL, "lab00"]:
            assert f"\n  {name} " in out, name
        assert "48 CPUs  AMD Drachma board" in out
        assert "Meet the player" in out

    def test_it_starts_quickly(self):
        """Nothing that draws, and nothing that grades, is loaded for it."""
        heavy = ["numpy", "bokeh", "IPython", "ipywidgets", "nbgrader", "nbformat", "networkx"]
        code = (
            "import sys; from popcorn_edu.cli import main; main(['list']); main(['run', 'ping']);"
            f"print('loaded', [name for name in {heavy} if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "loaded []"


class TestRun:
    @pytest.mark.parametrize("name", scenarios.names())
    def test_it_prints_the_sentences(self, name, said):
        """The same as run.show(), and as a golden transcript."""
        expected = "".join(f"{record}\n" for record in scenarios.run(name).trace)
        assert said("run", name) == (0, expected, "")

    def test_options_are_flags(self, said):
        """Named as in Python, with dashes; numbers, words, lists and switches."""
        _, out, _ = said(
            *"run fan_in --kernels 3 --messages 2 --seed 4 --gap-ns 50 --slots 2".split(),
            *["--full-rule", "whole ring", "--cpus", "0,6,12", "--no-look-again"],
            *"--machine opteron-6272-64 --schedule-seed 1 --budget 2 --high-every 2".split(),
        )
        run = scenarios.fan_in(
            kernels=3, messages=2, seed=4, gap_ns=50, slots=2, high_every=2, budget=2,
            full_rule="whole ring", cpus=(0, 6, 12), look_again=False,
            machine="opteron-6272-64", schedule_seed=1,
        )  # fmt: skip
        assert out == "".join(f"{record}\n" for record in run.trace)

    def test_set_takes_any_option(self, said):
        """--set NAME=VALUE, with dashes or underscores."""
        by_flag = said("run", "fan_in", "--gap-ns", 90, "--cpus", "0,1,2,3,4")
        by_set = said("run", "fan_in", "--set", "gap-ns=90", "--set", "cpus=(0,1,2,3,4)")
        assert by_flag == by_set

    def test_limit_prints_the_first_ones(self, said):
        """And says how many more there are."""
        _, out, _ = said("run", "ping", "--limit", 3)
        assert len(out.splitlines()) == 4
        assert out.endswith("... and 26 more records\n")
        assert said("run", "ping", "--limit", 99) == said("run", "ping")

    def test_check_judges_the_run(self, said):
        """Exit code 0 when all rules hold, 1 with the findings when one does not."""
        code, out, _ = said("run", "ping", "--check", "--limit", 0)
        assert (code, out.splitlines()[-1]) == (0, f"all {len(checks.ALL)} rules hold")
        code, out, _ = said("run", "lost_wakeup", "--check", "--limit", 0)
        assert code == 1
        assert "no_lost_wakeup: record 46 (6,419 ns): kernel 0 goes to sleep although" in out

    def test_save_keeps_the_run(self, said, tmp_path):
        """A file that load() and show read."""
        path = tmp_path / "kept"
        code, out, _ = said("run", "ping", "--seed", 3, "--save", path, "--limit", 0)
        assert (code, out.splitlines()[-1]) == (0, f"saved to {path}")
        assert load(path).trace.digest() == scenarios.ping(seed=3).trace.digest()
        _, shown, _ = said("show", path)
        assert shown == said("run", "ping", "--seed", 3)[1]


class TestFaults:
    def test_the_deck_is_listed(self, said):
        """Each fault with what it models; one by its name with all about it."""
        code, out, _ = said("faults")
        assert (code, len(out.splitlines())) == (0, len(faults.DECK))
        assert "lost IPI              an interrupt between kernels is sent" in out
        code, out, _ = said("faults", "late IPI")
        assert code == 0
        assert "  at              IpiArrived\n  --with ns=20000\n  in the world    " in out
        assert "did you mean late IPI" in said("faults", "lateIPI")[2]

    def test_a_fault_is_injected(self, said, tmp_path):
        """At its first place or at a record, with its options; the saved run can be forked."""
        path = tmp_path / "faulty"
        code, out, _ = said(
            "run", "ping", "--fault", "late IPI", "--at", 5, "--with", "ns=700", "--save", path
        )
        assert code == 0
        run = scenarios.ping().inject("late IPI", at=5, ns=700)
        assert str(run.trace[9]) in out
        again = load(path)
        assert again.trace.digest() == run.trace.digest()
        assert again.fork(9, drop=True).trace.digest() == run.fork(9, drop=True).trace.digest()
        code, out, _ = said("run", "ping", "--fault", "lost IPI", "--check")
        assert code == 1 and "no_lost_wakeup: record 5" in out

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            (["--fault", "lost IPI", "--at", "1"], "and the nearest place is record 5"),
            (["--fault", "lost"], "there is no fault 'lost'; did you mean lost IPI?"),
            (["--at", "1"], "say where and how a fault happens: say --fault"),
            (["--fault", "late IPI", "--with", "ns"], "expected NAME=VALUE, as in --with ns=5000"),
        ],
    )
    def test_a_mistake_is_a_sentence(self, said, flags, sentence):
        """On the complaints' channel, with a failing exit code."""
        code, _, err = said("run", "ping", *flags)
        assert code != 0 and sentence in err


class TestStep:
    @pytest.fixture
    def stepped(self, said, monkeypatch):
        """Step through ping with these answers typed; returns the prompts and what was printed."""

        def step(*answers, scenario="ping"):
            typed, prompts = iter(answers), []

            def answer(prompt):
                prompts.append(prompt)
                try:
                    reply = next(typed)
                except StopIteration:
                    raise EOFError from None
                if isinstance(reply, BaseException):
                    raise reply
                return reply

            monkeypatch.setattr("builtins.input", answer)
            monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
            code, out, err = said("run", scenario, "--step")
            return code, prompts, out + err

        return step

    def test_enter_is_the_next_record(self, stepped):
        """One sentence at a time, with what it changes."""
        code, prompts, out = stepped("", "n", "next", "q")
        assert (code, prompts) == (0, ["0/29 > ", "1/29 > ", "2/29 > ", "3/29 > "])
        trace = scenarios.ping().trace
        assert all(str(record) in out for record in trace[:3])
        assert str(trace[3]) not in out
        assert "rings.head[0]: 0 -> 1" in out
        assert "rings.slots[0, 0]: - -> kernel 1 copies message 0 (PING, NORMAL)" in out

    def test_back_and_jump(self, stepped):
        """Both directions, any record; beyond the ends is the end."""
        _, prompts, _ = stepped("5", "b", "back", "999", "b", "-3", "quit")
        places = [int(prompt.split("/")[0]) for prompt in prompts]
        assert places == [0, 5, 4, 3, 29, 28, 0]

    def test_the_whole_world_can_be_seen(self, stepped):
        """Every row of every table, as it is at this record."""
        _, _, out = stepped("2", "w", "q")
        assert "rings.taken[0, 0] = 1" in out
        assert "messaging.cpu[1] = 12" in out

    def test_the_end_is_said(self, stepped):
        """And the help, to who types something else."""
        _, _, out = stepped("29", "", "what", "q")
        assert "that was the last record" in out
        assert out.count("b: back") == 2

    def test_the_end_of_the_input_ends_it(self, stepped):
        """Ctrl-D is as good as q."""
        code, prompts, _ = stepped("")
        assert (code, len(prompts)) == (0, 2)

    def test_ctrl_c_ends_it(self, stepped):
        """With the usual exit code, and no call stack."""
        code, _, out = stepped(KeyboardInterrupt())
        assert code == 130
        assert out.endswith("stopped\n")

    def test_without_a_terminal_it_prints_everything(self):
        """A pipe cannot press Enter."""
        done = program("run", "ping", "--step", stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "".join(f"{record}\n" for record in scenarios.ping().trace)

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals in Python")
    def test_on_a_real_terminal(self):
        """Typed keys, and not a mock of them."""
        import pty

        ours, theirs = pty.openpty()
        os.write(ours, b"\n3\nq\n")
        done = program("run", "ping", "--step", stdin=theirs)
        os.close(ours)
        os.close(theirs)
        assert (done.returncode, done.stderr) == (0, "")
        assert "3/29 > " in done.stdout
        assert "kernel 1 copies message 0" in done.stdout


class TestExplore:
    def test_a_counterexample_is_told_and_kept(self, said, tmp_path):
        """The shortest story, the verdict, exit code 1, and a file that plays."""
        path = tmp_path / "bug.popcorn"
        code, out, err = said("explore", "fan_in", "--no-look-again", "--save", path)
        assert (code, err) == (1, "")
        assert "kernel 1 takes ticket 1 of ring 0" in out
        assert "found after 308 states, in 25 steps: lost wake-up" in out
        assert f"saved to {path}" in out
        assert len(load(path)) == 17

    def test_a_clean_search_ends_with_0(self, said):
        """Nothing is found, and every order was looked at."""
        code, out, err = said("explore", "fan_in", "--memory", "tso", "--kernels", 2)
        assert (code, err) == (0, "")
        assert out.startswith("complete: ")
        assert "nothing found [x86-TSO store buffers]" in out

    def test_the_memory_decides(self, said):
        """v2's receiver: clean under SC, not under TSO."""
        assert said("explore", "fan_in", "--barrier", "store")[0] == 0
        assert said("explore", "fan_in", "--barrier", "store", "--memory", "tso")[0] == 1

    @pytest.mark.parametrize(
        "arguments, sentence",
        [
            (["fan_on"], "there is no scenario 'fan_on'; did you mean fan_in?"),
            (["fan_in", "--memory", "tsu"], "memory='tsu': did you mean tso?"),
            (["fan_in", "--states", "0"], "states=0: expected a whole number, 1 or more"),
            (["fan_in", "--rounds", "1"], "scenario fan_in has no option 'rounds'"),
        ],
    )
    def test_a_mistake_is_one_sentence(self, said, arguments, sentence):
        """Exit code 2, and what was expected."""
        code, out, err = said("explore", *arguments)
        assert (code, out) == (2, "")
        assert sentence in err


class TestShow:
    def test_a_saved_run(self, said, saved):
        """Its records, or its first ones."""
        assert said("show", saved)[1] == said("run", "ping")[1]
        assert "... and 27 more records" in said("show", saved, "--limit", 2)[1]

    def test_the_state_at_a_record(self, said, saved):
        """Every row; nothing at the beginning."""
        _, out, _ = said("show", saved, "--at", 3)
        assert "rings.slots[0, 0] = kernel 1 copies message 0 (PING, NORMAL)" in out
        assert said("show", saved, "--at", 0) == (0, "", "")

    def test_a_machine(self, said):
        """As it describes itself."""
        _, out, _ = said("show", "westmere-24")
        assert out == Machine.load("westmere-24").describe() + "\n"

    def test_a_scenario(self, said):
        """With its defaults."""
        assert said("show", "ping") == said("run", "ping")


class TestExport:
    def test_a_web_page(self, said, saved, tmp_path):
        """The player, complete in one file."""
        page = tmp_path / "ping.html"
        code, out, err = said("export", saved, "-o", page)
        assert (code, out, err) == (0, f"wrote {page}\n", "")
        text = page.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>") and "pk-player" in text

    def test_a_table(self, said, tmp_path):
        """One row a record, which a spreadsheet and a program can read."""
        path = tmp_path / "ping.csv"
        said("export", "ping", "--to", "csv", "-o", path)
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        trace = scenarios.ping().trace
        assert len(rows) == len(trace)
        for row, record in zip(rows, trace, strict=True):
            assert int(row["seq"]) == record.seq and int(row["time_ns"]) == record.time
            assert row["who"] == record.who and row["sentence"] == str(record.event)
            assert row["cause"] == ("" if record.cause is None else str(record.cause))
            assert row["event"] == type(record.event).__name__
            fields = json.loads(row["fields"])
            assert list(fields) == list(record.event.fields)
        assert json.loads(rows[2]["fields"])["type"] == "PING"

    def test_text(self, said, tmp_path):
        """The sentences."""
        path = tmp_path / "ping.txt"
        said("export", "ping", "--to", "txt", "-o", path)
        assert path.read_text(encoding="utf-8") == said("run", "ping")[1]

    def test_a_file_that_is_there_is_kept(self, said, tmp_path):
        """Unless --force says otherwise."""
        path = tmp_path / "mine.txt"
        path.write_text("mine")
        code, _, err = said("export", "ping", "--to", "txt", "-o", path)
        assert (code, err) == (2, f"{path} is already there; --force replaces it\n")
        assert path.read_text() == "mine"
        assert said("export", "ping", "--to", "txt", "-o", path, "--force")[0] == 0
        assert path.read_text() != "mine"

    def test_a_failure_leaves_the_old_file(self, said, tmp_path, monkeypatch):
        """What is written half is thrown away."""
        path = tmp_path / "mine.csv"
        path.write_text("mine")

        def break_down(trace):
            raise KeyboardInterrupt

        monkeypatch.setitem(cli.export.TEXTS, "csv", break_down)
        assert said("export", "ping", "--to", "csv", "-o", path, "--force")[0] == 130
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
            ("mine.csv", "mine")
        ]


class TestMachines:
    def test_it_lists_them_with_what_is_known(self, said):
        """CPUs, nodes, RAM, whose memory map, and how many PCI functions."""
        code, out, err = said("machines")
        assert (code, err) == (0, "")
        for name in Machine.names():
            assert f"\n{name} " in out, name
        assert "h8qg6-64             64      8   128.0 GiB  real         68\n" in out
        assert "magny-cours-48       48      8    96.0 GiB  laid out      -\n" in out
        assert "rpi4-4                4      1     unknown  none          -\n" in out

    def test_all_about_one(self, said):
        """As it describes itself."""
        assert said("machines", "h8qg6-64") == (0, Machine.load("h8qg6-64").describe() + "\n", "")


@pytest.fixture
def plan(said, tmp_path):
    path = tmp_path / "mine.plan"
    said("plan", "h8qg6-64", "--grouping", "per package", "--memory", "per node", "--save", path)
    return path


class TestPlan:
    def test_it_divides_a_machine(self, said, plan):
        """Who gets what; the file holds the same plan."""
        made = Partition.build("h8qg6-64", grouping="per package", memory="per node")
        code, out, err = said("plan", plan)
        assert (code, err) == (bool(made.problems()), "")
        assert out.startswith(f"{made}\n")
        assert str(Partition.load(plan)) == str(made)

    def test_policies_and_counts_are_flags(self, said):
        """As in Partition.build()."""
        _, out, _ = said(
            "plan", "h8qg6-64", "--kernels", 4, "--grouping", "per node", "--memory", "per node",
            "--devices", "near", "--by-slot",
        )  # fmt: skip
        made = Partition.build(
            "h8qg6-64", kernels=4, grouping="per node", memory="per node", devices="near",
            by_slot=True,
        )  # fmt: skip
        assert out.startswith(f"{made}\n")

    def test_lines_are_what_each_kernel_boots_with(self, said, plan):
        """Ready to be copied."""
        made = Partition.load(plan)
        _, out, _ = said("plan", plan, "--lines")
        for k in range(len(made.kernels)):
            assert f"\nkernel {k} boots with\n  {made.command_line(k)}\n" in out

    def test_problems_are_all_told_and_the_exit_code_is_1(self, said, plan):
        """A plan changed by hand: the CPU that two kernels have, and the one that nobody has."""
        text = plan.read_text(encoding="utf-8")
        plan.write_text(text.replace('"cpus": "16-31"', '"cpus": "15,17-31"'), encoding="utf-8")
        code, out, err = said("plan", plan)
        problems = Partition.load(plan).problems()
        assert (code, err) == (1, "")
        assert out.endswith("problems\n" + "".join(f"  {sentence}\n" for sentence in problems))
        assert any("CPU 15" in sentence for sentence in problems)
        assert any("CPU 16" in sentence for sentence in problems)

    def test_a_plan_that_is_there_is_kept(self, said, plan):
        """Unless --force says otherwise."""
        before = plan.read_text(encoding="utf-8")
        code, out, err = said("plan", "magny-cours-48", "--save", plan)
        assert (code, out, err) == (2, "", f"{plan} is already there; --force replaces it\n")
        assert plan.read_text(encoding="utf-8") == before
        said("plan", "magny-cours-48", "--save", plan, "--force")
        assert Partition.load(plan).machine.name == "magny-cours-48"

    def test_a_plan_is_not_divided_again(self, said, plan):
        """Policies are for machines."""
        code, out, err = said("plan", plan, "--grouping", "per core")
        assert (code, out) == (2, "")
        assert err == (
            f"--grouping divides a machine anew, and {plan} is a plan already; a machine's name "
            "was expected\n"
        )


class TestCmdline:
    def test_it_explains_word_by_word(self, said):
        """And finds nothing wrong with a good line."""
        code, out, err = said("cmdline", "mklinux present_mask=8-15 mem=2G quiet")
        assert (code, out, err) == (
            0,
            "mklinux: a secondary kernel: it joins the messaging layer that the primary made\n"
            "present_mask=8-15: CPUs 8-15 are present (a list, despite the name); the others stay "
            "known\n"
            "mem=2G: RAM known so far ends at 2 GiB\n"
            "quiet: changes nothing about CPUs, memory or devices\n",
            "",
        )

    def test_a_problem_is_exit_code_1(self, said):
        """What Linux does with the word, and what was probably meant."""
        code, out, _ = said("cmdline", "qiet")
        assert code == 1
        assert "\nproblems\n  qiet: no parameter is called 'qiet'; did you mean quiet" in out

    def test_on_a_machine_it_shows_what_the_kernel_has(self, said):
        """CPUs, RAM and devices; --linux is for who has no Popcorn."""
        line = "mklinux present_mask=8-15 mem=2G"
        _, popcorn, _ = said("cmdline", line, "--machine", "h8qg6-64")
        assert "\non h8qg6-64 the kernel then has\nCPUs online: 8-15; present: 8-15" in popcorn
        assert "RAM: 624 KiB at [0x1000-0x9cfff], 2,047 MiB at [0x100000-0x7fffffff]" in popcorn
        _, linux, _ = said("cmdline", line, "--machine", "h8qg6-64", "--linux")
        assert "CPUs online: 0-63" in linux


class TestLabs:
    def test_build_is_the_builders(self, said, monkeypatch, tmp_path):
        """The command hands its words on and prints what was made."""
        from popcorn_edu.grading import build as builder

        asked = []

        def build(folder, names):
            asked.append((folder, list(names)))
            return [tmp_path / "lab05.ipynb"]

        monkeypatch.setattr(builder, "build", build)
        assert said("labs", "build", "lab05") == (0, f"{tmp_path / 'lab05.ipynb'}\n", "")
        assert said("labs", "build", "--folder", "here")[0] == 0
        assert asked == [(None, ["lab05"]), ("here", [])]


COMMANDS = [
    "list",
    "run",
    "show",
    "export",
    "compare",
    "perfetto",
    "machines",
    "plan",
    "cmdline",
    "labs",
]
MISTAKES = {
    "": "popcorn-edu: the following arguments are required: COMMAND; popcorn-edu --help tells more",
    "rnu ping": "popcorn-edu: argument COMMAND: invalid choice: 'rnu'; did you mean run?",
    "run": "popcorn-edu run: the following arguments are required: SCENARIO; popcorn-edu run --help"
    " tells more",
    "run fan-in": "there is no scenario 'fan-in'; did you mean fan_in?",
    "run ping --sead 3": "popcorn-edu: there is no option --sead here; did you mean --seed or --set"
    " or --step?",
    "run ping --xyzzy": "popcorn-edu: there is no option --xyzzy here; popcorn-edu --help",
    "list --seed": "popcorn-edu: there is no option --seed here; popcorn-edu --help",
    "run ping extra": "popcorn-edu: unrecognized arguments: extra; popcorn-edu --help tells more",
    "run ping --seed": "popcorn-edu run: argument --seed: expected one argument; popcorn-edu run",
    "run ping --limit x": "popcorn-edu run: argument --limit: invalid int value: 'x'; ",
    "run ping --seed x": "seed='x': expected a whole number",
    "run ping --kernels 3": "scenario ping has no option 'kernels'; expected one of: cpus, look",
    "run fan_in --set kernel=3": "scenario fan_in has no option 'kernel'; did you mean kernels?",
    "run fan_in --set kernels": "--set kernels: expected NAME=VALUE, as in --set slots=8",
    "run fan_in --set receive=print": "scenario fan_in has no option 'receive'; expected one of",
    "run fan_in --kernels -3": "kernels=-3: expected a whole number, 2 or more",
    "run fan_in --kernels four": "kernels='four': expected a whole number, 2 or more",
    "run fan_in --cpus 0 --kernels 2": "0 is no list of CPU numbers; one such as [0, 12, 24] was",
    "run fan_in --machine magny": "There is no machine called 'magny'; did you mean magny-cours-48",
    "run ping --save nowhere/run": "cannot write nowhere/run: No such file or directory",
    "show pign": "there is no file and nothing else called 'pign'; did you mean ping?",
    "show ping --at 999": "run.at(999): expected a number from 0 to 29",
    "show ping --at -1": "run.at(-1): expected a number from 0 to 29",
    "show README.md": "README.md is not a whole saved run (File is not a zip file); it was",
    "export ping": "popcorn-edu export: the following arguments are required: -o/--output; ",
    "export ping --to pdf -o x": "popcorn-edu export: argument --to: invalid choice: 'pdf';"
    " expected one of: csv, ctf, html, perfetto, shiviz, txt",
    "export westmere-24 -o x": "there is no file and nothing else called 'westmere-24'; expect",
    "export ping --to csv -o nowhere/x": "cannot write nowhere/x: No such file or directory",
    "machines h8qg6": "There is no machine called 'h8qg6'; did you mean h8qg6-64",
    "plan": "popcorn-edu plan: the following arguments are required: MACHINE|FILE; ",
    "plan h8qg6-46": "there is no saved plan and no machine called 'h8qg6-46'; did you mean h8qg6-",
    "plan my.plan": "there is no saved plan and no machine called 'my.plan'; `popcorn-edu",
    "plan README.md": "README.md, line 1, column 1: this is not JSON",
    "plan h8qg6-64 --grouping nodes": "There is no policy 'nodes'; did you mean per node?",
    "plan h8qg6-64 --memory all": "There is no memory policy",
    "plan h8qg6-64 --devices all": "There is no device policy 'all'; expected one of: near, prim",
    "plan h8qg6-64 --kernels 0": "0 is no number of kernels; a whole number from 1 up was expected",
    "plan h8qg6-64 --kernels x": "popcorn-edu plan: argument --kernels: invalid int value: 'x'; ",
    "cmdline": "popcorn-edu cmdline: the following arguments are required: LINE; ",
    "cmdline quiet --machine h8": "There is no machine called 'h8'; ",
    "labs bild": "popcorn-edu labs: argument action: invalid choice: 'bild'; did you mean build?",
}


class TestMistakes:
    @pytest.mark.parametrize("typed", MISTAKES)
    def test_a_mistake_is_one_line_and_exit_code_2(self, typed, said, monkeypatch):
        """On stderr, with nothing on stdout."""
        monkeypatch.chdir(ROOT)
        code, out, err = said(*typed.split())
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert err.startswith(MISTAKES[typed])

    def test_as_a_process_too(self):
        """The exit code is what the shell sees."""
        done = program("run", "fanin")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "there is no scenario 'fanin'; did you mean fan_in?\n"


class TestManners:
    def test_the_version(self):
        """Of the package."""
        assert program("--version").stdout == f"popcorn_edu {__version__}\n"

    @pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
    def test_help_is_there_for_every_command(self, command, capsys):
        """With what each option is for."""
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: {' '.join(['popcorn-edu', *command])}")

    def test_the_examples_in_the_help_work(self, said, tmp_path, monkeypatch):
        """Every line of them, in their order."""
        monkeypatch.chdir(tmp_path)
        lines = [shlex.split(line) for line in cli.EXAMPLES.splitlines()[1:]]
        assert len(lines) >= 6
        for program_name, *arguments in lines:
            assert program_name == "popcorn-edu"
            assert said(*arguments)[0] == 0, arguments
        assert (tmp_path / "ping.html").exists()

    @pytest.mark.skipif(os.name == "nt", reason="a POSIX pipe")
    def test_a_reader_who_has_seen_enough(self):
        """As in `popcorn-edu run fan_in | head -1`: no complaint, exit code 0."""
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "popcorn_edu", "run", "fan_in", "--kernels", "16"],
                cwd=ROOT,
                stdout=writer,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_commands_name_leads_here(self):
        """pyproject.toml makes `popcorn-edu` of main()."""
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert 'popcorn-edu = "popcorn_edu.cli:main"' in text
