"""The training job: the only part of the service that imports Ray and torch. It runs on the cluster."""
