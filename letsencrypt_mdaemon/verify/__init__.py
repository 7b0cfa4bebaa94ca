"""Look at TLS ports, and judge what they serve."""
