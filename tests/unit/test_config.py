"""Configuration: defaults, all keys, and errors that name the file, the key and the remedy."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest
from pydantic import ValidationError

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.keys import NodeKey, to_base58
from ubcp_p2p.owner.hours import parse_window
from ubcp_p2p.owner.values import Rules
from ubcp_p2p.peer.config import (
    CONFIG_BYTES_MAX,
    PeerConfig,
    default_profile_dir,
    local_zone,
    passphrase_from_environment,
    runtime_base,
)
from ubcp_p2p.peer.create import CONFIG_TEMPLATE

PEER = f"/ip4/127.0.0.1/tcp/4001/p2p/{to_base58(NodeKey(bytes(32)).peer_id)}"


def _load(text: str) -> PeerConfig:
    return PeerConfig.from_toml(text, where="test.toml")


def test_a_missing_file_means_the_defaults(tmp_path: Path) -> None:
    config = PeerConfig.load(tmp_path / "config.toml")
    assert config == PeerConfig()
    assert config.network.listen == ("/ip4/0.0.0.0/tcp/0",)
    assert config.network.nat == "auto"
    assert config.training.checkpoints_kept == 3


def test_every_key(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        [network]
        listen = ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/udp/4001/quic-v1"]
        bootstrap = ["{PEER}"]
        announce = ["/dns4/node.example.org/tcp/4001"]
        nat = "off"
        dht_mode = "client"
        [training]
        device = "cuda:1"
        threads = 2
        checkpoints_kept = 100
        [owner]
        hours = ["Mon-Fri 22:00-06:00", "Sat,Sun 00:00-24:00"]
        timezone = "Europe/Berlin"
        share_permille = 500
        idle_minutes = 10
        idle_load_permille = 100
        on_battery = true
        power_w_max = 200
        temperature_c_max = 80
        carbon_g_max = 300
        refuse_purposes = ["advertising"]
        refuse_runs = ["plays"]
        [carbon]
        country = "SWE"
        zone = "se3"
        api = "https://carbon.example.org/forecast"
        api_minutes = 60
        [log]
        level = "debug"
        """
    )
    config = PeerConfig.load(path)
    assert config.network.listen[1] == "/ip6/::1/udp/4001/quic-v1"
    assert config.network.bootstrap == (PEER,)
    assert config.network.nat == "off"
    assert config.training.device == "cuda:1"
    assert config.log.level == "debug"
    assert config.owner.rules() == Rules(
        windows=(parse_window("Mon-Fri 22:00-06:00"), parse_window("Sat,Sun 00:00-24:00")),
        zone=ZoneInfo("Europe/Berlin"),
        idle_s=600,
        others_permille_max=100,
        on_battery=True,
        power_w_max=200,
        temperature_c_max=80,
        share_permille=500,
        g_per_kwh_max=300,
        purposes_refused=frozenset({"advertising"}),
        runs_refused=frozenset({"plays"}),
    )


def test_the_zone_of_this_machine(tmp_path: Path) -> None:
    assert local_zone({"TZ": "Asia/Kathmandu"}) == ZoneInfo("Asia/Kathmandu")
    assert local_zone({"TZ": ":Asia/Kathmandu"}) == ZoneInfo("Asia/Kathmandu")
    link = tmp_path / "localtime"
    assert local_zone({}, link) == UTC
    link.write_text("no zone")
    assert local_zone({"TZ": "../../etc/passwd"}, link) == UTC
    where = next(found for path in TZPATH if (found := Path(path) / "Asia/Kathmandu").is_file())
    link.write_bytes(where.read_bytes())
    assert str(datetime(2026, 1, 1, tzinfo=local_zone({}, link)).utcoffset()) == "5:45:00"
    assert str(datetime(2026, 1, 1, tzinfo=local_zone({"TZ": "XXX-9"}, link)).utcoffset()) == "5:45:00"


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        PeerConfig().log.level = "debug"


def test_the_template_shows_every_key_with_its_default() -> None:
    assert _load(CONFIG_TEMPLATE) == PeerConfig()
    uncommented = re.sub(r"^# (?=[a-z_]+ = )", "", CONFIG_TEMPLATE, flags=re.MULTILINE)
    assert _load(uncommented) == PeerConfig()
    shown = {section: set(keys) for section, keys in tomllib.loads(uncommented).items()}
    assert shown == {section: set(values) for section, values in PeerConfig().model_dump().items()}


