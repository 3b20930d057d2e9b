"""What is asked: an experiment is a file or a folder here."""
