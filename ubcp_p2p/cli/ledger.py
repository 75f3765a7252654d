"""`ubcp ledger …`: a community's ledger as files."""

from __future__ import annotations

import typer

from ubcp_p2p.cli.append import append
from ubcp_p2p.cli.audit import synth, verify_entry
from ubcp_p2p.cli.books import export, import_, show

ledger = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
ledger.command("export")(export)
ledger.command("import")(import_)
ledger.command("show")(show)
ledger.command("append")(append)
ledger.command("synth")(synth)
ledger.command("verify-entry")(verify_entry)