def test_the_example_file_is_valid() -> None:
    PeerConfig.load(Path(__file__).parents[2] / "peer" / "ubcp.toml")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[training]\ndevcie = 'cpu'", "unknown key 'training.devcie'", "did you mean 'device'"),
        ("[trainning]\n", "unknown key 'trainning'", "did you mean 'training'"),
        ("zzz = 1", "unknown key 'zzz'", "allowed here: network, training, owner, carbon, ledger, serving, api, log"),
        ("network = 5", "key 'network'", "correct"),
        ("[network]\nnat = 'on'", "key 'network.nat'.*'auto' or 'off'.*'on'", "correct 'network.nat'"),
        ("[network]\nlisten = []", "key 'network.listen'", "correct"),
        ("[network]\nlisten = '/ip4/0.0.0.0/tcp/0'", "key 'network.listen'", "correct"),
        ("[network]\nlisten = [5]", r"key 'network.listen.0'.*5", "correct"),
        ("[network]\nlisten = ['/ip4/0.0.0.0/tcp/70000']", "70000.*a port is a number", "correct"),
        ("[network]\nlisten = ['/ip4/1.2.3/tcp/1']", "bad value '1.2.3'", "correct"),
        ("[network]\nlisten = ['127.0.0.1:4001']", "does not start with '/'", "correct"),
        ("[network]\nlisten = ['/carrier-pigeon/1']", "unknown protocol 'carrier-pigeon'", "correct"),
        (f"[network]\nlisten = ['{PEER}']", "must not end in /p2p/", "correct"),
        ("[network]\nbootstrap = ['/ip4/127.0.0.1/tcp/4001']", "must end in /p2p/", "correct"),
        ("[network]\nbootstrap = ['/ip4/127.0.0.1/tcp/4001/p2p/QmXYZ']", "not one of an Ed25519 key", "correct"),
        ("[training]\ndevice = 'gpu'", "'auto', 'cpu', 'cuda' or 'cuda:N', not 'gpu'", "correct"),
        ("[training]\nthreads = -1", "key 'training.threads'.*-1", "correct"),
        ("[training]\nthreads = '2'", "key 'training.threads'.*'2'", "correct"),
        ("[training]\ncheckpoints_kept = 0", "key 'training.checkpoints_kept'", "correct"),
        ("[training]\ncheckpoints_kept = true", "key 'training.checkpoints_kept'", "correct"),
        ("[training]\nsandbox = 'on'", "key 'training.sandbox'.*'on'", "correct"),
        ("[training]\nmemory_mb = -1", "key 'training.memory_mb'", "correct"),
        ("[training]\nmemory_mb = 511", "key 'training.memory_mb': should be 0 or at least 512", "correct"),
        ("[training]\nread_dirs = ['data']", "key 'training.read_dirs.0': should be a whole path", "correct"),
        ("[training]\nsilent_minutes = 10001", "key 'training.silent_minutes'", "correct"),
        ("[training]\ncheckpoints_kept = 101\nthreads = 9999", r"\(and 1 more\)", "correct"),
        ("[owner]\nhours = ['Mon-Fri 22-6']", r"key 'owner.hours.0': '22' is not a time like 22:00", "correct"),
        ("[owner]\nhours = 'Mon-Fri 22:00-06:00'", "key 'owner.hours'", "correct"),
        ("[owner]\nhours = [" + "'08:00-09:00'," * 51 + "]", "key 'owner.hours'", "correct"),
        ("[owner]\ntimezone = 'Berlin'", "key 'owner.timezone': should be a time zone like", "correct"),
        ("[owner]\ntimezone = '../x'", "key 'owner.timezone': should be a time zone like", "correct"),
        ("[owner]\nshare_permille = 49", "key 'owner.share_permille'.*50.*49", "correct"),
        ("[owner]\nidle_minutes = 1.5", "key 'owner.idle_minutes'", "correct"),
        ("[owner]\npower_w_max = -1", "key 'owner.power_w_max'", "correct"),
        ("[owner]\nrefuse_runs = ['']", "key 'owner.refuse_runs.0'", "correct"),
        ("[owner]\ncarbon_g_max = 300", "test.toml: owner.carbon_g_max cannot be kept.*set carbon.country", "one of"),
        ("[carbon]\ncountry = 'XX'", "key 'carbon.country': the carbon table has no country 'XX'", "correct"),
        ("[carbon]\ncountry = 'XX'\nzone = 'X'", r"key 'carbon.country'.*no country 'XX'.*owner\.md\)$", "correct"),
        ("[carbon]\nzone = 'SE3'", "key 'carbon.zone': needs carbon.country beside it", "correct"),
        ("[carbon]\ncountry = 'SE'\nzone = 'SE9'", "key 'carbon.zone': the carbon table has no zone 'SE9'", "correct"),
        ("[carbon]\napi = 'http://example.org/'", "key 'carbon.api': should begin with https://", "correct"),
        ("[carbon]\nschedule = 'x'\napi = 'https://a.b/'", "'carbon.api': cannot be used beside carbon.sch", "correct"),
        ("[carbon]\napi_minutes = 1", "key 'carbon.api_minutes'", "correct"),
        ("[log]\nlevel = 'loud'", "key 'log.level'", "correct"),
        ("[log\n", "not TOML.*line 1", "correct that line"),
        ("a = " + "[" * 5000, "not TOML", "correct"),
    ],
)
def test_errors_name_file_key_and_remedy(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        _load(text)
    assert str(caught.value).startswith("test.toml")
    assert hint in str(caught.value.hint)


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        PeerConfig.load(path)
    path.write_bytes(b"#" * (CONFIG_BYTES_MAX + 1))
    with pytest.raises(LocalIOError, match="more than"):
        PeerConfig.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(LocalIOError, match=r"config\.toml"):
        PeerConfig.load(path)


def test_the_environment(tmp_path: Path) -> None:
    assert default_profile_dir({"UBCP_HOME": "/a", "XDG_DATA_HOME": "/b"}) == Path("/a")
    assert default_profile_dir({"XDG_DATA_HOME": "/b"}) == Path("/b/ubcp")
    assert default_profile_dir({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local/share/ubcp"
    assert runtime_base({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path
    assert runtime_base({"XDG_RUNTIME_DIR": str(tmp_path / "absent")}) is None
    assert runtime_base({}) is None
    assert passphrase_from_environment({"UBCP_PASSPHRASE": "x"}) == "x"
    assert passphrase_from_environment({"UBCP_PASSPHRASE": ""}) is None
