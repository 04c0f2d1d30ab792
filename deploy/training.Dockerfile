# The training control plane: data sets and runs. It calls Ray over HTTP and holds neither Ray nor torch.
# docker build -f deploy/training.Dockerfile -t enxerto/training:0.1.0 .
# Give PYTHON_IMAGE a digest (name@sha256:…) for a reproducible build.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/enxerto
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY services services
RUN /opt/enxerto/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[training]'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/enxerto /opt/enxerto
# The volume's mount point must belong to the user before the volume is made from it.
RUN install --directory --owner=10001 --group=10001 /var/lib/enxerto /var/lib/enxerto/shared
ENV PATH=/opt/enxerto/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ENXERTO_HOME=/var/lib/enxerto \
    ENXERTO_TRAINING_HOST=0.0.0.0 \
    ENXERTO_TRAINING_PORT=7302 \
    ENXERTO_TRAINING_METRICS_HOST=0.0.0.0 \
    ENXERTO_TRAINING_METRICS_PORT=7312
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 7302 7312
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "enxerto.runtime.probe", "127.0.0.1:7302"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "enxerto.training"]
