"""What only Windows has; imported only there, and only when needed."""
