"""The named runs: the same every time, as their transcripts say, with the numbers that must be.

tests/transcripts/ holds one run of each scenario as sentences (of a long one the beginning). They
are golden: a change of the model that changes one shows here, and the diff reads as what the
change means. After looking at the diff, write them anew with

    python tests/test_scenarios.py
"""

import functools
import inspect
import sys
from pathlib import Path

import pytest

from popcorn_edu import load, scenarios
from popcorn_edu.engine.trace import PopcornError, Trace
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.messaging import IpiSent, MapQueued, SendFailed, WindowMapped
from popcorn_edu.model.rings import (
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    SenderBlocked,
    TicketTaken,
    WindowPublished,
)
from popcorn_edu.readers import checks

TRANSCRIPTS = Path(__file__).parent / "transcripts"
GOLDEN = {
    "ping": {"rounds": 2},
    "fan_in": {"kernels": 3, "messages": 3, "slots": 2, "gap_ns": 400, "high_every": 2},
    "lost_wakeup": {},
    "two_full_rings": {"messages": 4, "slots": 2},
    "registration": {"kernels": 3},
    "boot": {"scan": False},
    "boot_64": {},
    "device_scan": {},
    "proxied_io": {"blocks": 1},
    "long_message": {"size_bytes": 150, "at_once": 2, "long_rule": "per sender"},
    "multicast": {"messages": 2, "kernels": 3},
    "keepalive": {"kernels": 3, "periods": 4, "messages": 2, "slots": 2},
    "checkin_race": {},
    "services": {"kernels": 3, "double": True},
}
TOLD_AT_MOST = 2_000  # records; of a longer run the beginning is told, and how often what happens


