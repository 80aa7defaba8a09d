"""What a story may yield, stepping one by hand, and what is said about one that goes wrong."""

import pytest
from cell import STYLES, cell

from popcorn_edu.engine import steps
from popcorn_edu.engine.steps import Begin, Delay, StoryError, Until, walk
from popcorn_edu.engine.trace import Event, PopcornError, Record
from popcorn_edu.engine.world import Part, World, WorldError


class Counted(Event):
    """One more."""

    n: int


class Counter(Part):
    """A world of one number, which only grows by one."""

    tables = ("value",)

    def counted(self, event: Counted) -> None:
        if event.n != self.value.get(0, 0) + 1:
            raise WorldError(f"{event.n} does not follow {self.value.get(0, 0)}")
        self.value[0] = event.n

    applies = {Counted: counted}


@pytest.fixture
def world():
    return World(None, counter=Counter)


class TestWalk:
    def test_it_writes_what_the_story_says(self, world):
        """Say it, then it is so: the world follows each event before the story goes on."""

        def story(world):
            yield Counted(1)
            assert world.counter.value[0] == 1
            yield Counted(2)

        assert list(walk(story(world), world, "me")) == [
            Record(0, 0, "me", None, Counted(1)),
            Record(1, 0, "me", None, Counted(2)),
        ]

    def test_a_delay_makes_the_next_record_later(self, world):
        """Nobody else acts meanwhile: there is no scheduler."""

        def story():
            yield Delay(5)
            yield Delay(7, cpu=3)
            yield Counted(1)

        assert [record.time for record in walk(story(), world)] == [12]

    def test_an_event_answers_with_its_number(self, world):
        """A story can tell which record it wrote."""

        def story():
            first = yield Counted(1)
            second = yield Counted(2)
            assert (first, second) == (0, 1)

        assert len(list(walk(story(), world))) == 2

    def test_it_stops_where_the_story_waits(self, world):
        """There is nobody who could wake it."""

        def story():
            yield Counted(1)
            yield Until(Counted, n=9)
            yield Counted(2)

        assert [record.event.n for record in walk(story(), world)] == [1]

    def test_it_does_not_follow_what_the_story_begins(self, world):
        """One story at a time."""

        def other():
            yield Counted(9)

        def story():
            yield Begin("other", other())
            yield Counted(1)

        assert [record.event.n for record in walk(story(), world)] == [1]

    def test_a_story_inside_a_story_is_told_too(self, world):
        """``yield from`` is how a step gets a name of its own."""

        def inner():
            yield Counted(1)
            return "told"

        def story():
            assert (yield from inner()) == "told"
            yield Counted(2)

        assert [record.event.n for record in walk(story(), world)] == [1, 2]

    def test_a_story_without_end_is_stopped(self, world):
        """By the number of its steps, so at the same place everywhere."""

        def story():
            while True:
                yield Delay(1)

        with pytest.raises(StoryError, match="walker took 50 steps and did not end or wait"):
            list(walk(story(), world, limit=50))

    def test_a_value_that_does_not_fit_is_named(self, world):
        """Before the world sees it."""

        def story():
            yield Counted("1")

        with pytest.raises(StoryError, match="walker: Counted.n must be a whole number, not '1'"):
            list(walk(story(), world))

    def test_what_is_no_story_is_refused(self, world):
        """A function without a yield gives None, not a story."""
        with pytest.raises(StoryError, match="walker: None is no story; a story is a"):
            list(walk(None, world))


class TestSteps:
    @pytest.mark.parametrize("ns", [-1, 1.5, "5", None, True])
    def test_a_delay_is_whole_nanoseconds(self, ns):
        """Integers, so that no rounding makes two machines differ."""
        with pytest.raises(PopcornError, match="Delay wants a whole number of nanoseconds, 0 or"):
            Delay(ns)

    @pytest.mark.parametrize("within", [-1, 1.5, "5", True])
    def test_a_time_out_is_whole_nanoseconds(self, within):
        """A negative one would turn time back."""
        with pytest.raises(PopcornError, match="Until wants within= as a whole number"):
            Until(Counted, within=within)

    @pytest.mark.parametrize("kind", [Counted(1), "Counted", int, None])
    def test_until_wants_a_kind_of_event(self, kind):
        """Not an event, not a name."""
        with pytest.raises(PopcornError, match="Until wants a kind of event, such as SlotReady"):
            Until(kind)

    def test_until_refuses_a_misspelt_field(self):
        """A wait for a field that does not exist would never end."""
        with pytest.raises(PopcornError, match="Counted has no field 'm'; expected one of: n"):
            Until(Counted, m=1)

    @pytest.mark.parametrize("story", [None, 5, walk, [Counted(1)]])
    def test_begin_wants_a_story_that_was_called(self, story):
        """A function is not yet a story."""
        with pytest.raises(PopcornError, match="Begin wants a story that was called, as in Begin"):
            Begin("kernel 3 isr", story)

    def test_they_show_what_they_are(self):
        """In a debugger, and in reports on who waits for what."""
        assert [repr(Delay(5)), repr(Delay(5, 2))] == ["Delay(5)", "Delay(5, cpu=2)"]
        assert repr(Until(Counted, n=1, within=5)) == "Until(Counted, n=1)"
        assert repr(Begin("kernel 3", (n for n in ()))) == "Begin('kernel 3')"


