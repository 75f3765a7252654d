"""The credit ledger: single-writer chains, vouchers, balances as a pure fold. Specified in ledger/SPEC.md."""
