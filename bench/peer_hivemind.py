"""One peer of stock hivemind (DHT and DecentralizedAverager) in a process of its own: for bench/round.py."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ["HIVEMIND_LOGLEVEL"] = "ERROR"

import hivemind
import torch
from harness import answer, arguments

STEP_S = 120.0
POLL_S = 0.001  # how exactly the end of matchmaking is seen


def averager(dht: hivemind.DHT, prefix: str, size: int, index: int, settings: dict[str, Any]) -> Any:
    """A started averager of one tensor of `size` bytes."""
    values = torch.randn(size // 4, generator=torch.Generator().manual_seed(index))
    return hivemind.DecentralizedAverager([values], dht, prefix=prefix, start=True, **settings)


def one(running: Any) -> dict[str, Any]:
    """One averaging step: when it began, when its group was found, when it ended, and how many took part."""
    started_s = time.monotonic()
    step = running.step(wait=False, timeout=STEP_S, allow_retries=False)
    while not (step.began_allreduce or step.done()):
        time.sleep(POLL_S)
    matched_s = time.monotonic()
    gathered = step.result(STEP_S)
    return {
        "started_s": started_s, "matched_s": matched_s, "ended_s": time.monotonic(),
        "members": len(gathered) if gathered is not None else 0,
    }  # fmt: skip


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    dht = hivemind.DHT(initial_peers=given["addresses"], host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    answer({"addresses": [str(address) for address in dht.get_visible_maddrs()]})
    running = None
    try:
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "size":
                if running is not None:
                    running.shutdown()
                running = averager(dht, request["prefix"], request["bytes"], given["index"], request["settings"])
                answer({})
            else:
                try:
                    answer(one(running))
                except Exception as error:  # a round that failed is a figure too
                    answer({"members": 0, "failure": f"{type(error).__name__}: {error}"})
    finally:
        if running is not None:
            running.shutdown()
        dht.shutdown()


if __name__ == "__main__":
    main()
