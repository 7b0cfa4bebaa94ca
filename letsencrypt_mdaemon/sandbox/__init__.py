"""A small MDaemon and a small CA to try things on, for the demo and the tests."""
