"""Keep the certificate of an MDaemon mail server fresh."""

__version__ = "0.1.0"
