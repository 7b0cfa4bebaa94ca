"""A small MDaemon and a small CA to try things on: the demo and the tests share them."""
