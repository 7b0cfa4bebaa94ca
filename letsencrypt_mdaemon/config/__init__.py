"""Settings: the table, the parsers, and the sources of the values."""
