"""What is sent besides mail: webhooks, heartbeats, and whatever Apprise knows."""
