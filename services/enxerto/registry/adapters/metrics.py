"""The registry's domain metrics, beside the ones that every RPC has."""

from prometheus_client import CollectorRegistry, Counter

from enxerto.registry.domain import State


class PrometheusMeter:
    """Counts on Prometheus; the labels are bounded by the code, never by users."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._versions = Counter(
            "enxerto_registry_versions", "Model versions created, by state.", ["state"], registry=registry
        )
        self._alias_moves = Counter("enxerto_registry_alias_moves", "Aliases set or removed.", registry=registry)
        self._bytes = Counter(
            "enxerto_registry_blob_bytes", "Bytes of blobs transferred.", ["direction"], registry=registry
        )
        self._uploads = Counter(
            "enxerto_registry_uploads", "Uploads that ended, by outcome.", ["outcome"], registry=registry
        )
        # A series that is there from the start lets `rate` see the first event.
        for state in State:
            self._versions.labels(state.value.lower())
        for direction in ("received", "sent"):
            self._bytes.labels(direction)
        for outcome in ("stored", "discarded"):
            self._uploads.labels(outcome)

    def count_version(self, state: State) -> None:
        """A version was created."""
        self._versions.labels(state.value.lower()).inc()

    def count_alias_move(self) -> None:
        """An alias was set or removed."""
        self._alias_moves.inc()

    def count_received(self, size_bytes: int) -> None:
        """Bytes of an upload arrived."""
        self._bytes.labels("received").inc(size_bytes)

    def count_sent(self, size_bytes: int) -> None:
        """Bytes of a download left."""
        self._bytes.labels("sent").inc(size_bytes)

    def count_upload(self, *, stored: bool) -> None:
        """An upload ended."""
        self._uploads.labels("stored" if stored else "discarded").inc()
