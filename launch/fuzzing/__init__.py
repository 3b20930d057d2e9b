"""What fuzz.py runs: valid files for every reader, mutations of them, and a judge of the outcome."""
