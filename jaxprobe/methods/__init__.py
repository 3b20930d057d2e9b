"""How a job's predictions are made: by the probe engine, or by an experiment's own way."""
