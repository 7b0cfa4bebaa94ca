"""The renewal itself. Read `run` first."""
