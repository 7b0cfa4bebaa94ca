"""Would every name validate, and if not, exactly why? Advice, never a gate."""
