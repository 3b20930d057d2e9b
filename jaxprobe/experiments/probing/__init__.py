"""The main grid of the paper: probes on activations and on latents, in every regime."""
