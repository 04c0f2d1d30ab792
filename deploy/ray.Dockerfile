# Ray with everything that training workers and Serve replicas import.
# docker build -f deploy/ray.Dockerfile -t enxerto/ray:0.1.0 .
# docker build -f deploy/ray.Dockerfile --build-arg ACCELERATOR=gpu -t enxerto/ray:0.1.0-gpu .
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG ACCELERATOR=cpu
WORKDIR /build
RUN python -m venv /opt/enxerto
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY services services
RUN /opt/enxerto/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[worker,replica,cpu]'
# onnxruntime and onnxruntime-gpu own the same folder: one has to leave before the other comes.
RUN if [ "${ACCELERATOR}" = gpu ]; then \
        /opt/enxerto/bin/pip uninstall --yes onnxruntime \
        && /opt/enxerto/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[gpu]'; \
    fi

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/enxerto /opt/enxerto
# KubeRay starts Ray through a shell whose profile may reset PATH.
RUN ln --symbolic /opt/enxerto/bin/ray /usr/local/bin/ray \
    && install --directory --owner=10001 --group=10001 /var/lib/enxerto /var/lib/enxerto/shared /tmp/ray
ENV PATH=/opt/enxerto/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ENXERTO_HOME=/var/lib/enxerto \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_JOB_STOP_SIGNAL=SIGINT \
    RAY_SERVE_ENABLE_DIRECT_INGRESS=1 \
    RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT=40000 \
    RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT=40200 \
    RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT=30000 \
    RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT=30200 \
    RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=1 \
    RAY_SERVE_PORT_QUARANTINE_S=5 \
    RAY_SERVE_CONTROL_LOOP_INTERVAL_S=0.5 \
    RAY_SERVE_METRICS_EXPORT_INTERVAL_MS=1000 \
    RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD=0 \
    RAY_worker_niceness=0
USER 10001:10001
# Compose's head node; KubeRay brings its own command and its own probes.
EXPOSE 7320 7321 7324
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["ray", "health-check", "--address", "127.0.0.1:7320"]
STOPSIGNAL SIGTERM
CMD ["ray", "start", "--head", "--block", "--port=7320", "--dashboard-host=0.0.0.0", "--dashboard-port=7321", \
     "--metrics-export-port=7324", "--min-worker-port=20000", "--max-worker-port=20999", \
     "--object-store-memory=200000000", "--disable-usage-stats"]
