"""Measures whole runs of this program beside other ACME clients."""
