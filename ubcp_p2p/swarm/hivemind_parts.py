"""Imports the parts of hivemind that we run as coroutines, without the rest of it and without torch.

`import hivemind` executes package files that pull in torch, its process wrappers and its optimizer: 1.5–2.5 s and
277 MB in every daemon (measured). The parts used here need none of it, so the packages on the way are entered without
running their `__init__`: 0.2 s and 49 MB (docs/adr/0005). The version is pinned; a test imports this in a fresh
process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def _enter(name: str) -> ModuleType:
    """Make package `name` importable from without executing its __init__, unless it already ran."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package
    return package


class StepControl:
    """What hivemind's Matchmaking asks of a step; replaces averaging.control, which allocates torch shared memory.

    Times are Unix seconds (hivemind's DHT time).
    """

    def __init__(self, *, scheduled_time: float, deadline: float, data_for_gather: bytes) -> None:
        self.scheduled_time = scheduled_time
        self.deadline = deadline
        self.data_for_gather = data_for_gather

    def get_timeout(self) -> float:
        now_s: float = timed_storage.get_dht_time()
        return max(0.0, self.deadline - now_s)


def _part(name: str) -> Any:
    return importlib.import_module(f"hivemind.{name}")


if "hivemind" not in sys.modules:
    _enter("hivemind")
    _utils = _enter("hivemind.utils")
    for _module, _names in {
        "logging": ["get_logger"],
        "serializer": ["MSGPackSerializer", "SerializerBase"],
        "timed_storage": [
            "DHTExpiration",
            "ValueWithExpiration",
            "get_dht_time",
            "MAX_DHT_TIME_DISCREPANCY_SECONDS",
            "TimedStorage",
        ],
    }.items():
        for _name in _names:
            setattr(_utils, _name, getattr(_part(f"utils.{_module}"), _name))
    _dht = _enter("hivemind.dht")
    _dht.DHT = object  # type: ignore[attr-defined]  # only named in annotations by the parts below
    _dht.DHTID = _part("dht.routing").DHTID  # type: ignore[attr-defined]
    _enter("hivemind.averaging")
    _control = ModuleType("hivemind.averaging.control")
    _control.StepControl = StepControl  # type: ignore[attr-defined]
    sys.modules["hivemind.averaging.control"] = _control

timed_storage: Any = _part("utils.timed_storage")
p2p_daemon: Any = _part("p2p.p2p_daemon")
matchmaking: Any = _part("averaging.matchmaking")
node: Any = _part("dht.node")
validation: Any = _part("dht.validation")
p2pd_pb2: Any = _part("proto.p2pd_pb2")
dht_pb2: Any = _part("proto.dht_pb2")
averaging_pb2: Any = _part("proto.averaging_pb2")
bindings: Any = _part("p2p.p2p_daemon_bindings.utils")

P2P: Any = p2p_daemon.P2P
P2PContext: Any = p2p_daemon.P2PContext
PeerID: Any = _part("p2p.p2p_daemon_bindings.datastructures").PeerID
Multiaddr: Any = _part("utils.multiaddr").Multiaddr
ServicerBase: Any = _part("p2p.servicer").ServicerBase
DHTNode: Any = node.DHTNode
DHTLocalStorageBase: Any = _part("dht.storage").DHTLocalStorage
RecordValidatorBase: Any = validation.RecordValidatorBase
Matchmaking: Any = matchmaking.Matchmaking
P2PDaemonError: type[Exception] = bindings.P2PDaemonError
P2PHandlerError: type[Exception] = bindings.P2PHandlerError
