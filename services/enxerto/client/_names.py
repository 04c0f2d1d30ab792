"""Short names for people, full names on the wire."""

from pathlib import PurePath


class Names:
    """Completes short names within one project; what holds a slash is taken as it is, for the service to judge."""

    def __init__(self, project: str) -> None:
        self.project = f"projects/{project}"

    def _full(self, collection: str, text: str) -> str:
        return text if "/" in text else f"{self.project}/{collection}/{text}"

    def dataset(self, text: str) -> str:
        """`flowers` → `projects/default/datasets/flowers`."""
        return self._full("datasets", text)

    def run(self, text: str) -> str:
        """`r1` → `projects/default/trainingRuns/r1`."""
        return self._full("trainingRuns", text)

    def sweep(self, text: str) -> str:
        """`s1` → `projects/default/sweeps/s1`."""
        return self._full("sweeps", text)

    def model(self, text: str) -> str:
        """`flowers` → `projects/default/models/flowers`."""
        return self._full("models", text)

    def version(self, text: str) -> str:
        """`flowers@3` or `flowers@production` → `projects/default/models/flowers/versions/3`.

        A model alone means its alias `production`.
        """
        if "/" in text:
            return text
        model, _, version = text.partition("@")
        return f"{self.model(model)}/versions/{version or 'production'}"

    def deployment(self, text: str) -> str:
        """`flowers` → `projects/default/deployments/flowers`."""
        return self._full("deployments", text)

    @staticmethod
    def base_model(text: str) -> str:
        """`resnet18` → `baseModels/resnet18`."""
        return text if "/" in text else f"baseModels/{text}"


def short(name: str) -> str:
    """Last part of a full name; `model@3` for a version, `dataset@3` for a snapshot."""
    path = PurePath(name)
    if path.parent.name in ("versions", "snapshots"):
        return f"{path.parent.parent.name}@{path.name}"
    return path.name
