"""The node's HTTP API: one table of routes, which server, client and the OpenAPI document share (docs/api.md)."""
