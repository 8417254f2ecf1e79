"""Many prompts in one command: lists of tasks, a pool of processes that make them, and a gallery of what was made."""
