"""The client: the common jobs in a few lines, over plain gRPC.

One class with the calls to every resource. Each kind is in a module of its own and may use those before it: datasets,
runs, base models, sweeps, models, deployments, answers, quality, streams.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from enxerto.client._channel import Tls
from enxerto.client._names import Names
from enxerto.client._streams import StreamCalls
from enxerto.client._stubs import Stubs


class Client(StreamCalls):
    """Talks to a platform: the local one under ENXERTO_HOME, or the one at the addresses given.

    Names may be short (`flowers`, `flowers@production`) or full (`projects/default/models/flowers/versions/3`). Calls
    that find a service UNAVAILABLE are made again until their deadline. Threads may share a client.

        with Client() as client:
            snapshot = client.import_dataset("flowers", "photos/flowers")
            run = client.wait(client.train(snapshot, model="flowers"))
            client.promote(run.model_version)
            client.deploy("flowers", "flowers@production")
            print(client.classify("flowers", ["photo.jpg"])[0].label)
    """

    def __init__(
        self,
        *,
        registry: str | None = None,
        training: str | None = None,
        inference: str | None = None,
        home: Path | str | None = None,
        project: str = "default",
        tls: Tls | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Say where the services are; nothing is sent yet.

        Args:
            registry: `host:port`; the local platform's when left out.
            training: `host:port`; the local platform's when left out.
            inference: `host:port`; the local platform's when left out.
            home: where the local platform lives; ENXERTO_HOME or `~/.enxerto` when left out.
            project: the project of short names.
            tls: how to speak TLS; plain text when left out, as on loopback.
            timeout_s: deadline of one call, retries included; transfers and waits have longer ones of their own.
        """
        addresses = {"registry": registry, "training": training, "inference": inference}
        stubs = Stubs({name: address for name, address in addresses.items() if address}, home, tls)
        super().__init__(stubs, Names(project), timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._stubs.close()
