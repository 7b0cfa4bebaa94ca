"""The operating system: files, locks, processes, logs, mail and schedulers."""
