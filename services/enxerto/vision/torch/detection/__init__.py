"""Training of detectors: every family gives dense candidates, and one batched suppression serves them all."""
