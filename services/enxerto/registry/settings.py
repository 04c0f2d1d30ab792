"""Settings of the registry, from ENXERTO_REGISTRY_* variables."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from enxerto.runtime.settings import ServerSettings


class RegistrySettings(ServerSettings):
    """Where the registry keeps things, and its limits."""

    model_config = SettingsConfigDict(
        env_prefix="ENXERTO_REGISTRY_", frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )

    home: Path = Field(default=Path("~/.enxerto"), validation_alias="ENXERTO_HOME")
    """Folder of everything embedded; `ENXERTO_HOME`."""
    database_url: str = ""
    """`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…` (`?sslmode=verify-full` encrypts); empty keeps a SQLite file
    under `home`."""
    blob_url: str = Field(default="", pattern=r"^$|^(file|s3)://.+")
    """`file:///folder` or `s3://bucket/prefix`; empty keeps a folder under `home`."""
    s3_endpoint: str = ""
    """Endpoint of an S3-compatible store; empty uses AWS_* variables or AWS itself."""
    s3_region: str = ""
    """Region; empty uses AWS_* variables."""
    s3_access_key_id: str = ""
    """Access key; empty uses AWS_* variables or the machine's own role."""
    s3_secret_access_key: SecretStr = SecretStr("")
    """Secret of the access key."""
    max_blob_bytes: int = Field(default=16 * 2**30, ge=1)
    """Largest blob accepted."""
    min_free_bytes: int = Field(default=256 * 2**20, ge=0)
    """Room that an upload must leave free, where that is known."""
    stale_upload_s: float = Field(default=3600.0, ge=0)
    """Bytes that an interrupted process left half written are removed once they are this old, in seconds."""

    @property
    def effective_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite+aiosqlite:///{self.home.expanduser()}/registry/registry.db"

    @property
    def effective_blob_url(self) -> str:
        """The object store to use."""
        return self.blob_url or f"file://{self.home.expanduser()}/registry/objects"
