"""How far a shadow agrees with the version that callers are answered by."""

from dataclasses import dataclass, replace

from enxerto.kernel.names import VersionName


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found for two versions."""

    main: VersionName
    shadow: VersionName
    images: int = 0
    agreed: float = 0.0
    """Sum of the images' agreements, each in [0, 1]."""
    dropped: int = 0
    """Copies given up because too many waited."""
    failed: int = 0
    """Copies that the shadow did not answer."""

    @property
    def agreement(self) -> float:
        """Mean over the images, in [0, 1]; 0 when there are none."""
        return self.agreed / self.images if self.images else 0.0

    def add(self, other: "Comparison") -> "Comparison":
        """Both together; what was found for other versions takes the place of this."""
        if (other.main, other.shadow) != (self.main, self.shadow):
            return other
        return replace(
            self,
            images=self.images + other.images,
            agreed=self.agreed + other.agreed,
            dropped=self.dropped + other.dropped,
            failed=self.failed + other.failed,
        )
