"""A node: its configuration and profile, the daemon that wires all services, its HTTP API."""
