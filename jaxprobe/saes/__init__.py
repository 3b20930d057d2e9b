"""Sparse autoencoders: a pytree with encode and decode for each architecture, and training."""
