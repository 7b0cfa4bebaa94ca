"""A small ACME CA to try things on."""
