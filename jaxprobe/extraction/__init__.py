"""Prompts to activations: what is requested and missing, the compiled passes, and writing to the store."""
