"""Ships the content that the program reads at run time (models/…) inside the wheel, as ubcp_p2p/_content/models/….

The rest is in pyproject.toml. This is a build step and not `package-dir`, which hides the code from type checkers.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONTENT = (
    "models/recipes/*.toml",
    "models/**/*.md",
    "ledger/charter.toml",
    "peer/carbon/*",
    "simulation/*.toml",
)  # globs from the root of the checkout


class BuildWithContent(build_py):
    """build_py, and then a copy of the content; an editable install reads the checkout itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, target in self._content():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else outputs + [str(target) for _, target in self._content()]

    def get_source_files(self) -> list[str]:
        files: list[str] = super().get_source_files()
        return files + [str(source) for source, _ in self._content()]

    def _content(self) -> list[tuple[Path, Path]]:
        target = Path(self.build_lib) / "ubcp_p2p" / "_content"
        sources = sorted({path for pattern in CONTENT for path in Path().glob(pattern)})
        return [(source, target / source) for source in sources]


setup(cmdclass={"build_py": BuildWithContent})
