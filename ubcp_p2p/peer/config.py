"""What each node may tune (`config.toml`), checked once and frozen; and every reading of the environment.

What all peers of a community must share is not here.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ubcp_p2p.carbon.api import URL_CHARS_MAX, check_url
from ubcp_p2p.carbon.table import find
from ubcp_p2p.carbon.values import G_PER_KWH_MAX
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.files import read_limited
from ubcp_p2p.keys import from_base58, public_of
from ubcp_p2p.multiaddr import parse_address, peer_id_text
from ubcp_p2p.owner.hours import WINDOWS_MAX, parse_window
from ubcp_p2p.owner.values import PERMILLE, SHARE_MIN, Rules
from ubcp_p2p.training.limits import MEMORY_MB_MAX, READ_DIRS_MAX
from ubcp_p2p.training.sandbox.values import SandboxSpec

CONFIG_BYTES_MAX: Final = 64 << 10
_ADDRESSES_MAX: Final = 32
MEMORY_MB_MIN: Final = (
    512  # the shipped recipes allocate up to 320 MiB with one thread (measured), and threads take some
)


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


def _window(text: str) -> str:
    parse_window(text)
    return text


def _zone(key: str) -> str:
    try:
        if key:
            ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("should be a time zone like 'Europe/Berlin' (or is the package tzdata missing?)") from None
    return key


def _url(text: str) -> str:
    if text:
        check_url(text)
    return text


def _folder(text: str) -> str:
    if not Path(text).is_absolute():
        raise ValueError("should be a whole path, from / on")
    return text


def _memory(megabytes: int) -> int:
    if 0 < megabytes < MEMORY_MB_MIN:
        raise ValueError(f"should be 0 or at least {MEMORY_MB_MIN}: torch and a small model need that")
    return megabytes


Folder = Annotated[str, Field(max_length=1024), AfterValidator(_folder)]
Window = Annotated[str, AfterValidator(_window)]
Word = Annotated[str, Field(min_length=1, max_length=128)]
Words = Annotated[tuple[Word, ...], Field(max_length=100, strict=False)]
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
    sandbox: Literal["auto", "required", "off"] = "auto"  # "auto": every layer that this machine's kernel has
    memory_mb: Annotated[int, Field(ge=0, le=MEMORY_MB_MAX), AfterValidator(_memory)] = (
        0  # of the trainer; 0: most of the machine's
    )
    read_dirs: Annotated[tuple[Folder, ...], Field(max_length=READ_DIRS_MAX, strict=False)] = ()  # for recipes' data
    silent_minutes: Annotated[int, Field(ge=0, le=10_000)] = 30  # a trainer at work that says nothing; 0: never ended

    def confinement(self) -> SandboxSpec:
        """The sandbox as the trainer takes it."""
        return SandboxSpec(self.sandbox, self.memory_mb, tuple(Path(folder) for folder in self.read_dirs))


class OwnerConfig(_Section):
    """[owner]: when this machine works for others, and for whom. 0 is no limit."""

    hours: Annotated[tuple[Window, ...], Field(max_length=WINDOWS_MAX, strict=False)] = ()  # empty: always
    timezone: Annotated[str, AfterValidator(_zone)] = ""  # of the hours; empty: this machine's own
    share_permille: Annotated[int, Field(ge=SHARE_MIN, le=PERMILLE)] = PERMILLE
    idle_minutes: Annotated[int, Field(ge=0, le=1440)] = 0  # 0: also while somebody uses the machine
    idle_load_permille: Annotated[int, Field(ge=1, le=PERMILLE)] = 250  # what other programs may use of it when idle
    on_battery: bool = False
    power_w_max: Annotated[int, Field(ge=0, le=20_000)] = 0
    temperature_c_max: Annotated[int, Field(ge=0, le=120)] = 0
    carbon_g_max: Annotated[int, Field(ge=0, le=G_PER_KWH_MAX)] = 0
    refuse_purposes: Words = ()
    refuse_runs: Words = ()  # names, or run ids in hex

    def rules(self) -> Rules:
        """The same as the rules that decide; reads this machine's time zone where none is configured."""
        return Rules(
            windows=tuple(parse_window(text) for text in self.hours),
            zone=ZoneInfo(self.timezone) if self.timezone else local_zone(),
            idle_s=self.idle_minutes * 60,
            others_permille_max=self.idle_load_permille,
            on_battery=self.on_battery,
            power_w_max=self.power_w_max,
            temperature_c_max=self.temperature_c_max,
            share_permille=self.share_permille,
            g_per_kwh_max=self.carbon_g_max,
            purposes_refused=frozenset(self.refuse_purposes),
            runs_refused=frozenset(self.refuse_runs),
        )


