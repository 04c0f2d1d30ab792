"""A platform that was killed, as a whole or in part: after `up` it is there again, and runs go on."""

import io
import shutil
import signal
from pathlib import Path

import psutil
import pytest
from PIL import Image

from enxerto.client import EnxertoError, RunState
from enxerto.local import processes
from fakes.tiny_onnx import RegistryWriter, TinyModel
from platforms import Platform, running_platform
from training_stack import eventually

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("platform"), pytest.mark.timeout(600)]
EPOCHS = 6


def test_a_run_survives_a_restart_of_the_machine(digits_folder: Path) -> None:
    with running_platform() as platform:
        client, before = platform.client, platform.state
        snapshot = client.import_dataset("digits", digits_folder)
        run = client.train(
            snapshot,
            model="digits",
            strategy="fine-tune",
            unfreezing={"stages": 1},
            image_size=64,
            epochs=EPOCHS,
            stop={"early_stopping_patience": 0},
        )
        seen = []
        for event in client.watch(run):
            seen.append(event)
            kept = event.checkpoint
            if kept is not None and kept.phase == "fine-tuning" and kept.epoch >= 2:
                break
        platform.lose_power()
        assert [one.health for one in platform.supervisor.status()] == ["stopped"] * 4
        platform.start_missing()
        after = platform.state
        assert {name: one.address for name, one in after.processes.items()} == {
            name: one.address for name, one in before.processes.items()
        }
        seen += client.watch(run, after_cursor=seen[-1].cursor)
        ended = client.run(run.name)
        version = client.version(ended.model_version)
        again = list(client.watch(run))
    assert ended.state is RunState.SUCCEEDED
    assert (ended.restart_count, ended.stop_reason) == (1, "EPOCHS")
    assert (version.state, version.lineage.training_run) == ("READY", run.name)
    assert [event.cursor for event in seen] == list(range(1, len(seen) + 1))
    assert again == seen
    assert [event.state for event in seen if event.state] == [
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.REGISTERING,
        RunState.SUCCEEDED,
    ]
    epochs = [
        event.progress.epoch
        for event in seen
        if event.kind == "epoch" and event.progress is not None and event.progress.phase == "fine-tuning"
    ]
    # Those up to the checkpoint are done once; the one that was lost may be done again.
    assert all(epochs.count(epoch) == 1 for epoch in range(1, kept.epoch + 1))
    assert sorted(set(epochs)) == list(range(1, EPOCHS + 1))
    assert epochs.count(EPOCHS) == 1


def agents_of_ray(platform: Platform) -> list[psutil.Process]:
    return [one for one in processes.family(platform.state.instance) if "Agent" in " ".join(one.cmdline())]


@pytest.mark.parametrize("killed", [["ray"], ["registry", "training", "inference", "ray"]], ids=["ray", "everything"])
def test_agents_that_outlive_their_ray_keep_no_port_from_the_next(killed: list[str]) -> None:
    with running_platform() as platform:
        before, agents = platform.state, agents_of_ray(platform)
        assert len(agents) == 2
        for name in killed:
            platform.kill(name)
        assert all(agent.is_running() for agent in agents)
        platform.start_missing()
        assert not any(agent.is_running() for agent in agents)
        assert [one.health for one in platform.supervisor.status()] == ["serving"] * 4
        kept = {name for name, one in platform.state.processes.items() if one.pid == before.processes[name].pid}
        assert kept == set(before.processes) - set(killed)
        addresses = [{name: one.address for name, one in state.processes.items()} for state in (before, platform.state)]
        assert addresses[0] == addresses[1]


@pytest.mark.parametrize("fetched", [True, False], ids=["fetched-before", "not-on-this-machine"])
def test_what_serves_comes_back_with_ray_while_the_registry_is_away(fetched: bool) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG")
    with running_platform() as platform:
        client, registry = platform.client, RegistryWriter(platform.address("registry"))
        version = registry.add_version(registry.create_model("tiny"), TinyModel(1))
        registry.close()
        client.deploy("tiny", version)

        def answered() -> object | None:
            try:
                return client.classify("tiny", [file.getvalue()])
            except EnxertoError:
                return None

        assert answered()
        platform.signal("registry", signal.SIGSTOP)
        try:
            if not fetched:
                shutil.rmtree(platform.home / "inference" / "models")
            platform.kill("ray")
            platform.start_missing()
            if not fetched:
                # Serve gives up after three starts, and the front tells why.
                fault = eventually(lambda: client.deployment("tiny").error, 120, 0.5)
                assert "registry" in fault.message
                assert not answered()
                platform.signal("registry", signal.SIGCONT)
            assert eventually(answered, 120, 0.5)
            assert client.deployment("tiny").error is None
        finally:
            platform.signal("registry", signal.SIGCONT)
