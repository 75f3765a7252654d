"""Checks of work: who is checked by whom, and the evidence that shows a stranger why."""
