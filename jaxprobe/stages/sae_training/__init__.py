"""Parts of the train_sae stage: which tokens come when, and how good the result is."""
