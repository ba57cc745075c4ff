"""`n2n lab nat-matrix`: edges behind real NATs go direct wherever their NATs allow, and fall back where they do not.

The whole matrix takes minutes: N2N_NAT_MATRIX=all. What runs without is one pair of every sort.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from n2n.lab.matrix import ALL_PAIRS, MatrixOptions, Outcome, Pair, expected, run
from n2n.lab.nat import TOOLS

from .needs import need_tool

#: Seconds that a pair has in a test: nothing needs as long, unless the machine is busy.
GENEROUS = 60.0
SOME = "full:port,addr:symmetric,port:port,port:symmetric,symmetric:symmetric,open:carrier,blocked:full"


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    for tool in TOOLS:
        need_tool(tool)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    everything = os.environ.get("N2N_NAT_MATRIX") == "all"
    return run(MatrixOptions(ALL_PAIRS if everything else Pair.parse(SOME), wait=GENEROUS, jobs=6))


def test_every_pair_comes_to_the_path_that_its_nats_allow(outcomes: list[Outcome]) -> None:
    assert {str(outcome.pair): outcome.path for outcome in outcomes} == {
        str(outcome.pair): expected(outcome.pair) for outcome in outcomes
    }, [outcome.faults for outcome in outcomes]


def test_what_went_direct_has_a_time_and_what_did_not_has_none(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        direct = expected(outcome.pair) == "direct"
        assert [0 <= seconds < GENEROUS for seconds in outcome.seconds()] == [True] * direct
        assert (outcome.about()["median"] is None) is not direct


def test_the_command_prints_one_document_and_fails_where_a_pair_is_not_as_it_should_be() -> None:
    """One second is too short for anything: the routers are asked to do what nobody can."""
    command = [sys.executable, "-m", "n2n", "lab", "nat-matrix", "--pairs", "blocked:blocked", "--wait", "1"]
    found = subprocess.run([*command, "--json"], check=False, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    (pair,) = result["pairs"]
    assert (pair["a"], pair["b"], pair["path"], pair["expected"]) == ("blocked", "blocked", "relay", "relay")
    assert pair["rounds"] == [None]
    assert "1 of 1" in found.stderr
