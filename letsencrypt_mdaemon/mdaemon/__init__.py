"""What this program knows about MDaemon."""
