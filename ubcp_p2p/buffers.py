"""SharedBuffer: anonymous memory that the daemon and a trainer share by file descriptor.

A memfd has no name: when the last process that holds it ends, even by kill -9, the kernel frees it. (POSIX
shared memory keeps its segment after a crash; measured, docs/adr/0004.)
"""

from __future__ import annotations

import mmap
import os
import tempfile
from types import TracebackType


class SharedBuffer:
    """`size` bytes of anonymous memory with a descriptor to pass on; the owner calls `close`.

    `size` 0 is allowed and has an empty view.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._map = mmap.mmap(fd, size) if size else None

    @classmethod
    def create(cls, size: int) -> SharedBuffer:
        """Allocate `size` zeroed bytes. Raises OSError when memory or descriptors run out."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("ubcp", os.MFD_CLOEXEC)
        else:  # macOS: an unlinked temporary file has no name either
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        try:
            os.ftruncate(fd, size)
            return cls(fd, size)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def adopt(cls, fd: int) -> SharedBuffer:
        """Map a descriptor that another process sent; owns `fd` from here on."""
        try:
            return cls(fd, os.fstat(fd).st_size)
        except BaseException:
            os.close(fd)
            raise

    @property
    def view(self) -> memoryview:
        """A writable view of all bytes; release it (or let it go) before `close`."""
        return memoryview(self._map) if self._map is not None else memoryview(bytearray())

    def close(self) -> None:
        """Unmap and close; safe to call twice. The memory lives on while another process holds it."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                pass  # a view is still alive somewhere: the map goes when that view does
        os.close(fd)

    def __enter__(self) -> SharedBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
