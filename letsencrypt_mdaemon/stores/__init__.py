"""Where certificates are kept so that servers can use them."""
