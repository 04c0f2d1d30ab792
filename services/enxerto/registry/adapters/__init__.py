"""What the registry's ports stand on: SQL, an object store, Prometheus."""
