"""What probes read: activations, and the latents, reconstructions and errors of SAEs."""
