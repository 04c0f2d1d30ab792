"""Where the local platform keeps its files."""

import hashlib
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from enxerto.local.errors import LocalError
from enxerto.runtime.durable_files import settle

# Unix sockets have at most 107 bytes, of which Ray's `/session_…/sockets/plasma_store` takes up to 70.
_LONGEST_RAY_FOLDER = 107 - 70


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under ENXERTO_HOME."""

    home: Path

    def log(self, process: str) -> Path:
        """Log of a process."""
        return self.home / "logs" / f"{process}.log"

    def ready_file(self, process: str) -> Path:
        """Written by a service once it listens."""
        return self.home / "run" / f"{process}.ready.json"

    @property
    def lock(self) -> Path:
        """Held while the platform is started or stopped."""
        return self.home / "run" / "lock"

    @property
    def ray_token(self) -> Path:
        """Secret of Ray's own ports."""
        return self.home / "secrets" / "ray-token"

    @property
    def replica_secret(self) -> Path:
        """Secret between the front and the replicas."""
        return self.home / "secrets" / "replica-secret"

    @property
    def ray_folder(self) -> Path:
        """Ray's temporary folder: under home, or where the home's path is too long for sockets in the system's."""
        folder = self.home / "ray"
        if len(os.fsencode(folder)) <= _LONGEST_RAY_FOLDER:
            return folder
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"enxerto-{digest}"

    def prepare(self) -> None:
        """Make the folders and the secrets.

        Raises:
            LocalError: Ray's folder exists and belongs to somebody else.
        """
        for name in ("logs", "run", "registry", "training", "inference", "weights"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "secrets").mkdir(mode=0o700, exist_ok=True)
        for path in (self.ray_token, self.replica_secret):
            _write_secret(path)
        folder = self.ray_folder
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode):
            raise LocalError(f"{folder} belongs to somebody else; choose another `--home`")


def _write_secret(path: Path) -> None:
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    settle(partial, path)
