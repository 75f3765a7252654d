"""One rank of torch.distributed over gloo in a process of its own: for bench/round.py."""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["GLOO_SOCKET_IFNAME"] = "lo"

import torch
import torch.distributed
from harness import answer, arguments


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{given['store']}", rank=given["index"], world_size=given["members"]
    )
    answer({})
    values = torch.zeros(0)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "size":
            values = torch.randn(request["bytes"] // 4, generator=torch.Generator().manual_seed(given["index"]))
            answer({})
        else:
            started_s = time.monotonic()
            torch.distributed.all_reduce(values)
            values /= given["members"]
            answer({"started_s": started_s, "ended_s": time.monotonic()})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
