"""What the training service's ports stand on: SQL, an object store, Ray's REST API, the registry, Prometheus."""
