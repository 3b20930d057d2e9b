"""Prompts to activations: what is asked and missing, the compiled passes, and what they bring to the store."""
