"""What the model claims, and whether it is so; and the same test as Popcorn's own."""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import rings
from popcorn_edu.readers import figures, validation
from popcorn_edu.readers.validation import KINDS, Claim, Claims


@pytest.fixture(scope="module")
def claims():
    return validation.claims()


def test_every_claim_that_can_fail_holds(claims):
    """The page is green where it claims to be."""
    assert claims.failing == ()
    assert all(len(claims.of(kind)) > 0 for kind in KINDS)


def test_an_assumption_is_never_called_validated(claims):
    """A model default has no verdict but that it is assumed, and every one of them is listed."""
    for claim in claims.of("model default"):
        assert claim.holds is None and claim.verdict == "assumed"
    listed = {claim.about for claim in claims.of("model default")}
    table = scenarios.make_setup("magny-cours-48", 2).machine.costs_table()
    assert listed == {row.name for row in table if row.cost.label == "model default"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "model default"])
def test_a_wrong_number_fails(kind):
    """A claim whose number the model does not show fails, and the summary says so."""
    wrong = Claim("slots", kind, 64, 64, 63, "slots", "facts")
    assert wrong.verdict == "FAILS"
    assert Claims([wrong]).failing == (wrong,)
    assert f"{kind}: 1, 0 hold" in Claims([wrong]).summary()


def test_the_window_is_laid_out_and_not_only_written_down(claims, monkeypatch):
    """Change the model's slot, and the claim about the window's size fails."""
    monkeypatch.setattr(rings, "WINDOW_BYTES", 4_112)
    changed = [claim for claim in validation._sizes() if claim.holds is False]
    assert [claim.about for claim in changed] == ["the same, as the model says"]


def test_a_claim_says_where_its_number_is_from(claims):
    """Each has a source and a unit."""
    assert all(claim.source and claim.unit for claim in claims)


def test_a_kind_that_there_is_not_is_refused(claims):
    """By name, with what there is."""
    with pytest.raises(PopcornError, match="kind='guess': expected one of exact"):
        claims.of("guess")


def test_the_table_can_be_read_without_pictures(claims):
    """As text and as a table with every claim."""
    assert str(claims).count("\n") == len(claims)
    assert claims._repr_html_().count("<tr>") == len(claims) + 1


# -- Popcorn's own latency test -------------------------------------------------------------------


def test_the_columns_are_those_of_popcorns_test():
    """Exactly its header; one line for each ping-pong; ticks never go back within a line."""
    head, *lines = validation.latency_csv(scenarios.ping(rounds=5)).splitlines()
    assert head == "send,IPI,isr1,isr2,bh,bh2,handler,roundtrip"
    assert len(lines) == 5
    for line in lines:
        ticks = [int(cell) for cell in line.split(",") if cell]
        assert ticks == sorted(ticks)


def test_the_handler_is_as_late_as_the_latency_says():
    """``handler_ns`` is the latency of the PING that figures measure."""
    run = scenarios.ping(rounds=4)
    pings = [row for row in figures.latencies(run) if row["type"] == "PING"]
    assert [row["handler_ns"] for row in validation.latency_test(run)] == [
        row["latency_ns"] for row in pings
    ]
