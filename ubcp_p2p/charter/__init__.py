"""A community's signed rules (ledger/SPEC.md §4): `values` has the canonical form, `document` what people write."""
