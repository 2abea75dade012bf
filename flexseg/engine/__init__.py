"""Training, checkpoints, evaluation. The engine knows the method's contract and no method by name."""
