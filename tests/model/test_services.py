"""Who offers what, who wants to know, and that nobody else hears of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import walk
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import services
from popcorn_edu.model.rings import MessageType, PayloadCopied
from popcorn_edu.model.services import (
    ARRIVAL,
    DEPARTURE,
    FIRST_SERVICE,
    RegistrationRefused,
    ServiceGone,
    ServiceNotified,
    ServiceRegistered,
    Subscribed,
    SubscriberDropped,
    Unsubscribed,
    Wish,
    pack,
    unpack,
)
from popcorn_edu.readers import checks

SERVICE = FIRST_SERVICE
OPTIONS = [{}, {"late": True}, {"double": True}, {"dies": True}, {"late": True, "double": True}]


def news(run) -> list[tuple[int, int, bool]]:
    """Who heard of what, and whether it is there."""
    return [
        (r.event.kernel, r.event.service, r.event.there) for r in run.trace.records(ServiceNotified)
    ]


@given(st.sampled_from(list(Wish)), st.integers(0, 65_535), st.integers(0, 255), st.booleans())
def test_a_wish_survives_its_packing(wish, service, kernel, there):
    """Into a message's payload and out again."""
    assert unpack(pack(wish, service, kernel, there)) == (wish, service, kernel, there)


@pytest.mark.parametrize("options", OPTIONS)
def test_only_the_interested_hear(options):
    """The last kernel hears of the service and of kernel 1; nobody else hears anything."""
    for seed in (None, 1, 2):
        run = scenarios.services(kernels=6, schedule_seed=seed, **options)
        assert {kernel for kernel, *_ in news(run)} == {5}
        assert checks.only_the_interested_are_notified(run) is None
        if not options.get("dies"):
            assert checks.all(run) == []


def test_whoever_comes_late_is_told_at_once():
    """The service is there already: the subscriber hears of it when it subscribes."""
    assert news(scenarios.services(late=True))[0] == (3, SERVICE, True)


def test_a_kernel_that_comes_and_goes_is_a_piece_of_news():
    """To whoever asked for arrivals and departures."""
    told = news(scenarios.services())
    assert (3, ARRIVAL, True) in told and (3, DEPARTURE, False) in told


def test_the_second_owner_is_refused_and_told_who_was_first():
    """And the service stays with the first."""
    run = scenarios.services(double=True)
    assert run.trace.next(RegistrationRefused).event == RegistrationRefused(SERVICE, 2, 1)
    assert [r.event.owner for r in run.trace.records(ServiceRegistered)] == [1]


def test_a_dead_owners_service_goes_when_its_death_is_noticed():
    """Not before: the directory learns of it by its own keepalive."""
    run = scenarios.services(dies=True)
    gone = run.trace.next(ServiceGone)
    assert gone.event == ServiceGone(SERVICE, 1) and gone.time > 200_000_000
    assert news(run)[-2:] == [(3, SERVICE, False), (3, DEPARTURE, False)]


def test_what_it_costs_in_messages():
    """One for each wish of another kernel, one for each interested kernel and change."""
    run = scenarios.services(kernels=5)
    sent = [r for r in run.trace.records(PayloadCopied) if r.event.type == MessageType.SERVICE]
    wishes = 3 + 2 + 2  # three subscriptions; arrive, register; unregister, leave
    assert len(sent) == wishes + len(news(run)) and len(news(run)) == 4


# -- the directory, stepped by hand ---------------------------------------------------------------


@pytest.fixture
def world():
    return scenarios.services().at(1)


def noted(world, kernel: int, wish: Wish, service: int = SERVICE) -> list:
    told = walk(services.note(world, 0, kernel, wish, service), world)
    return [r.event for r in told if type(r.event).__module__ == services.__name__]


