"""Decides, slice by slice, which requests are served: exact, in integers, replayable by anyone (docs/allocator.md)."""
