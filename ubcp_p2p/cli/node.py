"""`ubcp up`, `status`, `stop`, `peers` and `bootstrap`: the node's life."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, require_extra, say
from ubcp_p2p.cli.owner import describe_owner
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.peer.profile import Profile

STOP_S = 30.0  # a stop keeps checkpoints; the largest of ours takes under 10 s
START_S = 60.0  # a start takes 1 s; on a machine that is busy beyond words, `--detach` returns before
POLL_S = 0.05
PEER_FILE_BYTES_MAX = 1 << 20

JoinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", metavar="MULTIADDR", help="Join through this peer (repeatable); a friend's `ubcp peers` prints some."
    ),
]
PeersFileOption = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="Join through the peers in FILE, a multiaddr a line.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors on the terminal; the log file has everything.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with the runs that the node was in when it ended.")
]
DetachOption = Annotated[bool, typer.Option("--detach", help="Go on in the background; `ubcp stop` ends it.")]


def up(
    profile: ProfileOption = None,
    peer: JoinOption = None,
    peers: PeersFileOption = None,
    resume: ResumeOption = True,
    detach: DetachOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the node.

    It starts p2pd, joins the network through the bootstrap nodes of config.toml, the peers named here and those that it
    remembers, goes on with the runs that it was in when it ended, and serves until Ctrl-C, SIGTERM or `ubcp stop`.
    `ubcp status` answers from the first second.
    """
    _run(profile, peer, peers, detach, quiet=quiet, trains=True, resume=resume)


