"""What a run leaves on disk and how it is interrupted: directory, lock, checkpoints, log, signals."""
