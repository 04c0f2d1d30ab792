"""The process shell that every service stands on: gRPC server, interceptors, error table, settings, logs, metrics."""