def bootstrap(
    profile: ProfileOption = None,
    peer: JoinOption = None,
    peers: PeersFileOption = None,
    detach: DetachOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a seed node.

    A node like any other that takes part in no run: others join the network through it. `ubcp status` prints the
    address to give to them.
    """
    _run(profile, peer, peers, detach, quiet=quiet, trains=False, resume=False)


def status(profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Say what the running node is doing, what is still loading, and what shuts each run's trainer in."""
    from ubcp_p2p.peer.control import call

    document = call(profile_at(profile), "status", timeout_s=10.0)
    if json:
        emit_json(document)
        return
    facts = f"pid {document['pid']}, {document['role']}, up {document['uptime_s']:.0f} s"
    print(f"node       {document['peer_id']}  ({facts})")
    print(f"stage      {document['stage']}")
    print(f"reachable  {document['reachability']['kind']}: {document['reachability']['words']}")
    print(f"peers      {document['connected']} connected")
    offset_s = document["clock_offset_s"]
    if offset_s is not None and abs(offset_s) > 3.0:
        print(f"clock      differs from a neighbour's by {offset_s:+.1f} s: rounds will fail; set the time (NTP)")
    for address in document["addresses"]:
        print(f"address    {address}")
    if document["api"]["url"] is not None:
        print(f"api        {document['api']['url']}  (for programs on this machine: `ubcp api`)")
    if document["owner"] is not None:
        for line in describe_owner(document["owner"]):
            print(f"owner      {printable(line)}")
    for run in document["runs"]:
        print(f"run        {printable(describe_run(run))}")
        for line in describe_sandbox(run["sandbox"]):
            print(f"sandbox    {printable(run['name'] + ': ' + line)}")
    for line in describe_ledger(document["ledger"], document["ledger_words"]):
        print(f"ledger     {printable(line)}")
    for line in describe_serving(document["serving"], document["serving_words"]):
        print(f"serving    {printable(line)}")
    for row in document["earning"]:
        print(f"earning    {printable(describe_earning(row))}")
    for line in document["troubles"]:
        print(f"TROUBLE    {printable(line)}")


def describe_run(run: dict[str, Any]) -> str:
    """One line on one run of this node."""
    if run["error"]:
        hint = f" ({run['error']['hint']})" if run["error"]["hint"] else ""
        return f"{run['name']}: failed: {run['error']['message']}{hint}"
    if run["stage"] == "paused":
        where = f" after round {run['round']} of {run['rounds']}" if run["round"] is not None else ""
        return f"{run['name']} ({run['recipe']}): paused{where}: {run['resting']}"
    if run["round"] is None and run["stage"] == "left":
        return f"{run['name']}: left before it began"
    if run["round"] is None:
        return f"{run['name']}: starting the trainer{', to go on where it was' if run['resumed'] else ''}"
    loss = f", loss {run['loss']:.3f}" if run["loss"] is not None else ""
    resumed = ", resumed at the node's start" if run["resumed"] else ""
    trouble = f"; NO CHECKPOINT: {run['checkpoint_trouble']}" if run["checkpoint_trouble"] else ""
    refused = f"; NOT LET IN: {run['refused']}" if run["refused"] else ""
    going = f"; about to pause: {run['resting']}" if run["resting"] else ""
    return (
        f"{run['name']} ({run['recipe']}): round {run['round']} of {run['rounds']}, {run['phase']}, "
        f"{run['peers']} peers{loss}, {run['retries']} retries{resumed}{refused}{trouble}{going}"
    )


def describe_sandbox(layers: list[dict[str, Any]] | None) -> list[str]:
    """What keeps a run's trainer from the rest of this machine, and what does not; nothing while it has no trainer."""
    if not layers:
        return []
    holding = [f"{layer['name']} ({layer['words']})" for layer in layers if layer["active"]]
    missing: dict[str, list[str]] = {}  # why → which: "switched off" is said once
    for layer in layers:
        if not layer["active"]:
            why = f"{layer['words']}; {layer['remedy']}" if layer["remedy"] else layer["words"]
            missing.setdefault(why, []).append(layer["name"])
    return [
        *([f"holds: {'; '.join(holding)}"] if holding else []),
        *(f"NOT THERE: {', '.join(names)}: {why}" for why, names in missing.items()),
    ]


def describe_ledger(ledger: dict[str, Any] | None, words: str) -> list[str]:
    """A few lines on the node's ledger."""
    if ledger is None:
        return [words]
    last = ledger["last_sync"]
    waiting = f", {ledger['pending']} waiting for others" if ledger["pending"] else ""
    version = f"charter version {ledger['charters']}, " if ledger["charters"] > 1 else ""
    early = f", {ledger['held_back']} held back until their time" if ledger["held_back"] else ""
    lines = [
        f"{ledger['community']}: {version}{ledger['entries']} entries of {ledger['accounts']} accounts{waiting}{early}",
        f"balances root {ledger['balances_root'][:16]}…, "
        + (f"last compared with {last['with']} {last['ago_s']:.0f} s ago" if last else "not yet compared with a peer"),
        f"own chain {ledger['writing']['words']}"
        + (f"; {ledger['writing']['drafts']} drafts" if ledger["writing"]["drafts"] else ""),
    ]
    lines += [f"frozen {author}: it has signed two entries with one number" for author in ledger["frozen"]]
    lines += [f"ignoring {ban['peer']} for {ban['left_s']} s more: {ban['why']}" for ban in ledger["banned"]]
    lines += [f"peer {differing['peer']} {differing['words']}" for differing in ledger["versions"]]
    return [*lines, *([f"TROUBLE: {ledger['trouble']}"] if ledger["trouble"] else [])]


def describe_serving(serving: dict[str, Any] | None, words: str) -> list[str]:
    """The present slice: what this node has given away, and what waits and why."""
    if serving is None:
        return [words]
    if serving["slice"] is None:
        return [serving["words"], *serving["notes"]]
    given = f"{serving['used']:,} of {serving['budget']:,} GFLOP given"
    lines = [f"slice {serving['slice']} until {serving['ends']}: {serving['words']}; {given}", *serving["notes"]]
    state = "holds" if serving["settled"] else "given; others decide too"
    lines += [f"{row['run']} {row['request'][:16]}…: {state}: {row['explain']}" for row in serving["leases"]]
    lines += [f"{row['run']} {row['request'][:16]}…: free again: it did not get its peers" for row in serving["freed"]]
    lines += [f"{row['run']} {row['request'][:16]}…: {row['explain']}" for row in serving["waiting"]]
    if serving["carbon"]["emitted_mg"]:
        lines.append(f"carbon of what was given since the start: {serving['carbon']['words']}")
    return lines


def describe_earning(row: dict[str, Any]) -> str:
    """One line on what this node earns with one request."""
    name = f"{row['run']} {row['request'][:16]}…".lstrip()
    if not row["rounds"]:
        return f"{name}: {row['words'] or 'nothing yet'}"
    open_ = [f"{row['unpaid_rounds']} not yet in its voucher"] if row["unpaid_rounds"] else []
    open_ += [f"{row['held_rounds']} wait for a check"] if row["held_rounds"] else []
    words = f": {row['words']}" if row["words"] else ""
    return f"{name}: {row['earned_words']} for {row['rounds']} rounds{''.join(', ' + one for one in open_)}{words}"


def stop(profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Stop the running node in order: leave its runs, keep checkpoints, end p2pd."""
    from ubcp_p2p.peer.control import call
    from ubcp_p2p.peer.profile import read_holder

    place = profile_at(profile)
    for run in call(place, "status", timeout_s=10.0)["runs"]:
        if run["checkpoint_trouble"]:
            say(
                f"the run {printable(run['name'])} has no checkpoint so far ({run['checkpoint_trouble']}); trying again"
            )
    pid = call(place, "stop", timeout_s=10.0)["pid"]
    deadline_s = time.monotonic() + STOP_S
    while True:
        holder = read_holder(place)
        if holder is None or holder.pid != pid:
            break
        if time.monotonic() > deadline_s:
            raise LocalIOError(f"the node (pid {pid}) is still stopping after {STOP_S:.0f} s", hint="look at its log")
        time.sleep(0.02)
    if json:
        emit_json({"stopped": True, "pid": pid})
    else:
        print(f"stopped (pid {pid})")


def peers(profile: ProfileOption = None, json: JsonOption = False) -> None:
    """List the peers that the running node knows.

    Prints full multiaddrs, this node's own first: a file of them is what `ubcp up --peers FILE` takes.
    """
    from ubcp_p2p.peer.control import call

    document = call(profile_at(profile), "peers")
    if json:
        emit_json(document)
        return
    for address in (*document["own"], *document["remembered"]):
        print(address)


def _run(
    profile: Path | None,
    peer: list[str] | None,
    peers: Path | None,
    detach: bool,
    *,
    quiet: bool,
    trains: bool,
    resume: bool,
) -> None:
    require_extra("peer")
    from ubcp_p2p.log import setup_logging
    from ubcp_p2p.peer.node import Node, run_node
    from ubcp_p2p.swarm.addresses import split_multiaddr

    place = profile_at(profile)
    place.require()
    config = place.config()
    join = (*(peer or ()), *_read_peers(peers))
    for address in join:
        split_multiaddr(address)
    if detach:
        _detach(place, join, "up" if trains else "bootstrap", *([] if resume or not trains else ["--no-resume"]))
        return
    setup_logging(config.log.level, file=place.log / "ubcp.log", stderr_level="error" if quiet else None)
    run_node(Node(place, config, join=join, trains=trains, resume=resume))


def _detach(place: Profile, join: tuple[str, ...], *words: str) -> None:
    """Start the same command in the background and wait until the network is up, or it ends."""
    from ubcp_p2p.peer.control import NotRunning, call

    command = [sys.executable, "-m", "ubcp_p2p", *words, "--quiet", "--profile", str(place.root)]
    for address in join:
        command += ["--peer", address]
    output = place.log / "start.txt"
    place.make()
    with output.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, cwd="/"
        )
    deadline_s = time.monotonic() + START_S
    while process.poll() is None:
        time.sleep(POLL_S)
        try:
            document = call(place, "status", timeout_s=2.0)
        except (NotRunning, LocalIOError):
            continue
        late = time.monotonic() > deadline_s
        if document["pid"] == process.pid and (not document["loading"] or late):
            stage = f", still {document['stage']}" if late else ""
            say(f"running in the background (pid {process.pid}{stage}); `ubcp status` says more")
            return
    text = output.read_text(errors="replace").strip().splitlines()
    reason = next((line.removeprefix("ubcp: error: ") for line in text if line.startswith("ubcp: error: ")), "")
    hint = next((line.removeprefix("ubcp: hint: ") for line in text if line.startswith("ubcp: hint: ")), str(output))
    kind = ConfigError if process.returncode == ConfigError.exit_code else LocalIOError
    raise kind(reason or f"the node ended with code {process.returncode}", hint=hint)


def _read_peers(path: Path | None) -> list[str]:
    if path is None:
        return []
    from ubcp_p2p.files import read_limited

    try:
        text = read_limited(path, bytes_max=PEER_FILE_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the peers in {path}: {error}", hint="`ubcp peers > FILE` makes one") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
