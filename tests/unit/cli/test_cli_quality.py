"""`enxerto quality`, `feedback` and `samples`."""

import json
from pathlib import Path

import pytest

from enxerto.inference.v1 import quality_pb2, quality_service_pb2
from fakes.scripted_services import ScriptedServices

VERSION = "projects/default/models/m/versions/2"
PETS = "projects/default/deployments/pets"


def test_quality_is_one_line_for_each_version(command, scripted: ScriptedServices) -> None:
    answer = quality_pb2.DeploymentQuality(deployment=PETS, sample_count=1, sample_size_bytes=2000)
    seen = answer.versions.add(
        model_version=VERSION, observed_image_count=9, embedding_drift=1.5, held_out_drift=0.25, drifted=True
    )
    seen.class_shares.add(label="cat", share=0.75)
    answer.accuracies.add(model_version=VERSION, feedback_count=4, accuracy=0.75)
    scripted.on("GetDeploymentQuality", answer)
    assert command("quality", "pets", "--days", "1").stdout.splitlines() == [
        "m@2: 9 images observed; cat 75.0 %; drift 1.50, held-out images 0.25  DRIFTED",
        "m@2: right in 75.0 % of 4 answers with feedback",
        "1 images are kept for labelling, 2,000 bytes",
    ]
    assert scripted.requests("GetDeploymentQuality")[0].window.seconds == 86_400
    assert json.loads(command("quality", "pets", "--json").stdout)["versions"][0]["drifted"] is True
    scripted.on("GetDeploymentQuality", quality_pb2.DeploymentQuality(deployment=PETS))
    assert command("quality", "pets").stdout.strip() == "Nothing was observed yet."


@pytest.mark.parametrize(
    "arguments",
    [
        ("quality", "pets", "--days", "inf"),
        ("quality", "pets", "--days", "nan"),
        ("feedback", "pets", "abc", "cat", "--image", "99999999999"),
        ("samples", "keep", "pets", "--most", "1", "--max-bytes", "99999999999999999999"),
        ("recommend", "flowers@1", "--max-images", "99999999999"),
        ("runs", "watch", "r1", "--after-cursor", "99999999999999999999"),
        ("datasets", "import", "pets", "s3://bucket/pets", "--seed", "99999999999999999999"),
    ],
)
def test_a_number_out_of_all_bounds_is_wrong_usage(command, arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_feedback_says_whether_the_answer_was_right(command, scripted: ScriptedServices) -> None:
    scripted.on("SubmitFeedback", quality_service_pb2.SubmitFeedbackResponse(correct_count=1))
    assert command("feedback", "pets", "abc", "cat", "--image", "2").stdout.strip() == "stored; the answer was right"
    (said,) = scripted.requests("SubmitFeedback")[0].feedback
    assert (said.prediction_id, said.label, said.image_index) == ("abc", "cat", 2)


def test_samples_are_kept_listed_and_fetched(command, scripted: ScriptedServices, tmp_path: Path) -> None:
    scripted.on("UpdateSamplingPolicy", lambda request, _context: request.policy)
    done = command("samples", "keep", "pets", "--most", "5", "--uncertain-below", "0.5", "--max-bytes", "9000")
    assert done.stdout.strip() == "pets keeps at most 5 images and 9,000 bytes"
    assert command("samples", "keep", "pets", "--most", "0").stdout.strip() == "pets keeps nothing"
    page = quality_service_pb2.ListSamplesResponse()
    page.samples.add(name=f"{PETS}/samples/s1", predicted_label="cat", reason=quality_pb2.Sample.REASON_UNCERTAIN)
    scripted.on("ListSamples", page)
    scripted.on("DownloadSample", quality_service_pb2.DownloadSampleResponse(content=b"BM"))
    assert "UNCERTAIN" in command("samples", "list", "pets").stdout
    done = command("samples", "download", "pets", str(tmp_path / "kept"))
    assert done.stdout.strip() == f"1 images are in {tmp_path / 'kept'}"
    assert (tmp_path / "kept" / "unlabelled" / "cat" / "s1.bmp").read_bytes() == b"BM"
