import json

import pytest

from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2
from enxerto.registry.v1 import model_version_pb2
from fakes.scripted_services import ScriptedServices

VERSION = "projects/default/models/m/versions/2"
CANDIDATE = "projects/default/models/m/versions/candidate"


def split() -> deployment_pb2.Deployment:
    """Version 2, with a candidate that does not come up and a shadow that was compared."""
    deployment = deployment_pb2.Deployment(
        name="projects/default/deployments/d",
        state=deployment_pb2.Deployment.STATE_READY,
        serving_version=VERSION,
        target_version=VERSION,
    )
    deployment.traffic.add(model_version=CANDIDATE, percent=10).error.message = "no luck"
    deployment.shadow.model_version, deployment.shadow.percent = "projects/default/models/m/versions/3", 50
    deployment.shadow.serving_version = deployment.shadow.model_version
    deployment.shadow.comparison.image_count, deployment.shadow.comparison.agreement = 40, 0.975
    return deployment


def test_what_a_deployment_does_is_said_in_words(command, scripted: ScriptedServices) -> None:
    responses = [deployment_service_pb2.WatchDeploymentResponse(deployment=split(), cursor=1)]
    scripted.on("WatchDeployment", lambda _request, _context: iter(responses))
    done = command("deployments", "watch", "d")
    assert done.stdout.splitlines() == [
        "d is READY and answers with m@2, 10 % with nothing yet; copies of 50 % go to m@3, "
        "which agrees on 97.5 % of 40 images",
        "  no luck",
    ]
    shown = json.loads(command("deployments", "watch", "d", "--json").stdout)
    assert (shown["traffic"][0]["percent"], shown["shadow"]["agreement"]) == (10, 0.975)


def test_options_become_fields(command, scripted: ScriptedServices) -> None:
    scripted.on("GetModelVersion", model_version_pb2.ModelVersion(name=VERSION))
    scripted.on("CreateDeployment", lambda request, _context: request.deployment)
    scripted.on("UpdateDeployment", lambda request, _context: request.deployment)
    options = ["--max-replicas", "3", "--traffic", "m@candidate=10", "--shadow", "m@3=50", "--batch-delay", "0.002"]
    done = command("deploy", "m@2", "--no-wait", "--device", "gpu", *options)
    assert done.returncode == 0, done.stderr
    made = scripted.requests("CreateDeployment")[0].deployment
    assert (made.model_version, made.traffic[0].model_version, made.traffic[0].percent) == (VERSION, CANDIDATE, 10)
    assert (made.shadow.percent, made.autoscaling.max_replicas) == (50, 3)
    assert (made.batching.max_delay.nanos, made.device) == (2_000_000, deployment_pb2.Deployment.DEVICE_GPU)
    command("deployments", "update", "d", "--traffic", "none", "--shadow", "none", "--max-replicas", "0")
    update = scripted.requests("UpdateDeployment")[0]
    assert set(update.update_mask.paths) == {"traffic", "shadow", "autoscaling"}
    assert not update.deployment.traffic
    command("deploy", "m@2", "--no-wait", "--shared", "--pinned")
    shared = scripted.requests("CreateDeployment")[1].deployment
    assert (shared.placement, shared.pinned) == (deployment_pb2.Deployment.PLACEMENT_SHARED, True)
    command("deployments", "update", "d", "--not-pinned")
    update = scripted.requests("UpdateDeployment")[1]
    assert (list(update.update_mask.paths), update.deployment.pinned) == (["pinned"], False)
    assert command("deployments", "update", "d").returncode == 2
    assert command("deployments", "update", "d", "--traffic", "m@candidate").returncode == 2


@pytest.mark.parametrize(
    "options",
    [
        ("--replicas", "99999999999"),
        ("--max-replicas", "2", "--upscale-delay", "inf"),
        ("--batch-delay", "nan"),
        ("--warm-up-batch-size", "99999999999"),
        ("--traffic", "m@2=99999999999"),
        ("--shadow", "m@2=99999999999"),
    ],
)
def test_a_number_that_no_field_takes_is_wrong_usage(command, options: tuple[str, ...]) -> None:
    for done in (command("deploy", "m@2", *options), command("deployments", "update", "d", *options)):
        assert done.returncode == 2
        assert "Error: Invalid value" in done.stderr


def test_batches_priorities_and_the_cache_are_options_too(command, scripted: ScriptedServices) -> None:
    scripted.on("GetModelVersion", model_version_pb2.ModelVersion(name=VERSION))
    scripted.on("CreateDeployment", lambda request, _context: request.deployment)
    scripted.on("UpdateDeployment", lambda request, _context: request.deployment)
    batches = "--preferred-batch-size 4 --preferred-batch-size 8 --warm-up-batch-size 1 --warm-up-batch-size 8"
    answers = "--default-priority 3 --response-cache 1000000"
    scale = "--max-replicas 4 --target-batches 1.5 --upscale-delay 5 --downscale-delay 60"
    done = command("deploy", "m@2", "--no-wait", *batches.split(), *answers.split(), *scale.split())
    assert done.returncode == 0, done.stderr
    made = scripted.requests("CreateDeployment")[0].deployment
    assert (list(made.batching.preferred_sizes), list(made.warm_up_batch_sizes)) == ([4, 8], [1, 8])
    assert not made.batching.max_size
    assert (made.default_priority, made.response_cache.max_bytes) == (3, 1_000_000)
    scaling = made.autoscaling
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_batches) == (1, 4, 1.5)
    assert (scaling.upscale_delay.seconds, scaling.downscale_delay.seconds) == (5, 60)

    changed = command("deployments", "update", "d", "--default-priority", "1", "--response-cache", "0")
    assert changed.returncode == 0, changed.stderr
    update = scripted.requests("UpdateDeployment")[0]
    assert set(update.update_mask.paths) == {"default_priority", "response_cache"}
    assert (update.deployment.default_priority, update.deployment.HasField("response_cache")) == (1, False)
    command("deployments", "update", "d", *batches.split())
    update = scripted.requests("UpdateDeployment")[1]
    assert set(update.update_mask.paths) == {"batching", "warm_up_batch_sizes"}

    assert command("deployments", "update", "d", "--upscale-delay", "5").returncode == 2
    assert command("deployments", "update", "d", "--upscale-delay", "5", "--max-replicas", "0").returncode == 2
    assert command("deployments", "update", "d", "--default-priority", "0").returncode == 2
