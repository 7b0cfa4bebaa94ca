"""Renew the certificate. Read `run` first."""
