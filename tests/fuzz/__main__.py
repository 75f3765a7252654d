"""Feeds every decoder with changed bytes until the time is over: `make fuzz`, `python -m tests.fuzz --target proof`.

A crash is printed with its bytes, and ends the run with exit code 1; add the bytes to CRASHES in test_fuzz.py.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    parser.add_argument("--seconds", type=float, default=10, help="for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    crashes = 0
    for name in options.target or TARGETS:
        act, corpus_of = TARGETS[name]
        corpus, rng, count = corpus_of(), random.Random(options.seed), 0
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            data = mutated(rng, corpus)
            count += 1
            try:
                act(data)
            except Exception:
                crashes += 1
                traceback.print_exc()
                print(f"{name} crashes on {data.hex()}", flush=True)
                break
        print(f"{name}: {count} inputs", flush=True)
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