class TestMistakes:
    """What a learner reads: one sentence, with the line of their own."""

    @pytest.mark.parametrize("style", STYLES)
    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("yield 5", "yielded 5; .*; to let time pass write Delay(5)"),
            ("yield", "yielded None; a story yields an Event, Delay(ns), Until(Kind, ...) or"),
            (
                "yield RingSeenEmpty",
                "yielded RingSeenEmpty; .*it is a kind: write RingSeenEmpty(..",
            ),
            ("yield Delay", "yielded Delay; .*; it is a kind: write Delay(...)"),
            ("yield send(world, me, 1)", "yielded the story send() as a whole; .*'yield from'"),
            ("yield [1] * 9999", "yielded [1, 1, 1, 1, 1, 1, ...]; a story"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise ValueError", "ValueError"),
            ("raise ValueError('two\\nlines')", "ValueError: two lines"),
            ("{}[7]", "KeyError: there is no entry 7"),
            ("undefined", "NameError: name 'undefined' is not defined"),
            ("world.ring", "the world has no part 'ring'; did you mean rings?"),
            ("raise StopIteration", "RuntimeError: generator raised StopIteration"),
            ("yield Delay(-3)", "Delay wants a whole number of nanoseconds, 0 or more, not -3"),
            ("yield Delay(0.5)", "Delay wants a whole number of nanoseconds, 0 or more, not 0.5"),
            ("yield RingSeenEmpty(me)", "TypeError: .*missing 1 required positional argument: 're"),
            ("yield RingSeenEmpty(me, 'x')", "RingSeenEmpty.read must be a whole number, not 'x'"),
            ("import random; random.choice([])", "IndexError: Cannot choose from an empty seq"),
            ("import json; json.loads('{')", "JSONDecodeError: Expecting property name"),
        ],
    )
    def test_the_learners_own_line_is_named(self, style, line, sentence):
        """Not the kit's line nor the library's: number and text of the line in the cell."""
        names = cell(
            f"""
            def receive(world, me):
                yield RingSeenEmpty(me, 0)
                {line}
            """,
            style,
        )
        world = World(None, rings=names["Rings"])
        with pytest.raises(StoryError) as caught:
            list(walk(names["receive"](world, 0), world, "kernel 0"))
        words = str(caught.value)
        start, _, rest = sentence.partition(".*")
        assert words.startswith("kernel 0" + (" " if start.startswith("yielded") else ": ") + start)
        assert rest in words
        assert words.endswith(f", at line 3 of your cell: {line}")
        assert "\n" not in words and "0x" not in words and len(words) < 300

    def test_a_line_deep_inside_is_the_deepest_of_theirs(self):
        """The helper that failed, not the story that called it."""
        names = cell(
            """
            def half(n):
                return n / 0

            def receive(world, me):
                yield Delay(half(4))
            """
        )
        with pytest.raises(StoryError, match="at line 2 of your cell: return n / 0"):
            list(walk(names["receive"](None, 0), None))

    def test_a_step_of_a_story_inside_is_named_where_it_stands(self):
        """Under a chain of ``yield from`` the innermost line is the one to look at."""
        names = cell(
            """
            def inner(world):
                yield 7

            def receive(world, me):
                yield from inner(world)
            """
        )
        with pytest.raises(StoryError, match="at line 2 of your cell: yield 7"):
            list(walk(names["receive"](None, 0), None))

    def test_a_line_in_a_file_is_named_by_the_file(self, world):
        """In a module of one's own there is no cell."""

        def story():
            yield 5

        with pytest.raises(StoryError, match=r", at test_steps.py:\d+: yield 5"):
            list(walk(story(), world))

    def test_ipython_shows_the_sentence_alone(self):
        """No forty lines of call stack for a mistake of one's own."""
        problem = StoryError("kernel 0: this and that, at line 3 of your cell")
        assert problem._render_traceback_() == [f"StoryError: {problem}"]

    def test_an_object_that_cannot_show_itself_does_no_harm(self, world):
        """A learner's broken __repr__ is not our crash."""

        class Broken:
            def __repr__(self):
                raise ZeroDivisionError

        def story():
            yield Broken()

        with pytest.raises(StoryError, match="walker yielded <Broken instance at"):
            list(walk(story(), world))


def test_a_path_of_windows_is_cut_to_its_file_name():
    """The folders in front help nobody."""
    assert steps.place(r"C:\labs\mine.py", 3) == ", at mine.py:3"
