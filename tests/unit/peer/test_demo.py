"""The demo's parts that need no process: the board, the verdict, the documents and plots, and what is refused."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ubcp_p2p.cli.demo import Villain
from ubcp_p2p.cli.main import main
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.peer.demo.alone import Alone, ways
from ubcp_p2p.peer.demo.board import Accusation, Board, HeldOut
from ubcp_p2p.peer.demo.books import Audit, Books, Bound, Credits, Told
from ubcp_p2p.peer.demo.community import Community
from ubcp_p2p.peer.demo.plots import terminal_plot, write_png
from ubcp_p2p.peer.demo.processes import DemoFailed, workplace
from ubcp_p2p.peer.demo.report import check, document, margin, show
from ubcp_p2p.peer.demo.run import shortened
from ubcp_p2p.peer.demo.story import Kill, Outcome
from ubcp_p2p.peer.demo.tables import decision_lines
from ubcp_p2p.peer.demo.view import LiveView, PlainView
from ubcp_p2p.peer.demo.villain import VILLAINS, Caught, Evidence, harm, judge
from ubcp_p2p.peer.demo.villains.__main__ import PARTS
from ubcp_p2p.peer.demo.without import groups_of

NAMES = ("peer 1", "peer 2", "peer 3", "peer 4")


def _committed(round_: int, members: tuple[str, ...], state: str, **more: Any) -> dict[str, Any]:
    event = {
        "kind": "committed", "round": round_ + 1, "time": 100.0 + round_, "members": [f"key of {m}" for m in members],
        "loss": 3.0 - 0.1 * round_, "weight": 200, "state_hash": state,
    }  # fmt: skip
    return event | more


def _board() -> Board:
    """Six rounds: peer 3 is in from round 2, peer 4 is killed in round 4."""
    board = Board(rounds=6, local_steps=25, parameters=1000)
    for name in NAMES:
        board.add(name, f"key of {name}")
    for round_ in range(6):
        members = tuple(
            name for name in NAMES if not (name == "peer 3" and round_ < 2) and not (name == "peer 4" and round_ >= 4)
        )
        if round_ == 2:
            board.hear("peer 3", {"kind": "adopted", "round": 2, "how": "download", "source": "key of peer 2"})
        if round_ == 4:
            board.hear("peer 4", {"kind": "exchange", "round": 4})
            board.hear("peer 4", {"kind": "killed", "round": 4, "time": 103.5})
        for name in members:
            board.hear(name, _committed(round_, members, f"{round_:064x}"))
    for round_, loss in ((2, 2.5), (4, 2.0), (6, 1.74)):
        board.hear("peer 1", {"kind": "evaluated", "round": round_, "loss": loss, "stderr": 0.01})
    return board


def _books(**changes: Any) -> Books:
    """The asker has reserved 900 of its 4,000; peer 4 was killed with a voucher that is not in the ledger yet."""
    earned = dict(zip(NAMES, (100, 200, 50, 150), strict=True))
    after = {"asker": Credits(4000, 0, 500, 400, 3100)}
    after |= {name: Credits(4000, amount, 0, 0, 4000 + amount) for name, amount in earned.items()}
    books = Books(
        accounts={name: f"{number:064x}" for number, name in enumerate(after)},
        before={name: Credits(4000, 0, 0, 0, 4000) for name in after},
        after=after,
        promised=earned | {"peer 4": 180},
        requests=[Bound(b"r" * 32, 900, 500, 1_800_000_000)],
        decisions=[
            Told(4, "peer 2", "demo", True, "accepted: 9 GFLOP"),
            Told(4, "peer 1", "demo", False, "not this slice: full"),
            Told(5, "peer 2", "demo", True, "accepted: 8 GFLOP"),
            Told(5, "peer 1", "demo", True, "accepted: 7 GFLOP"),
        ],
        audit=Audit(entries=70, valid=70, faults=(), replayed=4, seconds=0.2),
        export=Path("demo.ledger"),
    )  # fmt: skip
    return dataclasses.replace(books, **changes)


def _unpaid() -> dict[str, Credits]:
    """Everything adds up, but peer 3 has nothing."""
    after = {**_books().after}
    return after | {"peer 3": Credits(4000, 0, 0, 0, 4000), "asker": Credits(4000, 0, 450, 450, 3100)}


def _outcome(**changes: Any) -> Outcome:
    curve = (HeldOut(0, 5.5, 0.01), HeldOut(2, 2.6, 0.01), HeldOut(4, 2.2, 0.01), HeldOut(6, 1.85, 0.01))
    worse = (*curve[:-1], HeldOut(6, 1.9, 0.01))
    outcome = Outcome(
        board=_board(),
        last=HeldOut(6, 1.74, 0.01),
        alone=(Alone("nesterov outer steps", worse), Alone("plain training", curve)),
        hashes=dict.fromkeys(NAMES[:3], (6, "ab" * 32)),
        late_round=2,
        kill=Kill(round=4, place="exchange", went_on_s=1.2, left=()),
        sample="To be,\n\nor \x1b[31mnot",
        books=_books(),
        seconds=77.77,
        parts={"start": 8.0, "rounds": 40.0},
    )
    return dataclasses.replace(outcome, **changes)


def test_the_board_counts_who_did_what() -> None:
    rows = _board().peers
    assert [row.taken for row in rows.values()] == [[*range(6)], [*range(6)], [2, 3, 4, 5], [0, 1, 2, 3]]
    assert rows["peer 1"].samples == 6 * 200
    assert rows["peer 4"].received_bytes == (2 + 2 + 3 + 3) * 4000
    assert rows["peer 3"].state_source == "peer 2"
    assert (rows["peer 4"].place, rows["peer 4"].phase) == ("exchange", "killed")


def test_what_a_killed_peer_said_last_is_not_overwritten_by_what_arrives_after() -> None:
    board = _board()
    board.hear("peer 4", {"kind": "outer step", "round": 4})
    assert board.peers["peer 4"].place == "exchange"


def test_the_document() -> None:
    found = document(_outcome())
    credits, decisions = found.pop("credits"), found.pop("decisions")
    assert found == {
        "peers": 4,
        "rounds": 6,
        "loss_first": 5.5,
        "loss_last": 1.74,
        "loss_alone": 1.85,  # of the better way
        "replicas_identical": True,
        "late_joiner_round": 2,
        "killed_peer_round": 4,
        "audit": {"valid": 70, "faults": [], "entries": 70},
        "seconds": 77.8,
    }
    assert credits["0" * 64] == {"allowance": 4000, "earned": 0, "spent": 500, "available": 3100}
    assert sum(each["earned"] for each in credits.values()) == 500
    assert decisions[1] == {
        "slice": 4, "node": "peer 1", "run": "demo", "accepted": False, "words": "not this slice: full",
    }  # fmt: skip


def test_a_story_that_came_true_passes() -> None:
    check(_outcome(), gain=True)
    assert margin(_outcome()) == pytest.approx((0.11, 0.01414), abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hashes": {"peer 1": (6, "ab" * 32), "peer 2": (6, "cd" * 32)}}, "models differ"),
        ({"hashes": {"peer 1": (6, "ab" * 32), "peer 2": (5, "ab" * 32)}}, "models differ"),
        ({"kill": Kill(4, "exchange", 1.2, ("p2pd (pid 7)",))}, "left something behind: p2pd"),
        ({"last": HeldOut(5, 1.74, 0.01)}, "rounds were made"),
        ({"last": HeldOut(6, 1.82, 0.01)}, "not clearly below"),
        ({"last": HeldOut(6, 1.95, 0.01)}, "not clearly below"),
        ({"books": _books(audit=Audit(70, 70, [{"code": "fork", "account": "ab"}], 4, 0.2))}, "found 1 faults: .*fork"),
        ({"books": _books(audit=Audit(70, 69, (), 4, 0.2))}, "69 of 70 entries are valid"),
        ({"books": _books(audit=Audit(70, 70, (), 0, 0.2))}, "0 decisions could be made again"),
        ({"books": _books(after={**_books().after, "asker": Credits(4000, 0, 499, 401, 3100)})}, "do not add up"),
        ({"books": _books(after={**_books().after, "asker": Credits(4000, 0, 500, 399, 3100)})}, "do not add up"),
        ({"books": _books(after=_unpaid())}, "peer 3 worked and was not paid"),
        (
            {"villain": Caught("forker", False, "nobody saw it", 0, 0.0, 0.0)},
            "got away with it: The forker was NOT CAUGHT",
        ),
        ({"villain": Caught("copycat", True, "peer 1 caught it", 1, 0.0, 0.01)}, "It was paid 0.000001 credits"),
        ({"villain": Caught("copycat", True, "peer 1 caught it", 0, 0.09, 0.01)}, "9.0 ± 1.0 % of the loss"),
    ],
)
def test_a_story_that_did_not_come_true_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DemoFailed, match=words) as caught:
        check(_outcome(**changes), gain=True)
    assert caught.value.exit_code == 1


def test_decisions_are_told_by_peer_and_row_of_slices() -> None:
    assert decision_lines(_books().decisions) == [
        "peer 1, slice 4, demo: not accepted; not this slice: full",
        "peer 1, slice 5, demo: accepted: 7 GFLOP",
        "peer 2, slices 4 to 5, demo: accepted: 9 GFLOP",
    ]


def test_the_community_is_not_asked_while_its_slices_are_decided_on() -> None:
    community = Community(1_800_000_000.0, 8)
    begins = float(community.charter.epoch)
    asked_at = [into for into in range(8) if not community.decides(begins + into)]
    assert asked_at == [3, 4, 5]  # 2 s for the decisions, and 2 s for the request to get around


def _evidence(**changes: Any) -> Evidence:
    return dataclasses.replace(Evidence((), frozenset(), (), "", 4), **changes)


def test_a_villain_is_caught_by_what_the_honest_say_of_it() -> None:
    checked = Accusation("peer 2", "checked", 3, "steps: it leads elsewhere")
    for kind in ("freeloader", "copycat", "weight-inflator"):
        caught, how = judge(kind, _evidence(accusations=[checked], barred="not paid any more"))
        assert caught
        assert how == "peer 2 caught it, first in round 3: steps: it leads elsewhere. The paymaster: not paid any more"
    assert judge("nan-sender", _evidence(accusations=[checked])) == (False, "nobody saw it")
    assert judge("nan-sender", _evidence(accusations=[Accusation("peer 1", "rejected", 3, "not finite")]))[0]
    assert judge("state-liar", _evidence(accusations=[Accusation("peer 3", "bad state", 3, "another hash")]))[0]
    assert not judge("forker", _evidence(frozen={"asker", "peer 1"}))[0]  # not everywhere
    assert judge("forker", _evidence(frozen={"asker", "peer 1", "peer 2", "peer 3"}))[0]
    assert not judge("overspender", _evidence())[0]
    assert judge("overspender", _evidence(refusals=["it has less"])) == (
        True, "1 honest nodes refused its request: it has less"
    )  # fmt: skip


def test_silence_and_honest_findings_accuse_nobody() -> None:
    board = _board()
    for finding in ("honest", "unopened", "steps"):
        board.hear(
            "peer 1",
            {"kind": "checked", "round": 3, "peer": "key of peer 2", "finding": finding, "words": finding, "time": 1.0},
        )
    assert board.accused == {"peer 2": [Accusation("peer 1", "checked", 3, "steps: steps")]}


def test_harm_is_what_the_run_without_it_did_not_have() -> None:
    assert harm(HeldOut(6, 2.2, 0.03), HeldOut(6, 2.0, 0.04)) == pytest.approx((0.1, 0.025))
    assert harm(HeldOut(6, 2.2, 0.03), None) == (0.0, 0.0)  # no offer of it was in a round
    keys = {"peer 1": b"b", "peer 2": b"a"}
    members = {0: ("peer 1", "villain"), 1: ("peer 1", "peer 2", "villain"), 2: ("villain",)}
    assert groups_of(members, keys) == [(b"b",), (b"a", b"b"), (b"a", b"b")]


def test_the_document_of_a_villain() -> None:
    found = document(_outcome(villain=Caught("forker", True, "all have the proof", 0, 0.012345, 0.01)))
    assert found["villain"] == {
        "kind": "forker", "caught": True, "how": "all have the proof", "paid": 0, "harm": 0.0123,
    }  # fmt: skip


def test_the_command_the_demo_and_the_villains_know_the_same_kinds() -> None:
    assert {*Villain} == VILLAINS.keys() == PARTS.keys()


def test_members_that_committed_different_states_are_refused() -> None:
    outcome = _outcome()
    outcome.board.hear("peer 2", _committed(3, NAMES, "f" * 64))
    with pytest.raises(DemoFailed, match="different states of round 3"):
        check(outcome, gain=True)
    rogue = dataclasses.replace(outcome, villain=Caught("copycat", True, "peer 1 caught it", 0, 0.0, 0.01))
    check(rogue, gain=True)  # not all shun it at once
    out = io.StringIO()
    show(rogue, Console(file=out, width=120), None)
    assert "Rounds made twice" in out.getvalue()


def test_a_short_demo_may_show_no_gain() -> None:
    check(_outcome(last=HeldOut(6, 1.95, 0.01)), gain=False)


def test_the_report_for_people_has_everything_and_no_foreign_escapes() -> None:
    out = io.StringIO()
    show(_outcome(), Console(file=out, width=120), Path("x.png"))
    text = out.getvalue()
    for words in (
        "x.png", "peer 3 joins", "peer 4 is killed", "took the model from peer 2", "killed in round 4", "To be,",
        "1.740 ± 0.010 by the swarm", "1.850 ± 0.010 by one peer alone", "0.110 ± 0.014", "abababababababab",
        "asker has paid 0.0005 credits", "0.0004 credits are still reserved",
        "peer 4's newest voucher is for 0.00003 credits more",
        "peer 1, slice 4, demo: not accepted; not this slice: full", "70 entries, 70 valid, 4 decisions made again",
    ):  # fmt: skip
        assert words in text, words
    assert "\x1b" not in text


def test_the_plot_on_a_colour_terminal_keeps_its_width() -> None:
    for columns in (60, 200):
        lines = terminal_plot(_outcome(), columns, colour=False).splitlines()
        assert max(map(len, lines)) <= min(columns, 100)
    assert "\x1b[" in terminal_plot(_outcome(), 80, colour=True)


@pytest.mark.slow
def test_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    write_png(_outcome(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [*tmp_path.iterdir()] == [path]


def test_the_ways_alone_share_all_but_the_outer_step() -> None:
    recipe = load_recipe("shakespeare-nano")
    own, plain = ways(recipe).values()
    assert own == recipe
    assert (plain.outer.optimizer, plain.outer.lr) == ("sgd", 1.0)
    assert plain.model_copy(update={"outer": recipe.outer}) == recipe
    assert list(ways(plain)) == ["plain training"]


def test_the_short_recipe_is_a_valid_one() -> None:
    short = shortened(load_recipe("shakespeare-nano"))
    assert Recipe.from_toml(short.to_toml(), where="here") == short


def test_the_workplace_is_gone_afterwards_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    with workplace(None) as directory:
        (directory / "file").write_text("x")
    assert not directory.parent.exists()
    kept = tmp_path / "a" / "b"
    with workplace(kept) as directory:
        (directory / "file").write_text("x")
    assert (kept / "file").exists()
    with pytest.raises(ConfigError, match="is not empty"), workplace(kept):
        pass


@pytest.mark.parametrize("arguments", [["--png", "/nowhere/x.png"], ["--png", "/"]])
def test_a_plot_that_cannot_be_written_is_refused_before_the_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 3
    assert "cannot write the plot" in capsys.readouterr().err


def test_both_views_draw_any_board() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    empty = Board(rounds=6, local_steps=25, parameters=1000)
    full = _board()
    full.alone_steps["plain training"] = 80
    for board in (empty, full):
        for view in (PlainView(Console(file=out), board, 0.0), LiveView(console, board, 0.0)):
            view.say("something [bold]happened[/] \x1b[2J")
            view.now("at this moment")
            if board.round:
                view.round_done(3)
            view.refresh()
            view.close()
    text = out.getvalue()
    assert "committed by peer 1, peer 2, peer 3, peer 4" in text
    assert "[bold]happened[/] \\x1b[2J" in text  # a peer's words move no cursor
    assert "now: at this moment" in text
    assert "alone (plain training): 80 steps" in text
