"""Whether every name would validate, and if not, exactly why. Advice, never a gate."""
