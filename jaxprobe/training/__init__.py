"""Training an SAE on stored activations: settings, order of tokens, steps and their saved state, quality.

What one step computes is in `saes/training.py`; which SAEs a job wants, in `experiments/config.py`.
"""