def transcript(name: str) -> str:
    """A run as sentences, with what the checks find and the run's fingerprint."""
    options = GOLDEN[name]
    run = scenarios.run(name, **options)
    call = f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"
    lines = [f"# {call} on {run.machine.name}", f"# digest {run.trace.digest()}", ""]
    whole = len(run) <= TOLD_AT_MOST
    lines += [str(record) for record in run.trace[: len(run) if whole else TOLD_AT_MOST // 8]]
    if not whole:
        lines += ["", *(f"{count:>6} {kind}" for kind, count in run.trace.kinds().items())]
    lines += ["", *(f"# {finding.check}: {finding}" for finding in checks.all(run))]
    return "\n".join(lines).rstrip() + "\n"


def regenerate() -> None:
    for name in GOLDEN:
        (TRANSCRIPTS / f"{name}.txt").write_text(transcript(name), encoding="utf-8", newline="\n")


class TestTranscripts:
    @pytest.mark.parametrize("name", GOLDEN)
    def test_a_run_is_told_as_before(self, name):
        """Record for record; python tests/test_scenarios.py writes the transcripts anew."""
        golden = (TRANSCRIPTS / f"{name}.txt").read_text(encoding="utf-8")
        assert transcript(name).splitlines() == golden.splitlines()

    def test_every_scenario_has_its_transcript(self):
        """And there is no other file."""
        assert sorted(path.stem for path in TRANSCRIPTS.glob("*")) == sorted(scenarios.names())


class TestSameAgain:
    def test_another_seed_is_another_run(self):
        """Who sends when comes from the seed."""
        digests = {scenarios.fan_in(seed=seed).trace.digest() for seed in range(20)}
        assert len(digests) == 20

    def test_a_schedule_seed_leaves_the_sending_times_alone(self):
        """It only orders what happens at one time."""
        options = {"kernels": 6, "messages": 1, "gap_ns": 0, "seed": 5}
        runs = [scenarios.fan_in(schedule_seed=seed, **options) for seed in (None, 1, 2, 3)]
        first = [[r.time for r in run.trace.records(TicketTaken)] for run in runs]
        assert all(times == first[0] for times in first)

    @pytest.mark.parametrize("name", scenarios.names())
    def test_a_loaded_run_is_the_same_run(self, name, tmp_path):
        """Records, worlds, machine and meta."""
        run = scenarios.run(name, seed=2)
        back = load(run.save(tmp_path / "run"))
        assert back.trace.digest() == run.trace.digest()
        assert back.machine.name == run.machine.name
        some = range(0, len(run), max(7, len(run) // 100))
        assert all(back.at(n) == run.at(n) for n in some)
        assert checks.all(back) == checks.all(run)

    @pytest.mark.parametrize("name", scenarios.names())
    def test_a_loaded_run_can_be_forked(self, name, tmp_path):
        """As if it had never been away."""
        run = scenarios.run(name, seed=2)
        back = load(run.save(tmp_path / "run"))
        middle = len(run) // 2
        fork = back.fork(middle, drop=True)
        assert fork.trace.digest() == run.fork(middle, drop=True).trace.digest()
        later = min(middle + 1, len(fork) - 1)
        again = fork.fork(later, delay=50)
        assert list(again.trace)[:later] == list(fork.trace)[:later]

    def test_a_saved_fork_can_be_read_but_not_forked(self, tmp_path):
        """Its file does not hold the edits, and a wrong past is worse than none."""
        fork = scenarios.ping().fork(5, delay=100)
        back = load(fork.save(tmp_path / "fork"))
        assert list(back.trace) == list(fork.trace)
        with pytest.raises(PopcornError, match="cannot be forked"):
            back.fork(7, drop=True)

    def test_a_run_of_another_version_is_not_forked(self, tmp_path, monkeypatch):
        """A replay that went another way would show a past that never was."""
        back = load(scenarios.ping().save(tmp_path / "run"))
        ping = scenarios.ping
        changed = functools.wraps(ping)(lambda **_: ping(rounds=3))
        monkeypatch.setitem(scenarios.SCENARIOS, "ping", changed)
        with pytest.raises(PopcornError, match="another version of popcorn_edu"):
            back.fork(7, drop=True)

    @pytest.mark.parametrize(
        "meta",
        [
            {},
            {"setup": 5},
            {"setup": {}, "scenario": "ping", "arguments": {}},
            {"setup": {"handlers": ["NO_SUCH"]}, "scenario": "ping", "arguments": {}},
        ],
    )
    def test_a_trace_that_is_no_scenarios_is_refused(self, tmp_path, meta):
        """It can be read as a Trace, but nobody knows its world."""
        path = Trace(meta).save(tmp_path / "trace")
        with pytest.raises(PopcornError, match="does not say what it was built from"):
            load(path)

    def test_a_learners_run_can_be_saved(self, tmp_path):
        """Read back, it shows what happened; the story itself is not in the file."""

        def receive(world, me):
            yield from scenarios.messaging.receive(world, me)

        run = scenarios.fan_in(receive=receive)
        back = load(run.save(tmp_path / "mine"))
        assert back.trace.digest() == run.trace.digest() == scenarios.fan_in().trace.digest()
        with pytest.raises(PopcornError, match="cannot be forked"):
            back.fork(3, drop=True)
        assert len(run.fork(3, drop=True)) > 3


class TestRegistration:
    @pytest.mark.parametrize("kernels", [2, 3, 5, 9])
    def test_n_kernels_send_n_times_n_minus_1_half_check_ins(self, kernels):
        """Each checks in with all that were there before it, and all know all at the end."""
        run = scenarios.registration(kernels=kernels)
        check_ins = list(run.trace.records(PayloadCopied, type=MessageType.CHECKIN))
        assert len(check_ins) == kernels * (kernels - 1) // 2
        assert all(r.event.priority == Priority.HIGH for r in check_ins)
        assert set(run.world.messaging.mapped.values()) == {2**kernels - 1}
        assert len(list(run.trace.records(MapQueued))) == len(check_ins)
        assert len(list(run.trace.records(WindowMapped))) == 2 * len(check_ins)

    def test_64_kernels_send_2016_check_ins(self):
        """The number of the real system, on a machine with 64 CPUs."""
        run = scenarios.registration(kernels=64, machine="opteron-6272-64")
        assert sum(1 for _ in run.trace.records(MessageRead, type=MessageType.CHECKIN)) == 2016
        assert run.world.messaging.mapped[0] == 2**64 - 1
        assert checks.all(run) == []

    def test_nobody_writes_into_a_window_before_it_is_mapped(self):
        """Nobody even tries, as long as only newcomers send."""
        run = scenarios.registration(kernels=6)
        assert run.trace.next(SendFailed) is None
        published = [r.event.kernel for r in run.trace.records(WindowPublished)]
        assert published == list(range(6))


class TestFanIn:
    def test_everybody_sends_to_kernel_0(self):
        """``messages`` each."""
        run = scenarios.fan_in(kernels=7, messages=5)
        sent = [(r.event.sender, r.event.number) for r in run.trace.records(TicketTaken, ring=0)]
        assert sorted(sent) == [(kernel, n) for kernel in range(1, 7) for n in range(5)]

    def test_every_third_is_high(self):
        """If it is asked for; none otherwise."""
        run = scenarios.fan_in(kernels=2, messages=7, high_every=3)
        priorities = [str(r.event.priority) for r in run.trace.records(PayloadCopied)]
        assert priorities == ["NORMAL", "NORMAL", "HIGH"] * 2 + ["NORMAL"]
        none = scenarios.fan_in(kernels=2, messages=3).trace
        assert not list(none.records(PayloadCopied, priority=Priority.HIGH))

    def test_no_message_is_a_short_run(self):
        """One record: everybody has registered."""
        assert len(scenarios.fan_in(messages=0)) == 1

    def test_more_load_means_fewer_interrupts_for_each_message(self):
        """That is what mitigation is for."""

        def interrupts_per_message(gap_ns):
            run = scenarios.fan_in(kernels=9, messages=40, gap_ns=gap_ns)
            return len(list(run.trace.records(IpiSent))) / len(list(run.trace.records(MessageRead)))

        ratios = [interrupts_per_message(gap_ns) for gap_ns in (200_000, 20_000, 2_000)]
        assert ratios == sorted(ratios, reverse=True)
        assert ratios[0] > 0.9
        assert ratios[-1] < 0.1

    def test_a_small_ring_makes_senders_wait(self):
        """And a large one does not."""
        burst = {"kernels": 5, "messages": 6, "gap_ns": 50}
        assert scenarios.fan_in(slots=2, **burst).trace.next(SenderBlocked)
        assert not scenarios.fan_in(slots=64, **burst).trace.next(SenderBlocked)

    def test_the_machine_makes_the_distances(self):
        """The same messages take longer between packages than on one die."""
        near = scenarios.ping(cpus=(0, 4), machine="magny-cours-48")
        far = scenarios.ping(cpus=(0, 47), machine="magny-cours-48")
        machine = near.machine
        assert machine.transfer_ns(0, 4) < machine.transfer_ns(0, 47)
        assert near.trace[-1].time < far.trace[-1].time

    def test_a_machine_of_ones_own(self):
        """An object will do as well as a name."""
        machine = Machine.synthetic(packages=2, cores_per_node=4)
        run = scenarios.fan_in(machine=machine, kernels=8, messages=2)
        assert run.machine is machine
        assert checks.all(run) == []


class TestPing:
    @pytest.mark.parametrize("rounds", [0, 1, 5])
    def test_each_ping_has_its_pong(self, rounds):
        """The answer comes from kernel 0's callback."""
        trace = scenarios.ping(rounds=rounds).trace
        for kind, ring in ((MessageType.PING, 0), (MessageType.PONG, 1)):
            assert len(list(trace.records(MessageRead, type=kind, ring=ring))) == rounds


class TestOptions:
    def test_each_scenario_tells_its_options(self):
        """Those of the function's own signature; lost_wakeup has fan_in's too."""
        for name in scenarios.names():
            signature = inspect.signature(scenarios.scenario(name)).parameters
            own = {key for key, option in signature.items() if option.kind is option.KEYWORD_ONLY}
            assert own <= set(scenarios.options(name))
        assert scenarios.options("lost_wakeup")["kernels"] == 3
        assert scenarios.options("lost_wakeup")["look_again"] is False
        assert "gap_ns" in scenarios.options("lost_wakeup")

    @pytest.mark.parametrize("name", scenarios.names())
    def test_the_defaults_are_the_defaults(self, name):
        """Giving every option its default changes nothing."""
        given = scenarios.options(name)
        assert scenarios.run(name, **given).trace.digest() == scenarios.run(name).trace.digest()

    @pytest.mark.parametrize("name", scenarios.names())
    def test_each_scenario_says_what_it_is(self, name):
        """For lists and for help."""
        assert len(scenarios.scenario(name).__doc__) > 40

    def test_lost_wakeup_loses_one(self):
        """On each of its seeds, and round again."""
        for seed in range(4):
            assert checks.every_message_is_read(scenarios.lost_wakeup(seed=seed))
        again, first = scenarios.lost_wakeup(seed=3), scenarios.lost_wakeup(seed=0)
        assert again.trace.digest() == first.trace.digest()
        assert checks.all(scenarios.lost_wakeup(look_again=True)) == []

    def test_stories_of_ones_own_take_the_place_of_ours(self):
        """receive= in kernel 0, send= in everybody."""
        told = []

        def receive(world, me):
            told.append(("receive", me))
            yield from scenarios.messaging.receive(world, me)

        def send(world, me, *rest):
            told.append(("send", me))
            yield from scenarios.messaging.send(world, me, *rest)

        run = scenarios.two_full_rings(messages=1, receive=receive, send=send)
        assert {who for who in told if who[0] == "receive"} == {("receive", 0)}
        assert {who for who in told if who[0] == "send"} == {("send", 0), ("send", 1)}
        assert checks.all(run) == []


if __name__ == "__main__":
    regenerate()
    sys.exit(0)
