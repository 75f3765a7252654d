"""`ubcp submit`: what is signed is what was shown, with the account's own key; and the options that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ubcp_p2p.cli import main as cli
from ubcp_p2p.cli.submit import _print_quote, _signed
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger.entry import ZERO, Close, Request
from ubcp_p2p.ledger.parse import make
from ubcp_p2p.ledger.wire import decode_signed, verify

KEY = AccountKey(bytes(range(32)))
BODY = Request("plays", b"r" * 32, "research", 1, 8, 50, 400, 90, 90, 1000, b"p" * 32, (), ())
QUOTE: dict[str, Any] = {
    "run": "plays", "recipe": "digits-tiny", "rounds": 50, "purpose": "research", "budget": 400,
    "account": KEY.public.hex(), "signer": KEY.public.hex(), "deadline_slice": 90, "deadline": "2026-12-24 18:00 UTC",
    "price": {"min": 50, "max": 400}, "peers_min": 1, "peers_max": 8, "units_per_peer_and_round": 1,
    "available": 10**9, "others": {"credits": 30, "accounts": 1}, "currency": "EUR",
    "devices": [{"device": "cpu-8", "seconds": 0.8, "money": 0.000012, "kwh": 0.0001, "gco2": 0.05}],
    "feasibility": {"peers": 2, "slices": 3, "per_slice": 100, "recent": True}, "queue": 4, "expected_wait_s": 1800,
    "words": "not this \x1b[2Jslice",
}  # fmt: skip


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "account.key"
    path.write_bytes(KEY.to_bytes(None))
    path.chmod(0o600)
    return path


def draft(body: Request | Close = BODY) -> bytes:
    return make(b"n" * 32, KEY.public, 3, b"h" * 32, 80, body)[1]


def test_the_draft_is_signed(key_file: Path) -> None:
    signed = decode_signed(bytes.fromhex(_signed(key_file, draft(), BODY.recipe, QUOTE)))
    verify(signed)
    assert signed.entry.body == BODY
    assert signed.entry.author == KEY.public and signed.signers == {KEY.public}


@pytest.mark.parametrize(
    "body",
    [
        BODY._replace(credits=401), BODY._replace(run="other"), BODY._replace(recipe=ZERO),
        BODY._replace(purpose="education"), BODY._replace(deadline=91, expiry=91), Close(ZERO, (), 400),
    ],
)  # fmt: skip
def test_nothing_else_than_was_shown_is_signed(key_file: Path, body: Request | Close) -> None:
    with pytest.raises(UbcpError, match="something else"):
        _signed(key_file, draft(body), BODY.recipe, QUOTE)


def test_the_key_must_be_there_and_in_force(key_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no account key"):
        _signed(tmp_path / "none", draft(), BODY.recipe, QUOTE)
    with pytest.raises(ConfigError, match="not the account's any more"):
        _signed(key_file, draft(), BODY.recipe, QUOTE | {"signer": "ab" * 32})


def test_a_quote_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    _print_quote(QUOTE)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    for words in (
        "0.00005 to 0.0004 credits", "of 1,000 available", "2 have decided in the last slices", "within 30 min",
        "number 4", "made on cpu-8",
    ):  # fmt: skip
        assert words in shown, words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", "many"), "number of credits"), (("--urgency", "0.9"), "from 1 to 2"),
        (("--urgency", "2.001"), "from 1 to 2"), (("--urgency", "x"), "from 1 to 2"),
        (("--peers-min", "0"), "peers-min"),
    ],
)  # fmt: skip
def test_options_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert cli.main(["submit", "digits-tiny", "--run", "x", "--profile", str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err
