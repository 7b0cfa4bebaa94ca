"""Fuzz whatever reads foreign input, guided by coverage: `python -m fuzz`."""
