"""`ubcp charter`: from the first draft to a second version, with real profiles; and what each command refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import on_a_terminal
from ubcp_p2p.carbon.table import find
from ubcp_p2p.charter.document import load, load_community, to_toml
from ubcp_p2p.charter.values import CharterConflict, Charters, SignedCharter
from ubcp_p2p.cli import main as cli
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.peer.create import create_profile
from ubcp_p2p.peer.profile import Profile

REPOSITORY = Path(__file__).parents[3]
COSTS = ("--currency", "EUR", "--tariff", "0.25", "--carbon", "240")


@dataclass(frozen=True)
class Person:
    root: Path

    @property
    def account(self) -> str:
        return AccountKey.load(self.root / "account.key").public.hex()

    def sign(self, *arguments: str) -> int:
        return cli.main(["charter", "sign", *arguments, "--profile", str(self.root)])


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Person]:
    """Three stewards and somebody else; the current directory is an empty one, the default profile the first's."""
    found = [Person(tmp_path / name) for name in ("ann", "ben", "eve", "zoe")]
    for person in found:
        create_profile(Profile(person.root))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("UBCP_HOME", str(found[0].root))
    monkeypatch.delenv("UBCP_PASSPHRASE", raising=False)
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """The error and the hint."""
    capsys.readouterr()
    assert cli.main([*arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("ubcp: error: ") and hint.startswith("ubcp: hint: ")
    return err


def new(people: list[Person], *more: str) -> list[str]:
    stewards = [word for person in people[:3] for word in ("--steward", person.account)]
    return ["charter", "new", "--name", "River", *stewards, *COSTS, *more]


# -- new --------------------------------------------------------------------------------------------------------------


def test_new_without_a_terminal(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    options = ("--language", "pt-BR", "--language", "en", "--unit", "lab=3", "--unit", "a=b=2", "--unit", "school",
               "--allowance", "1,500.5", "--newcomer-allowance", "700", "--exposure-cap", "9000",
               "--purpose", "research", "--refuse", "x", "--newcomer-permille", "200")  # fmt: skip
    document = run(capsys, *new(people, *options))
    charter = load(Path("charter.toml")).charter
    assert document["id"] == charter.id.hex() and document["file"] == "charter.toml"
    assert document["stewards"] == sorted(person.account for person in people[:3])
    assert (charter.threshold, charter.languages, charter.purposes, charter.refused) == (
        2, ("en", "pt-BR"), ("research",), ("x",)
    )  # fmt: skip
    assert list(charter.units) == [("a=b", 2), ("lab", 3), ("school", 1)]
    assert list(charter.allowance) == [1_500_500_000, 700_000_000]
    assert (charter.exposure_cap, charter.newcomer_permille) == (9_000_000_000, 200)
    assert charter.cost is not None and charter.cost[:3] == ("EUR", 250_000, 240)
    assert document["dangers"] == []


def test_new_takes_ones_own_account_as_the_steward(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    document = run(capsys, "charter", "new", "--name", "Mine", "mine.toml")
    assert (document["stewards"], document["threshold"]) == ([people[0].account], 1)
    assert [danger["key"] for danger in document["dangers"]] == ["threshold", "cost"]
    run(capsys, "charter", "new", "--name", "Open", "open.toml", "--steward", "none")
    assert load_community(Path("open.toml")).first.stewards == ()


def test_new_needs_no_profile(
    capsys: pytest.CaptureFixture[str], people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UBCP_HOME", "/nonexistent")
    assert run(capsys, "charter", "new", "--name", "Open")["stewards"] == []


def test_new_overwrites_nothing(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    Path("charter.toml").write_text("mine")
    assert "is there already" in refused(capsys, *new(people), code=2)
    assert Path("charter.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--name NAME"), (["--name", " "], "--name: a name is needed"), (["--name", "a\nb"], "--name: a name"),
        (["--name", "x" * 65], "name must have 1 to 64 bytes"),
        (["--name", "x", "--tariff", "1"], "--currency is missing"),
        (["--name", "x", "--allowance", "much"], "--allowance: 'much' is not a number of credits"),
        (["--name", "x", "--steward", "12"], "--steward: '12' is no account key"),
        (["--name", "x", "--threshold", "2"], "threshold is 2, but only 1 steward is named"),
        (["--name", "x", "--steward", "none", "--threshold", "1"], "threshold is 1, but no stewards are named"),
        (["--name", "x", "--carbon", "Atlantis", "--tariff", "1", "--currency", "EUR"], "has no country 'Atlantis'"),
        (["--name", "x", "--unit", "a=b"], "--unit: 'b' is no number"),
        (["--name", "x", "--unit", "a=0"], "weights must"),
        (["--name", "x", "--language", "e"], "languages must be tags"),
        (["--name", "x", "--purpose", "a", "--refuse", "a"], "both allowed and refused"),
        (["--name", "x", "--currency", "eur", "--tariff", "1", "--carbon", "1"], "currency must be three capital"),
        (["--name", "x", "--effective", "3"], "--from OLD"),
    ],
)  # fmt: skip
def test_new_refuses(capsys: pytest.CaptureFixture[str], people: list[Person], options: list[str], words: str) -> None:
    assert words in refused(capsys, "charter", "new", *options, code=2)
    assert not Path("charter.toml").exists()


@pytest.mark.slow
def test_new_asks_on_a_terminal(people: list[Person]) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "UBCP_HOME": str(people[0].root),
        "COLUMNS": "100",
    }
    stewards = f"{people[0].account}, {people[1].account}"
    answers = ["", "River", "e", "en, de", "12", stewards, "3", "2", "2,000", "x" * 65, "", "research", "",
               "sfr", "CHF", "", "0.27", "", "none at all", "30"]  # fmt: skip
    code, shown = on_a_terminal(answers, ["charter", "new"], env)
    assert code == 0, shown
    charter = load(Path("charter.toml")).charter
    assert (charter.name, charter.languages, charter.threshold) == ("River", ("de", "en"), 2)
    assert sorted(key.hex() for key in charter.stewards) == sorted(stewards.split(", "))
    assert charter.allowance.member == 2_000_000_000
    assert charter.purposes == ("education", "public-interest", "research")
    assert charter.cost is not None and charter.cost[:3] == ("CHF", 270_000, 30)
    assert people[0].account in shown  # the default
    for words in (
        "is no account key", "but only 2 stewards are named", "languages must be tags", "names must have 1 to 64 bytes",
        "both allowed and refused", "currency must be three capital letters", "'none at all' is no number",
    ):  # fmt: skip
        assert words in shown
    assert shown.count("this has no default") == 3  # the name, a kWh's price, a kWh's carbon: none of them is guessed
    assert "What a kWh costs, in CHF: " in shown


@pytest.mark.slow
def test_new_takes_the_carbon_of_a_country(people: list[Person]) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "UBCP_HOME": "/nonexistent", "COLUMNS": "100"}
    code, shown = on_a_terminal([*[""] * 7, "0.3", "ZZ", "SE"], ["charter", "new", "--name", "River"], env)
    assert code == 0, shown
    assert "has no country 'ZZ'" in shown
    cost = load(Path("charter.toml")).charter.cost
    assert cost is not None and cost[:3] == ("EUR", 300_000, find("SE").g_per_kwh)


@pytest.mark.slow
def test_new_on_a_terminal_without_costs(people: list[Person]) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "UBCP_HOME": "/nonexistent", "COLUMNS": "100"}
    code, shown = on_a_terminal([*[""] * 6, "none"], ["charter", "new", "--name", "River"], env)
    assert code == 0, shown
    assert load(Path("charter.toml")).charter.cost is None


# -- sign -------------------------------------------------------------------------------------------------------------


def test_enough_stewards_sign(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    assert cli.main(new(people)) == 0
    file = Path("charter.toml")
    file.write_text("# ours\n" + file.read_text())
    assert people[0].sign("charter.toml") == 0
    said = capsys.readouterr().out
    assert load(file).charter.id.hex() in said and "1 more must sign" in said
    once = file.read_text()
    again = run(capsys, "charter", "sign", "charter.toml")
    assert (again["added"], again["signatures"], file.read_text()) == (False, 1, once)
    assert people[2].sign("charter.toml") == 0
    assert "enough have signed (2 of at least 2)" in capsys.readouterr().out
    assert load_community(file).first.name == "River"
    assert file.read_text().startswith("# ours\n") and file.read_text().startswith(once.rstrip())
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_document_that_cannot_be_continued_is_written_anew(people: list[Person]) -> None:
    assert cli.main(new(people)) == 0
    file = Path("charter.toml")
    signed = load(file).signed([(k.public, k.sign("charter", load(file).charter.id)) for k in [_key(people[0])]])
    ((key, signature),) = signed.signatures
    text = to_toml(SignedCharter(signed.charter))
    file.write_text(f'signature = [{{steward = "{key.hex()}", signature = "{signature.hex()}"}}]\n{text}')
    assert people[1].sign("charter.toml") == 0
    assert len(load_community(file).versions[0].signatures) == 2


def _key(person: Person) -> AccountKey:
    return AccountKey.load(person.root / "account.key")


def test_others_do_not_sign(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    assert cli.main(new(people)) == 0
    before = Path("charter.toml").read_text()
    said = refused(capsys, "charter", "sign", "charter.toml", "--profile", str(people[3].root), code=2)
    assert f"{people[3].account} is no steward of 'River'" in said and people[0].account[:16] in said
    assert "no profile in" in refused(capsys, "charter", "sign", "charter.toml", "--profile", "none", code=2)
    assert Path("charter.toml").read_text() == before


def test_what_was_changed_after_a_signature_is_not_signed(
    capsys: pytest.CaptureFixture[str], people: list[Person]
) -> None:
    assert cli.main(new(people)) == 0
    assert people[0].sign("charter.toml") == 0
    file = Path("charter.toml")
    file.write_text(file.read_text().replace("grace_slices = 96", "grace_slices = 95"))
    said = refused(capsys, "charter", "sign", "charter.toml", "--profile", str(people[1].root), code=1)
    assert people[0].account in said and "nothing was signed" in said
    assert "take that signature out, and ask" in refused(capsys, "charter", "check", "charter.toml", code=1)


def test_a_key_that_is_elsewhere(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    assert cli.main(new(people)) == 0
    (people[0].root / "account.key").rename("account.key")
    assert "sign on the machine where" in refused(capsys, "charter", "sign", "charter.toml", code=2)


@pytest.mark.slow
def test_a_key_with_a_passphrase(
    capsys: pytest.CaptureFixture[str], people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(new(people)) == 0
    path = people[0].root / "account.key"
    key = AccountKey.load(path)
    path.unlink()
    key.save(path, "secret")
    assert "UBCP_PASSPHRASE" in refused(capsys, "charter", "sign", "charter.toml", code=2)
    monkeypatch.setenv("UBCP_PASSPHRASE", "secret")
    assert run(capsys, "charter", "sign", "charter.toml")["added"] is True


# -- the next version -------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(people: list[Person], capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(new(people)) == 0
    for person in people[:2]:
        assert person.sign("charter.toml") == 0
    capsys.readouterr()
    return Path("charter.toml")


def test_a_next_version(capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path) -> None:
    made = run(capsys, "charter", "new", "next.toml", "--from", "charter.toml", "--effective", "30000")
    assert (made["number"], made["effective_period"]) == (2, 30_000)
    file = Path("next.toml")
    file.write_text(file.read_text().replace("grace_slices = 96", "grace_slices = 0"))
    for command in ("sign", "check"):
        assert "--previous OLD" in refused(capsys, "charter", command, "next.toml", code=2)
    few = run(capsys, "charter", "check", "next.toml", "--previous", "charter.toml", code=1)
    assert (few["valid"], few["problem"]) == (False, "next.toml: 0 stewards signed the charter; 2 must")
    for person in people[1:3]:
        assert person.sign("next.toml", "--previous", "charter.toml") == 0
    good = run(capsys, "charter", "check", "next.toml", "--previous", "charter.toml")
    assert (good["valid"], good["signatures"], good["network"]) == (True, 2, None)
    assert [danger["key"] for danger in good["dangers"]] == ["grace_slices", "effective_period"]
    assert ["sharing", "receipts are taken until 0 seconds after a request's end"] in good["changes"]
    charters = Charters(load(signed))
    assert charters.add(load(file))
    assert charters.at(30_000).grace_slices == 0


def test_a_next_version_begins_in_two_periods(capsys: pytest.CaptureFixture[str], signed: Path) -> None:
    assert run(capsys, "charter", "new", "next.toml", "--from", "charter.toml")["effective_period"] == 2
    assert "not after 0" in refused(
        capsys, "charter", "new", "x.toml", "--from", "charter.toml", "--effective", "0", code=2
    )
    assert "change it in the new file" in refused(
        capsys, "charter", "new", "x.toml", "--from", "charter.toml", "--name", "Sea", code=2
    )
    run(capsys, "charter", "new", "late.toml", "--from", "charter.toml", "--effective", "1")
    past = load(signed)
    Path("old.toml").write_text(to_toml(past).replace(f"epoch = {2026}", "epoch = 2020"))
    document = run(capsys, "charter", "new", "past.toml", "--from", "old.toml", "--effective", "1")
    assert [danger["key"] for danger in document["dangers"]] == ["effective_period"]


def test_a_version_of_something_else(capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path) -> None:
    run(capsys, "charter", "new", "next.toml", "--from", "charter.toml")
    run(capsys, *new(people, "other.toml", "--language", "de"))
    arguments = ("next.toml", "--previous", "other.toml")
    assert "other.toml: 0 stewards signed" in run(capsys, "charter", "check", *arguments, code=1)["problem"]
    for person in people[:2]:
        assert person.sign("other.toml") == 0
    assert "version 2 does not follow from version 1" in refused(capsys, "charter", "sign", *arguments, code=1)
    problem = run(capsys, "charter", "check", *arguments, code=1)["problem"]
    assert "version 2 does not follow from version 1" in problem


def test_the_first_version_of_another_community_is_no_conflict_of_two_versions(
    capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path
) -> None:
    run(capsys, *new(people, "other.toml", "--language", "de"))
    other = load(Path("other.toml"))
    with pytest.raises(CharterConflict) as caught:
        Charters(load(signed)).add(other)
    assert "'River' is another community's charter" in caught.value.message
    assert other.charter.id.hex()[:16] in caught.value.message


def test_a_forged_chain_is_not_valid(capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path) -> None:
    zoe = people[3]
    first = ("--previous", "charter.toml")
    run(capsys, "charter", "new", "forged.toml", "--from", "charter.toml")
    forged = Path("forged.toml")
    text = re.sub(r"(?s)stewards = \[.*?\]", f'stewards = ["{zoe.account}"]', forged.read_text())
    forged.write_text(text.replace("threshold = 2", "threshold = 1"))
    run(capsys, "charter", "new", "third.toml", "--from", "forged.toml")
    both = (*first, "--previous", "forged.toml")
    for before in (("--previous", "forged.toml"), first, ()):
        for command in ("sign", "check"):
            words = refused(capsys, "charter", command, "third.toml", *before, code=2)
            assert "--previous OLD names each version from 1 to 2" in words
    assert zoe.sign("third.toml", *both) == 1  # though the forged version names Zoe
    key = _key(zoe)
    third = load(Path("third.toml"))
    Path("third.toml").write_text(to_toml(third.signed([(key.public, key.sign("charter", third.charter.id))])))
    found = run(capsys, "charter", "check", "third.toml", *both, code=1)
    assert (found["valid"], found["problem"]) == (
        False, "third.toml: a version before it, forged.toml: 0 stewards signed the charter; 2 must"
    )  # fmt: skip
    assert "it follows no other" in refused(capsys, "charter", "check", "charter.toml", *first, code=2)


def test_a_third_version_is_verified_from_the_first(
    capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path
) -> None:
    run(capsys, "charter", "new", "2.toml", "--from", "charter.toml")
    for person in people[:2]:
        assert person.sign("2.toml", "--previous", "charter.toml") == 0
    run(capsys, "charter", "new", "3.toml", "--from", "2.toml")
    before = ("--previous", "2.toml", "--previous", "charter.toml")  # in any order
    for person in people[:2]:
        assert person.sign("3.toml", *before) == 0
    assert run(capsys, "charter", "check", "3.toml", *before)["valid"] is True


# -- check and show ---------------------------------------------------------------------------------------------------


def test_check_in_words(capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path) -> None:
    assert cli.main(["charter", "check", "charter.toml"]) == 0
    assert capsys.readouterr().out == "charter.toml: valid: River, version 1, 2 signatures; no dangers\n"
    signed.write_text(signed.read_text().replace("grace_slices = 96", "grace_slices = 0"))
    assert cli.main(["charter", "check", "charter.toml"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("danger: grace_slices: a receipt that comes a slice late is void")
    assert "does not hold" in err


def test_check_of_what_is_no_charter(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    assert "there is no charter" in refused(capsys, "charter", "check", "none.toml", code=2)
    Path("bad.toml").write_text("name = 3")
    assert "this key is required" in refused(capsys, "charter", "check", "bad.toml", code=1)
    document = run(capsys, "charter", "check", "bad.toml", code=1)
    assert document["valid"] is False and "this key is required" in document["problem"]


def test_show(capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path) -> None:
    assert cli.main(["charter", "show", "charter.toml"]) == 0
    out = capsys.readouterr().out
    id_ = load(signed).charter.id.hex()
    for words in ("2 of 3 must sign", "a member gets 10,000 credits", "gpu-consumer: 0.00118 EUR", "signed by   ", id_):
        assert words in out
    document = run(capsys, "charter", "show", "charter.toml")
    assert (document["id"], document["network"]) == (id_, id_)
    assert sorted(document["signed_by"]) == sorted(person.account for person in people[:2])
    consumer = next(row for row in document["per_credit"] if row["device"] == "gpu-consumer")
    assert consumer["kwh"] == 1 / 320 and consumer["total"] == consumer["energy"] + consumer["hardware"]
    assert document["charter"]["name"] == "River"


def test_show_says_when_nobody_has_signed(capsys: pytest.CaptureFixture[str], people: list[Person]) -> None:
    assert cli.main(new(people)) == 0
    assert cli.main(["charter", "show", "charter.toml"]) == 0
    assert "not signed yet" in capsys.readouterr().out


def test_publish_needs_a_node(capsys: pytest.CaptureFixture[str], people: list[Person], signed: Path) -> None:
    assert "no node is running" in refused(capsys, "charter", "publish", "charter.toml", code=2)


def test_help_names_all_five(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["charter", "--help"]) == 0
    listed = capsys.readouterr().out
    for name in ("new", "sign", "show", "check", "publish"):
        assert f"\n  {name} " in listed
        assert cli.main(["charter", name, "--help"]) == 0
        assert f"Usage: ubcp charter {name}" in capsys.readouterr().out


# -- the guide --------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_guide(
    capsys: pytest.CaptureFixture[str], people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/charter.md, command for command; where one steward signs, the second does too."""
    for name, person in zip(("ANN", "BEN", "EVE"), people, strict=False):
        monkeypatch.setenv(name, person.account)
    blocks = re.findall(r"^```sh\n(.*?)^```", (REPOSITORY / "docs/charter.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(os.path.expandvars(line), comments=True)[1:] for line in lines if line.startswith("ubcp ")]
    done = {command[1] for command in commands if command[0] == "charter"}
    assert done == {"new", "sign", "show", "check", "publish"}
    for command in commands:
        if command[:2] == ["charter", "publish"]:
            continue  # of a running node: tests/integration/ledger
        assert cli.main(command) == 0, command
        if command[:2] == ["charter", "sign"]:
            assert people[1].sign(*command[2:]) == 0
