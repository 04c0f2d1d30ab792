import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from enxerto.vision.datasets.scanning import scan
from enxerto.vision.snapshots import FolderBlobs, Manifest, write_snapshot

IMAGES = 240


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, FolderBlobs]:
    """A snapshot of scanned digits, dark on a light margin."""
    root = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for index in range(IMAGES):
        pixels = np.pad(255 - (data.images[index] * 255 / 16).astype(np.uint8), 2, constant_values=255)
        file = root / "images" / f"digit_{data.target[index]}" / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    blobs = FolderBlobs(root / "blobs")
    manifest, _ = write_snapshot(scan(root / "images"), blobs)
    return manifest, blobs
