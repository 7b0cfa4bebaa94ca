"""Write reports as HTML and as CSV."""
