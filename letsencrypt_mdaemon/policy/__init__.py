"""Mail policy as senders see it: records proven from DNS's root on, and DANE."""
