"""Settings that every service has. A service's own settings subclass these with its `env_prefix`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

SECRETS_FOLDER_VARIABLE = "ENXERTO_SECRETS_FOLDER"
"""Names a folder with one file per setting, such as `enxerto_registry_database_url`: how containers get secrets."""

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)]


class ServerSettings(BaseSettings):
    """Where and how a process listens. Frozen; unknown names in a settings file are refused."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Address of the gRPC port. Loopback by default: opening it to a network is a decision."""
    port: int = Field(default=0, ge=0, le=65535)
    """gRPC port; 0 takes a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of the Prometheus port."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Prometheus port; 0 takes a free one."""
    ready_file: Path | None = None
    """Where to write `{"port": …, "metrics_port": …}` once the service listens; for supervisors and tests."""
    max_message_bytes: int = Field(default=32 * 2**20, ge=2**20, le=2**31 - 1)
    """Largest message accepted; a larger one is RESOURCE_EXHAUSTED."""
    max_concurrent_rpcs: int = Field(default=1000, ge=1)
    """Calls served at once; more are RESOURCE_EXHAUSTED."""
    drain_s: float = Field(default=20.0, ge=0)
    """How long running calls may go on after SIGTERM, in seconds."""
    tls_certificate: Path | None = None
    """PEM certificate chain; with `tls_key`, the port speaks TLS."""
    tls_key: Path | None = None
    """PEM private key."""
    tls_client_ca: Path | None = None
    """PEM authorities; when set, clients must present a certificate signed by one of them."""
    log_level: LogLevel = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the files of the secrets folder, when one is named, behind the environment."""
        folder = os.environ.get(SECRETS_FOLDER_VARIABLE)
        files = SecretsSettingsSource(settings_cls, secrets_dir=folder) if folder else file_secret_settings
        return init_settings, env_settings, dotenv_settings, files
