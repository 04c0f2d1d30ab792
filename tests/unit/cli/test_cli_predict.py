"""`enxerto predict` and `report`: each task's answer on the screen, as JSON, and in the picture."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, vision_pb2, vision_service_pb2
from enxerto.registry.v1 import model_version_pb2
from enxerto.training.v1 import training_run_pb2, training_service_pb2
from enxerto.type.v1 import task_pb2
from fakes.scripted_services import ScriptedServices

VERSION = "projects/default/models/m/versions/2"


def png(size: tuple[int, int] = (60, 40), mode: str = "RGB", value: Any = (255, 255, 255)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """White, 60 x 40, stored lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 60), (255, 255, 255)).save(path, exif=exif)
    return path


@pytest.fixture
def serve(scripted: ScriptedServices) -> Callable[[str, str, Any], None]:
    """Let the only deployment answer for a task."""

    def script(task: str, method: str, response: Any) -> None:
        deployment = deployment_pb2.Deployment(name="projects/default/deployments/d", serving_version=VERSION)
        scripted.on("ListDeployments", deployment_service_pb2.ListDeploymentsResponse(deployments=[deployment]))
        scripted.on("GetDeployment", deployment)
        version = model_version_pb2.ModelVersion(name=VERSION, task=task_pb2.Task.Value(f"TASK_{task}"))
        scripted.on("GetModelVersion", version)
        response.model_version = VERSION
        scripted.on(method, response)

    return script


def test_the_only_deployment_says_what_it_is(command, serve, photo: Path, tmp_path: Path) -> None:
    response = vision_service_pb2.ClassifyResponse()
    response.results.add(
        categories=[vision_pb2.Category(label="rose", probability=0.75), vision_pb2.Category(label="tulip", index=1)]
    )
    serve("CLASSIFICATION", "Classify", response)
    assert command("predict", str(photo)).stdout.strip() == f"{photo}: rose 75.0 %, tulip 0.0 %   (m@2)"
    (first,) = json.loads(command("predict", str(photo), "--json").stdout)["predictions"]
    assert (first["image"], first["answer"]["label"], first["answer"]["probability"]) == (str(photo), "rose", 0.75)
    assert command("predict", str(tmp_path / "none.jpg")).returncode == 2


def test_embeddings_are_shown_printed_and_saved(command, serve, photo: Path, tmp_path: Path) -> None:
    response = vision_service_pb2.EmbedResponse(dimension=5)
    response.results.add(values=[0.5, 1, -2, 0, 7])
    serve("CLASSIFICATION", "Embed", response)
    assert command("embed", str(photo)).stdout.strip() == f"{photo}: 5 numbers, 0.5, 1, -2, 0, ...   (m@2)"
    saved = tmp_path / "all.npz"
    answer = json.loads(command("embed", str(photo), "--save", str(saved), "--json").stdout)
    assert answer["embeddings"] == [{"image": str(photo), "embedding": [0.5, 1, -2, 0, 7]}]
    kept = np.load(saved)
    assert kept["images"].tolist() == [str(photo)]
    np.testing.assert_array_equal(kept["embeddings"], np.array([[0.5, 1, -2, 0, 7]], np.float32))
    answer = json.loads(command("embed", str(photo), "--save", str(tmp_path / "all"), "--json").stdout)
    assert np.load(answer["saved"])["images"].tolist() == [str(photo)]


def test_objects_are_listed_and_drawn_where_people_see_them(
    command, serve, scripted: ScriptedServices, photo: Path, tmp_path: Path
) -> None:
    response = vision_service_pb2.DetectResponse()
    box = vision_pb2.Box(x_min=10, y_min=5, x_max=50, y_max=30)
    response.results.add().objects.add(label="car", score=0.9, box=box)
    serve("DETECTION", "Detect", response)
    done = command("predict", str(photo), "--deployment", "d", "--threshold", "0.25", "--save", str(tmp_path / "out"))
    assert done.stdout.startswith(f"{photo}: car 90.0 % at 10,5 to 50,30, see ")
    assert scripted.requests("Detect")[0].score_threshold == 0.25
    drawn = np.asarray(Image.open(tmp_path / "out" / "photo.detection.png"))
    assert drawn.shape == (40, 60, 3)
    assert drawn[25, 10].tolist() == drawn[30, 40].tolist() != [255, 255, 255]
    assert drawn[25, 30].tolist() == [255, 255, 255]


def test_masks_are_measured_and_tint_the_picture(command, serve, photo: Path, tmp_path: Path) -> None:
    mask = Image.new("L", (60, 40), 0)
    mask.paste(1, (30, 20, 60, 40))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    response = vision_service_pb2.SegmentResponse()
    result = response.results.add(width=60, height=40, png=buffer.getvalue())
    result.segments.add(label="ground", index=0, pixel_count=1800)
    result.segments.add(label="road", index=1, pixel_count=600)
    serve("SEGMENTATION", "Segment", response)
    done = command("predict", str(photo), "--save", str(tmp_path), "--json")
    (row,) = json.loads(done.stdout)["predictions"]
    assert [one["label"] for one in row["answer"]["segments"]] == ["ground", "road"]
    assert "png" not in row["answer"]
    drawn = np.asarray(Image.open(row["saved"]))
    assert drawn[38, 5].tolist() == [255, 255, 255]
    assert drawn[38, 55].tolist() != [255, 255, 255]
    assert "ground 75.0 %, road 25.0 %" in command("predict", str(photo)).stdout


def test_paintings_are_saved_and_names_do_not_collide(command, serve, photo: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / "photo.png"
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    response = vision_service_pb2.StylizeResponse()
    response.results.add(content=png(value=(1, 2, 3)), media_type="image/png", width=60, height=40)
    serve("STYLE", "Stylize", response)
    done = command("predict", str(photo), str(twin), "--save", str(tmp_path / "out"))
    assert "painted, 60 x 40" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo-1.style.png", "photo.style.png"]


def test_without_or_with_many_deployments_one_must_be_named(command, scripted: ScriptedServices, photo: Path) -> None:
    scripted.on("ListDeployments", deployment_service_pb2.ListDeploymentsResponse())
    done = command("predict", str(photo))
    assert done.returncode == 2
    assert "there is none" in done.stderr


def test_the_report_of_a_run_without_a_version_is_its_own_file(
    command, scripted: ScriptedServices, tmp_path: Path
) -> None:
    run = training_run_pb2.TrainingRun(name="projects/default/trainingRuns/r1")
    run.files.add(name=f"{run.name}/files/report.html", size_bytes=6)
    scripted.on("GetTrainingRun", run)
    chunk = training_service_pb2.DownloadRunFileResponse(chunk=b"<html>")
    scripted.on("DownloadRunFile", lambda _request, _context: iter([chunk]))
    done = command("report", "r1", "--save", str(tmp_path / "out"))
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "report.html").read_bytes() == b"<html>"
    del run.files[:]
    assert command("report", "r1", "--save", str(tmp_path)).returncode == 4
