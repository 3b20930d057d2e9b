"""What fuzz.py runs: valid files of every reader, mutations of them, and a judge of what became of it."""
