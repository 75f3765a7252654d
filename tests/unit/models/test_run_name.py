"""What a run can be called."""

from __future__ import annotations

import pytest

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.run_name import check_name, is_name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "ü" * 33, "a\nb", "\ud800", "../x", "a/b", "/", ".x", "\x1b[2J", "a\x00"]
)
def test_names_that_no_run_can_have(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ConfigError):
        check_name(name)


@pytest.mark.parametrize("name", ["x" * 64, "ü" * 32, "a.b", "a run", "a\\b"])
def test_names_that_a_run_can_have(name: str) -> None:
    assert is_name(name)
    check_name(name)
