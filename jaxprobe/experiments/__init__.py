"""Experiments: which predictions to make and which questions to ask of them."""
