"""The state is the sum of the events: at any record, in either direction, for whoever looks."""

import copy
import random

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError, SettingChanged, Trace
from popcorn_edu.engine.world import Run, World, WorldError, change_setup
from popcorn_edu.model import flat
from popcorn_edu.model.messaging import IpiSent, Messaging
from popcorn_edu.model.rings import InterruptsDisabled, MessageRead, Rings, TicketTaken


@pytest.fixture(scope="module")
def run():
    return scenarios.fan_in(kernels=4, messages=6, slots=4, gap_ns=200, seed=2)


@pytest.fixture
def world(run):
    """A copy to spoil."""
    return run.at(40)


class TestTheFold:
    def test_at_n_is_the_live_fold_at_every_n(self, run):
        """Jumping to a record and walking to it lead to the same world."""
        assert run.at(0) == run.start()
        for record, live in run.worlds():
            assert run.at(record.seq + 1) == live
        assert run.at(len(run)) == run.world

    def test_the_fold_is_the_world_the_run_was_in(self, monkeypatch):
        """What Sim showed its stories, and what the trace adds up to, are one thing."""
        worlds = []

        def remembering(made):
            def remembered(setup):
                worlds.append(made(setup))
                return worlds[-1]

            return remembered

        for maker in [name for name in vars(scenarios) if name.endswith("_world")]:
            monkeypatch.setattr(scenarios, maker, remembering(getattr(scenarios, maker)))
        for name in scenarios.names():
            with flat.played_by("stories"):
                run = scenarios.run(name)
            live = worlds[-1]
            assert run.world == live

    def test_both_directions_and_any_order(self, run):
        """Stepping back is as good as stepping forward."""
        places = list(range(len(run) + 1))
        forwards = [run.at(n).snapshot() for n in places]
        random.Random(5).shuffle(places)
        assert all(run.at(n).snapshot() == forwards[n] for n in places)

    def test_long_runs_are_folded_from_checkpoints(self):
        """The same worlds, without starting over from record 0 each time."""
        run = scenarios.fan_in(kernels=9, messages=40, seed=1)
        assert len(run) > 1500
        live = dict(enumerate(w.snapshot() for n, (_, w) in enumerate(run.worlds())))
        for n in (1, 511, 512, 513, 1023, 1024, len(run) - 1, 3, 700):
            assert run.at(n + 1 if n < len(run) else n).snapshot() == live[min(n, len(run) - 1)]

    def test_a_world_is_a_copy_of_your_own(self, run):
        """Whatever is done to it, the run is not changed."""
        spoiled = run.at(30)
        spoiled.rings.tail[0] = 99
        spoiled.messaging.queue.clear()
        spoiled.apply(InterruptsDisabled(3))
        assert run.at(30).rings.tail[0] != 99
        assert run.at(31) == run.at(31)

    def test_a_copied_world_goes_its_own_way(self, run):
        """Copying is how to ask "what then" without a run."""
        first = run.at(30)
        second = first.copy()
        assert first == second
        second.apply(InterruptsDisabled(3))
        assert first != second
        assert first == run.at(30)
        assert copy.deepcopy(first) == first

    @pytest.mark.parametrize("n", [-1, 1.0, "3", None, 10**9])
    def test_there_is_no_world_at_a_bad_n(self, run, n):
        """One sentence, with the numbers that are possible."""
        with pytest.raises(PopcornError, match=rf"run\.at\({n!r}\): .* from 0 to {len(run)}$"):
            run.at(n)

    def test_what_changes_in_a_step_is_a_comparison_of_dicts(self, run):
        """Tables are flat, so a highlight needs nothing but two of them."""
        taken = run.trace.next(TicketTaken, after=20)
        before, after = run.at(taken.seq).snapshot(), run.at(taken.seq + 1).snapshot()
        changed = {
            (part, table)
            for part, tables in after.items()
            for table, rows in tables.items()
            if rows != before[part][table]
        }
        assert changed == {("rings", "head"), ("rings", "taken"), ("messaging", "sent")}


class TestNames:
    def test_a_misspelt_part_is_answered_with_the_near_name(self, world):
        """For the world itself and for the world through a lens."""
        for seen in (world, world.seen_by(0)):
            with pytest.raises(WorldError, match="no part 'ring'; did you mean rings?"):
                seen.ring  # noqa: B018

    def test_python_may_ask_for_names_that_are_not_there(self, world):
        """hasattr, copying and rich display ask, and no is an answer."""
        assert not hasattr(world, "_repr_html_")
        assert not hasattr(world.seen_by(0), "_repr_html_")
        assert not hasattr(world.seen_by(0).rings, "_repr_html_")

    def test_a_misspelt_setting_is_answered_with_the_near_name(self, run):
        """Before anything runs."""
        with pytest.raises(PopcornError, match="no setting 'lookagain'; did you mean look_again?"):
            change_setup(run.setup, {"lookagain": True})

    def test_a_setting_changes_by_an_event_like_everything_else(self, run):
        """So the fold knows of it too."""
        world = run.at(0)
        world.apply(SettingChanged("budget", "3"))
        assert world.setup.budget == world.rings.setup.budget == 3
        assert run.at(0).setup.budget == 128


