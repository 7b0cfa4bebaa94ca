"""An ACME client (RFC 8555)."""
