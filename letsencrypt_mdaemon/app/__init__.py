"""The use cases of the commands, without the command line."""
