"""What all tests share: hypothesis without a time limit an example (pytest-timeout guards the whole)."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ubcp", deadline=None, print_blob=True)
settings.load_profile("ubcp")
