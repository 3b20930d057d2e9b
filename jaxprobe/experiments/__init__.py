"""Experiments: which predictions to make, and which questions to ask of them; a room or a file each."""
