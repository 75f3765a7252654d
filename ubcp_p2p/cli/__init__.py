"""The `ubcp` command: one module a group of commands; heavy imports happen inside the functions."""
