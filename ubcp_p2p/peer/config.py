"""What each node may tune (`config.toml`), checked once and frozen; and every reading of the environment.

What all peers of a community must share is not here.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.files import read_limited
from ubcp_p2p.keys import from_base58, public_of
from ubcp_p2p.multiaddr import parse_address, peer_id_text

CONFIG_BYTES_MAX: Final = 64 << 10
_ADDRESSES_MAX: Final = 32


def _own_address(text: str) -> str:
    if peer_id_text(_parsed(text)) is not None:
        raise ValueError(f"{text!r} must not end in /p2p/…: it is this node's own address")
    return text


def _peer_address(text: str) -> str:
    peer_id = peer_id_text(_parsed(text))
    if peer_id is None:
        raise ValueError(f"{text!r} must end in /p2p/ and the peer id of the node there")
    try:
        public_of(from_base58(peer_id))
    except UbcpError as error:
        raise ValueError(f"{text!r}: {error.message}") from None
    return text


def _parsed(text: str) -> tuple[tuple[str, str], ...]:
    try:
        return parse_address(text)
    except UbcpError as error:
        raise ValueError(error.message) from None


OwnAddress = Annotated[str, AfterValidator(_own_address)]
PeerAddress = Annotated[str, AfterValidator(_peer_address)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NetworkConfig(_Section):
    """[network]: how this node is reached, and whom it asks first."""

    listen: Annotated[tuple[OwnAddress, ...], Field(min_length=1, max_length=_ADDRESSES_MAX, strict=False)] = (
        "/ip4/0.0.0.0/tcp/0",
    )
    bootstrap: Annotated[tuple[PeerAddress, ...], Field(max_length=_ADDRESSES_MAX, strict=False)] = ()
    announce: Annotated[tuple[OwnAddress, ...], Field(max_length=_ADDRESSES_MAX, strict=False)] = ()
    nat: Literal["auto", "off"] = "auto"  # port mapping, autonat, relay and hole punching; "off": none of them
    dht_mode: Literal["auto", "server", "client"] = (
        "auto"  # a node that cannot be reached must not hold others' records
    )


class TrainingConfig(_Section):
    """[training]: what this machine lends."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # 0: as many as torch chooses
    checkpoints_kept: Annotated[int, Field(ge=1, le=100)] = 3


class LogConfig(_Section):
    """[log]: log/ubcp.log in the profile and stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class LedgerConfig(_Section):
    """[ledger]: the community whose credits this node takes part in."""

    charter: Annotated[str, Field(max_length=4096)] = ""  # its charter file, from the profile on; empty: no ledger


class PeerConfig(_Section):
    """A node's whole configuration; `PeerConfig()` is the default one."""

    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    ledger: LedgerConfig = LedgerConfig()
    log: LogConfig = LogConfig()

    @classmethod
    def load(cls, path: Path) -> PeerConfig:
        """Read and check a TOML file; a missing file means the defaults.

        Raises ConfigError naming file, key and remedy; LocalIOError when the file cannot be read.
        """
        try:
            data = read_limited(path, bytes_max=CONFIG_BYTES_MAX)
        except FileNotFoundError:
            return cls()
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}", hint="save it as UTF-8") from None
        return cls.from_toml(text, where=str(path))

    @classmethod
    def from_toml(cls, text: str, *, where: str) -> PeerConfig:
        """As `load`, from text; `where` names it in errors."""
        try:
            return cls.model_validate(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{where} is not TOML: {error}", hint="correct that line") from None
        except ValidationError as error:
            raise _explained(error, where) from None


def default_profile_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the profile is unless the user says: $UBCP_HOME, else $XDG_DATA_HOME/ubcp, else ~/.local/share/ubcp."""
    if own := environ.get("UBCP_HOME"):
        return Path(own).expanduser()
    data_home = environ.get("XDG_DATA_HOME", "")
    if data_home.startswith("/"):  # the XDG rule: relative paths are to be ignored
        return Path(data_home) / "ubcp"
    try:
        return Path.home() / ".local" / "share" / "ubcp"
    except RuntimeError:
        raise ConfigError("this user has no home directory", hint="set UBCP_HOME, or give --profile DIR") from None


def runtime_base(environ: Mapping[str, str] = os.environ) -> Path | None:
    """$XDG_RUNTIME_DIR when it is a usable absolute directory, else None."""
    base = Path(environ.get("XDG_RUNTIME_DIR", ""))
    return base if base.is_absolute() and base.is_dir() and os.access(base, os.W_OK | os.X_OK) else None


def passphrase_from_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """$UBCP_PASSPHRASE, for unattended use; None when unset or empty."""
    return environ.get("UBCP_PASSPHRASE") or None


def _explained(error: ValidationError, where: str) -> ConfigError:
    """The first fault of a validation in words for the person who wrote the file."""
    fault = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys(fault["loc"])
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        remedy = f"did you mean {close[0]!r}? " if close else ""
        return ConfigError(f"{where}: unknown key {key!r}{more}", hint=f"{remedy}allowed here: {', '.join(known)}")
    return ConfigError(
        f"{where}: key {key!r}: {_reason(fault)}{more}", hint=f"correct {key!r}, or remove it for its default"
    )


def _reason(fault: Any) -> str:
    reason = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch":
        reason = "should be 'auto', 'cpu', 'cuda' or 'cuda:N'"  # device is the only key with a pattern
    if fault["type"] == "too_short":
        reason = f"should have at least {fault['ctx']['min_length']} item"
    value = fault["input"]
    return f"{reason}, not {value!r}" if isinstance(value, str | int | float) and repr(value) not in reason else reason


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = PeerConfig
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)