def test_to_subscribe_twice_changes_nothing(world):
    """One bit, and one notification."""
    noted(world, 1, Wish.REGISTER)
    assert noted(world, 0, Wish.SUBSCRIBE)[-1] == ServiceNotified(0, SERVICE, 1, True)
    assert noted(world, 0, Wish.SUBSCRIBE) == [Subscribed(SERVICE, 0)]


def test_to_register_again_is_no_change(world):
    """The owner asks once more: nobody is told, nobody refused."""
    noted(world, 1, Wish.REGISTER)
    assert noted(world, 1, Wish.REGISTER) == []


def test_only_the_owner_can_withdraw(world):
    """Somebody else's wish to unregister is no change."""
    noted(world, 1, Wish.REGISTER)
    assert noted(world, 2, Wish.UNREGISTER) == []
    assert noted(world, 1, Wish.UNREGISTER) == [ServiceGone(SERVICE, 1)]


def test_who_has_unsubscribed_hears_no_more(world):
    """The bit is 0, and the next change costs no message."""
    noted(world, 0, Wish.SUBSCRIBE)
    assert noted(world, 0, Wish.UNSUBSCRIBE) == [Unsubscribed(SERVICE, 0)]
    assert noted(world, 1, Wish.REGISTER) == [ServiceRegistered(SERVICE, 1)]


def test_a_dead_subscriber_is_dropped(world):
    """From every service that it wanted to know of."""
    noted(world, 2, Wish.SUBSCRIBE)
    told = [r.event for r in walk(services.forget(world, 0, 2), world)]
    assert told == [SubscriberDropped(SERVICE, 2)]
    assert world.services.interested[0, SERVICE] == 0


def test_a_service_may_come_back_from_another_kernel(world):
    """Its interested kernels are still interested."""
    noted(world, 0, Wish.SUBSCRIBE)
    noted(world, 1, Wish.REGISTER)
    noted(world, 1, Wish.UNREGISTER)
    assert noted(world, 2, Wish.REGISTER)[-1] == ServiceNotified(0, SERVICE, 2, True)


# -- a learner's story, and planted bugs ----------------------------------------------------------


def test_a_story_of_ones_own_is_told_for_each_notification():
    """With what changed; it may send messages, too."""
    heard = []

    def notified(world, me, service, owner, there):
        heard.append((me, service, owner, there))
        yield from services.unsubscribe(world, me, service)

    run = scenarios.services(notified=notified)
    assert (3, SERVICE, 1, True) in heard and (3, SERVICE, 1, False) not in heard
    assert checks.only_the_interested_are_notified(run) is None


PLANTED = {
    "tells everybody": lambda run: run.fork(
        run.trace.next(ServiceNotified, service=SERVICE).seq,
        say=ServiceNotified(2, SERVICE, 1, True),
    ),
    "tells twice": lambda run: run.fork(
        run.trace.next(ServiceGone).seq, say=ServiceNotified(3, SERVICE, 1, True)
    ),
    "forgets one": lambda run: run.fork(
        run.trace.next(ServiceNotified, service=SERVICE).seq, drop=True
    ),
    "takes a second owner": lambda run: run.fork(
        run.trace.next(ServiceGone).seq, say=ServiceRegistered(SERVICE, 2)
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_planted_bugs_are_found(bug):
    """Each by the check, at its record."""
    assert checks.only_the_interested_are_notified(PLANTED[bug](scenarios.services()))


def test_a_kernel_reads_only_its_own_rows():
    """The directory is kernel 0's: a learner's story in another kernel is refused it."""

    def nosy(world, me, service, owner, there):
        print(world.services.owner[0, service])
        yield

    with pytest.raises(PopcornError, match="another kernel's own memory"):
        scenarios.services(notified=nosy)


@pytest.mark.parametrize("wrong", [{"kernels": 2}, {"notified": 5}])
def test_bad_input_is_named(wrong):
    """By its argument."""
    ((name, value),) = wrong.items()
    with pytest.raises(PopcornError, match=f"{name}={value!r}"):
        scenarios.services(**wrong)
