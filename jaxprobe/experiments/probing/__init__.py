"""The paper's main grid: baselines and SAE probes on binary datasets in five regimes."""
