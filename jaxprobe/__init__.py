"""Do sparse autoencoders help to detect concepts? Sparse probing in JAX."""
