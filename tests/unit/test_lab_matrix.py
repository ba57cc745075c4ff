"""The parts of the lab's matrix and of its standing networks that need no network."""

from __future__ import annotations

import pytest

from n2n.errors import ConfigError
from n2n.lab.matrix import ALL_PAIRS, COLUMNS, Outcome, Pair, expected, table
from n2n.lab.nat import KINDS
from n2n.lab.rules import Behaviour, cut_rules, router_rules
from n2n.lab.standing import UpOptions


def outcome(pair: str, *rounds: float | None) -> Outcome:
    return Outcome(Pair(*pair.split(":")), list(rounds))


def test_every_cell_is_measured_once() -> None:
    cells = [frozenset((pair.a, pair.b)) for pair in ALL_PAIRS]
    assert len(cells) == len(set(cells)) == 15 + 10
    assert {kind for cell in cells for kind in cell} == set(KINDS)


def test_what_is_expected_does_not_depend_on_who_is_first() -> None:
    for pair in ALL_PAIRS:
        assert expected(pair) == expected(Pair(pair.b, pair.a))
    relayed = {str(pair) for pair in ALL_PAIRS if expected(pair) == "relay"}
    assert relayed == {"symmetric:symmetric", "carrier:symmetric", *(f"blocked:{kind}" for kind in COLUMNS)}


def test_an_outcome_tells_median_worst_and_whether_it_was_expected() -> None:
    good = outcome("port:port", 0.3, 0.1, 2.0)
    assert good.ok
    assert str(good) == "0.30 s"
    assert (good.about()["median"], good.about()["worst"]) == (0.3, 2.0)
    mixed = outcome("port:port", 0.3, None)
    assert (mixed.path, mixed.ok, str(mixed)) == ("mixed", False, "0.30 s (1 of 2)")
    assert outcome("symmetric:symmetric", None).ok
    assert not outcome("symmetric:symmetric", 1.0).ok
    dead = Outcome(Pair("blocked", "full"), [], ["pings were lost"])
    assert (dead.path, dead.ok) == ("none", False)


def test_the_table_has_both_halves_and_marks_what_is_wrong() -> None:
    rows = table([outcome("full:port", 0.5), outcome("carrier:full", None), outcome("blocked:carrier", None)])
    assert rows == [
        ["", "full", "port", "carrier", "blocked"],
        ["full", "", "0.50 s", "relay !", ""],
        ["port", "0.50 s", "", "", ""],
        ["carrier", "relay !", "", "", "relay"],
        ["blocked", "", "", "relay", ""],
    ]
    assert table([outcome("carrier:full", 1.0)]) == [["", "full"], ["full", ""], ["carrier", "1.00 s"]]


def test_kinds_are_given_out_in_turn() -> None:
    assert UpOptions.of(None, ["port"]).kinds == ("port", "port")
    assert UpOptions.of(None, ["port", "open", "full"]).kinds == ("port", "open", "full")
    assert UpOptions.of(3, ["port", "open"]).kinds == ("port", "open", "port")
    assert UpOptions.of(2, ["port"]).passphrase != UpOptions.of(2, ["port"]).passphrase
    assert UpOptions.of(2, ["port"], plain=True).passphrase is None
    for edges, kinds in ((1, ["port", "open"]), (2, []), (61, ["port"]), (2, ["cone"])):
        with pytest.raises(ConfigError):
            UpOptions.of(edges, kinds)


def test_rules_replace_only_tables_of_their_own() -> None:
    text = router_rules(Behaviour("full"), address="198.18.0.2", lifetime=9, moved={("192.168.1.2", 5): 20_001})
    text += cut_rules([("198.18.0.2", "198.18.0.3")])
    assert "flush ruleset" not in text
    assert {line.split()[-1] for line in text.splitlines() if line.startswith("delete")} == {
        "n2n_filter",
        "n2n_nat",
        "n2n_cut",
    }
    assert "192.168.1.2 . 5 : 20001" in text
    assert "198.18.0.2 . 198.18.0.3" in text
