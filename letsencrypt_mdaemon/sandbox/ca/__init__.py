"""A small ACME CA for the demo and the tests."""
