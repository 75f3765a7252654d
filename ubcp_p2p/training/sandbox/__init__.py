"""What the trainer process may do, and what the kernel refuses it (docs/sandbox.md)."""
