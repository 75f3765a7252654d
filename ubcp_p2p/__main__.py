"""`python -m ubcp_p2p` is `ubcp`."""

from ubcp_p2p.cli.main import entry

if __name__ == "__main__":
    entry()
