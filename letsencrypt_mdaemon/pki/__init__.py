"""Certificates, chains and names: values without I/O."""