class CarbonConfig(_Section):
    """[carbon]: where the electricity comes from. Nothing is guessed, and nothing asked but the URL written here."""

    country: Annotated[str, Field(max_length=64)] = ""  # ISO 3166-1, two or three letters
    zone: Annotated[str, Field(max_length=64)] = ""  # of that country, where the table has zones
    schedule: Annotated[str, Field(max_length=4096)] = ""  # a CSV file, from the profile on
    api: Annotated[str, Field(max_length=URL_CHARS_MAX), AfterValidator(_url)] = ""
    api_minutes: Annotated[int, Field(ge=5, le=1440)] = 15  # between two questions

    @field_validator("country")
    @classmethod
    def _country_is_known(cls, country: str) -> str:
        return _placed(country, country, "")

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str, info: ValidationInfo) -> str:
        country = info.data.get("country")
        if zone and country == "":
            raise ValueError("needs carbon.country beside it")
        return zone if country is None else _placed(zone, country, zone)  # None: the country is the fault to tell

    @field_validator("api")
    @classmethod
    def _one_source(cls, api: str, info: ValidationInfo) -> str:
        if api and info.data.get("schedule"):
            raise ValueError("cannot be used beside carbon.schedule: choose one")
        return api


def _placed(text: str, country: str, zone: str) -> str:
    if text:
        try:
            find(country, zone)
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
    return text


class ServingConfig(_Section):
    """[serving]: what this node gives to requests of its community's ledger, slice by slice."""

    device_class: Annotated[str, Field(max_length=64)] = ""  # one of the charter's; empty: it serves no requests
    gflops: Annotated[int, Field(ge=0, le=10**12)] = 0  # sustained; 0: what the charter says of that class
    rounds_unpaid_max: Annotated[int, Field(ge=1, le=1000)] = 5  # then a payer whose voucher does not grow is left


class ApiConfig(_Section):
    """[api]: for programs on this machine."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 0  # on 127.0.0.1; 0: the system chooses


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
    owner: OwnerConfig = OwnerConfig()
    carbon: CarbonConfig = CarbonConfig()
    ledger: LedgerConfig = LedgerConfig()
    serving: ServingConfig = ServingConfig()
    api: ApiConfig = ApiConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _a_ceiling_needs_a_source(self) -> PeerConfig:
        carbon = self.carbon
        if self.owner.carbon_g_max and not (carbon.country or carbon.schedule or carbon.api):
            raise ValueError(
                "owner.carbon_g_max cannot be kept: nothing says what the grid has; set carbon.country (docs/owner.md)"
            )
        return self

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


def local_zone(environ: Mapping[str, str] = os.environ, localtime: Path = Path("/etc/localtime")) -> tzinfo:
    """This machine's time zone: $TZ where that names one, else /etc/localtime, else UTC."""
    name = environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # a rule like "CET-1CEST", or no zone at all
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key="the machine's own")
    except (OSError, ValueError):
        return UTC


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
    if not key:  # of what no key alone is wrong in
        return ConfigError(f"{where}: {_reason(fault)}{more}", hint="correct one of the two keys")
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
