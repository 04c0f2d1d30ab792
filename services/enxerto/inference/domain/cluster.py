"""What runs in the cluster."""

import enum
from dataclasses import dataclass

from enxerto.inference.domain.specs import Device, Scale
from enxerto.kernel.names import DeploymentName, VersionName


@dataclass(frozen=True, slots=True)
class Application:
    """One version of one deployment, as the cluster runs it."""

    deployment: DeploymentName
    version: VersionName
    scale: Scale
    device: Device = Device.CPU
    shared: bool = False
    """Whether the pool answers for it, on as many of its replicas as the scale says."""
    pinned: bool = False
    """Whether the pool keeps its model in memory."""

    @property
    def name(self) -> str:
        """Unique in the cluster; ids hold no dots, so it is unambiguous."""
        version, deployment = self.version, self.deployment
        return f"{deployment.project}.{deployment.deployment}.{version.project}.{version.model}.v{version.number}"


@dataclass(frozen=True, slots=True)
class Pool:
    """The replicas that answer for all shared deployments."""

    scale: Scale

    @property
    def name(self) -> str:
        """Unique in the cluster: without a dot it is no deployment's."""
        return "pool"


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full a replica of the pool is."""

    models: int
    held_bytes: int
    """What the models take, as measured when each was loaded."""
    budget_bytes: int
    loads: int
    """Since the replica started."""
    evictions: int
    """Models that made room for others, since the replica started."""
    waiting: int
    """Calls that wait for a model."""


class ApplicationState(enum.StrEnum):
    """How an application fares."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    STOPPING = "STOPPING"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a replica listens."""

    address: str
    """`host:port`."""
    application: str
    """The application that it must belong to: an address may pass to another one."""
    counted: bool = False
    """Whether the cluster counts its calls to decide how many replicas there are, and so has to see them."""


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """What the cluster says of an application."""

    state: ApplicationState
    endpoints: tuple[Endpoint, ...] = ()
    message: str = ""
    """Why it failed, for people."""
    running: int = 0
    """Replicas that are up; through Serve's proxy there are fewer endpoints than replicas."""
    known: bool = True
    """False while the cluster takes over a change and does not say which replicas there are; they go on answering."""
