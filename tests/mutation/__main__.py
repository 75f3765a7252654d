"""Does a test notice every small change of the rules? `make mutants` (docs/mutation.md).

Each mutant of the rules, the forks and the purse is loaded in a child process in place of the module; the vectors are
run, and then the unit tests. A mutant that nothing notices has survived; docs/mutation.md must explain it, or that is
an error.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutation.operators import Mutant, mutants

ROOT = Path(__file__).parents[2]
PACKAGE = "ubcp_p2p.ledger"
TARGETS = ("rules", "rules_common", "rules_accounts", "rules_nodes", "redeeming", "replay", "forks", "purse")
SUBJECTS = ("rules", "chains", "forks", "balances")
UNIT_TESTS = [
    str(ROOT / "tests" / "unit" / "ledger" / f"test_{name}.py")
    for name in ("purse", "rules", "redeeming", "balances", "chain", "forks")
]
SECONDS_MAX = 120  # a mutant that loops is one that was noticed
EXPLAINED = ROOT / "docs" / "mutation.md"
SURVIVED, KILLED = 0, 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=TARGETS, help="of ubcp_p2p.ledger; default: rules, forks, purse")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    _prepare()
    assert _tests_pass(), "the tests fail without any mutant"
    started = time.monotonic()
    survivors: list[tuple[str, Mutant]] = []
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        for name in options.modules:
            found = list(mutants((ROOT / "ubcp_p2p" / "ledger" / f"{name}.py").read_text()))
            verdicts = pool.map(functools.partial(_is_killed, name), found)
            for mutant, killed in zip(found, verdicts, strict=True):
                counts[name] += 1
                if not killed:
                    survivors.append((name, mutant))
                    print(f"survived: {name}.py:{mutant.line} {mutant.place}: {mutant.text}", flush=True)
    explained = explanations(EXPLAINED.read_text()) if EXPLAINED.exists() else Counter()
    left = Counter((name, mutant.place, mutant.text) for name, mutant in survivors) - explained
    total = sum(counts.values())
    print(f"{total - len(survivors)} of {total} mutants killed, {len(survivors) - left.total()} explained, "
          f"{left.total()} not; {time.monotonic() - started:.0f} s")  # fmt: skip
    for key in sorted(left.elements()):
        print(f"not explained: {key[0]}.py {key[1]}: {key[2]}")
    return 1 if left else 0


def explanations(text: str) -> Counter[tuple[str, str, str]]:
    """The rows | `module.py` | `function` | `change` | why | of the table of survivors."""
    rows = re.findall(r"^\| `(\w+)\.py` \| `([^`]*)` \| `(.*)` \| .+ \|$", text, re.MULTILINE)
    return Counter((module, place, change.replace("\\|", "|")) for module, place, change in rows)


def _prepare() -> None:
    """What all children share: the vectors, and the outcome of every signature, which no mutant changes."""
    from ubcp_p2p import keys
    from ubcp_p2p.charter import values
    from ubcp_p2p.ledger import wire

    verify, known = keys.verify, dict[tuple[bytes, str, bytes, bytes], bool]()

    def remembered(public: bytes, role: str, digest: bytes, signature: bytes) -> bool:
        key = (public, role, digest, signature)
        if key not in known:
            known[key] = verify(*key)
        return known[key]

    keys.verify = vars(values)["verify"] = remembered
    wire.decode_signed = functools.cache(wire.decode_signed)
    for subject in SUBJECTS:
        document = DOCUMENTS[subject] = json.loads((ROOT / "ledger" / "vectors" / f"{subject}.json").read_text())
        for data in (*document["entries"].values(), *(v["entry"] for v in document["vectors"] if "entry" in v)):
            for check in wire.signatures_of(wire.decode_signed(bytes.fromhex(data))):
                remembered(*check)


DOCUMENTS: dict[str, dict[str, object]] = {}


def _is_killed(module: str, mutant: Mutant) -> bool:
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS_MAX)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            _load(module, mutant.source())
            os._exit(SURVIVED if _tests_pass() else KILLED)
        except BaseException:
            os._exit(KILLED)
    return os.waitpid(pid, 0)[1] != 0


def _load(name: str, source: str) -> None:
    """Put the mutant where every later import finds it."""
    full = f"{PACKAGE}.{name}"
    keep = {PACKAGE, f"{PACKAGE}.entry", f"{PACKAGE}.wire", f"{PACKAGE}.faults"}
    for loaded in [key for key in sys.modules if key.startswith((PACKAGE, "tests."))]:
        if loaded not in keep and not loaded.startswith("tests.mutation"):
            del sys.modules[loaded]
            if loaded.startswith(f"{PACKAGE}."):  # `from package import module` takes what the package has by that name
                delattr(sys.modules[PACKAGE], loaded.removeprefix(f"{PACKAGE}."))
    spec = importlib.util.find_spec(full)
    assert spec is not None
    module = ModuleType(full)
    module.__spec__, module.__file__ = spec, spec.origin
    sys.modules[full] = module
    exec(compile(source, str(spec.origin), "exec"), module.__dict__)  # noqa: S102 our own source, changed in one place
    setattr(sys.modules[PACKAGE], name, module)


def _tests_pass() -> bool:
    from tests.vectors.ledger import run

    for document in DOCUMENTS.values():
        for vector in document["vectors"]:  # type: ignore[attr-defined]
            try:
                run.check(document, vector)
            except Exception:
                return False
    return pytest.main(["-q", "-x", "-n", "0", "--no-header", "--no-summary", *UNIT_TESTS]) == 0


if __name__ == "__main__":
    sys.exit(main())