class TestTheLens:
    """A story about kernel 2 reads kernel 2's rows and the shared windows, and writes nothing."""

    @pytest.fixture
    def lens(self, world):
        return world.seen_by(2)

    def test_its_own_rows_can_be_read(self, world, lens):
        """As in the world itself."""
        for table in Messaging.private:
            mine = {
                key: value
                for key, value in getattr(world.messaging, table).items()
                if (key[0] if isinstance(key, tuple) else key) == 2
            }
            seen = getattr(lens.messaging, table)
            assert dict(seen) == mine
            assert len(seen) == len(mine)
            assert all(seen[key] == seen.get(key) == mine[key] and key in seen for key in mine)

    @pytest.mark.parametrize("table", Messaging.private)
    def test_others_rows_are_refused(self, world, lens, table):
        """By index, by get() and by a look whether they exist; the sentence says what to do."""
        key = next(iter(getattr(world.messaging, table)), 0)
        key = (1, *key[1:]) if isinstance(key, tuple) else 1
        for look in ("__getitem__", "get", "__contains__"):
            with pytest.raises(WorldError, match="kernel 2 may not read .* arrives as a message"):
                getattr(getattr(lens.messaging, table), look)(key)

    def test_shared_tables_can_be_read_whole(self, world, lens):
        """The rings are the memory that kernels share."""
        for part, table in [("rings", t) for t in Rings.tables] + [("messaging", "published")]:
            shared = getattr(getattr(world, part), table)
            assert dict(getattr(getattr(lens, part), table)) == shared

    def test_nothing_can_be_written(self, lens):
        """A story never assigns: no part, no table, no row, be it its own."""
        with pytest.raises(WorldError, match="never assigns .*; it yields an event"):
            lens.rings = {}
        with pytest.raises(WorldError, match="never assigns .*; it yields an event"):
            lens.rings.tail = {}
        with pytest.raises(WorldError, match="never assigns .*; it yields an event"):
            lens.messaging.sent[2] = 5
        with pytest.raises(TypeError):
            lens.rings.tail[2] = 5
        with pytest.raises(TypeError):
            del lens.rings.tail[2]

    @pytest.mark.parametrize("name", ["apply", "copy", "snapshot", "configure", "parts"])
    def test_the_world_has_no_back_door(self, lens, name):
        """What could change it, or show everything, is not there."""
        with pytest.raises(WorldError, match="has no"):
            getattr(lens, name)

    @pytest.mark.parametrize("name", ["message_read", "copy", "snapshot", "applies", "private"])
    def test_a_part_has_no_back_door(self, lens, name):
        """Its functions are the world's, not a story's."""
        with pytest.raises(WorldError, match="world.messaging has no table"):
            getattr(lens.messaging, name)

    def test_the_setup_is_there_for_everybody(self, world, lens):
        """Costs and choices are no secret."""
        assert lens.setup is lens.rings.setup is world.setup

    def test_a_lens_sees_what_happens_next(self, world, lens):
        """It is a view, not a copy."""
        before = lens.rings.int_enabled[0]
        world.rings.int_enabled[0] = 1 - before
        assert lens.rings.int_enabled[0] == 1 - before

    def test_a_lens_can_be_handed_on(self, lens):
        """A story that begins another shows it the other kernel's view, not its own."""
        assert dict(lens.seen_by(1).messaging.sent).keys() == {1}
        assert dict(lens.seen_by(None).messaging.sent).keys() == {0, 1, 2, 3}

    @pytest.mark.parametrize("name", scenarios.names())
    def test_the_models_own_stories_keep_to_it(self, name, monkeypatch):
        """Run with the lens on, every scenario gives the very same trace."""
        careless = scenarios.run(name, seed=4)
        original = scenarios.Sim.__init__
        monkeypatch.setattr(
            scenarios.Sim,
            "__init__",
            lambda sim, *args, **options: original(sim, *args, **options | {"careful": True}),
        )
        with flat.played_by("stories"):
            assert scenarios.run(name, seed=4).trace.digest() == careless.trace.digest()


class TestParts:
    def test_an_impossible_event_is_refused(self, run):
        """There is no message to read in an empty slot."""
        world = run.at(1)
        with pytest.raises(WorldError, match="slot 3 of ring 0 is empty: there is no message"):
            world.apply(MessageRead(0, 3, 3, 1, 0, 0, 0, 0))

    def test_an_event_that_no_part_knows_changes_nothing(self, run):
        """A learner's own event can be told without a part of its own."""
        world = World(run.setup, rings=Rings)
        before = world.snapshot()
        world.apply(IpiSent(0, 1, 0xCD))
        assert world.snapshot() == before

    def test_three_parts_may_listen_to_one_event(self, run):
        """Each in the order in which the world names them."""
        world = World(run.setup, one=Rings, two=Rings, three=Rings)
        world.apply(InterruptsDisabled(5))
        assert [part.int_enabled for part in world.parts.values()] == [{5: 0}] * 3

    def test_worlds_are_compared_by_their_tables(self, run):
        """And with nothing else; they are not to be put into sets."""
        assert run.at(3) == run.at(3) != run.at(4)
        assert run.at(3) != "a world"
        with pytest.raises(TypeError, match="unhashable"):
            hash(run.at(3))


class TestRun:
    def test_it_says_what_it_is(self, run):
        """In one line."""
        assert repr(run).startswith(f"<Run fan_in: <Trace of {len(run)} records, ")
        assert run.machine.name == "magny-cours-48"

    def test_show_prints_the_sentences(self, run, capsys):
        """A range of them if wanted."""
        run.show(2, 4)
        assert capsys.readouterr().out == f"{run.trace[2]}\n{run.trace[3]}\n"

    def test_a_run_without_its_making_cannot_be_forked(self, run):
        """A trace alone can be read, not played."""
        alone = Run(Trace(), lambda: World(run.setup))
        with pytest.raises(PopcornError, match="cannot be forked: it does not say how it was made"):
            alone.fork(0, drop=True)
