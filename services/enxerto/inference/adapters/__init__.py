"""The world behind the ports: SQL, Ray Serve, replicas, the registry, Prometheus."""
