"""Transforms: what lies between an environment and an agent, inserted, removed and composed; `chain.py` knows them by name."""
