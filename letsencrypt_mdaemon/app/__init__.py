"""The use cases: what a command does, without the command line."""
