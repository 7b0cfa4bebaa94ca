"""Settings: their table, their parsers, and where their values come from."""
