"""The inference service: deployments of model versions, and the answers that they give."""
