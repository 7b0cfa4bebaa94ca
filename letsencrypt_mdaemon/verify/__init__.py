"""The TLS ports of a mail server: what each one serves, and whether it should."""
