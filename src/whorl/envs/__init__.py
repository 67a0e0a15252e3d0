"""Batches of N environments: the contract (`env`), compiled worlds (`native`), other libraries (`adapters`), `make` and `check`."""
