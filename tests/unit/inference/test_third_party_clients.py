"""Clients that others wrote, unmodified, each in a process of its own, against the front's own server."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from enxerto.vision.onnx.session import OnnxModel
from inference_front import MODELS, Front, running_front
from inference_images import GOOD

HERE = Path(__file__).parent
KSERVE_PYTHON = "ENXERTO_TEST_KSERVE_PYTHON"
"""An interpreter that has `kserve`, whose protobuf is older than the one that this project needs."""
PERF_LIBRARIES = "ENXERTO_TEST_PERF_ANALYZER_LIBRARIES"
"""Folders with libb64.so.0d and libcudart.so.12, which tritonclient's perf_analyzer is linked against."""


@pytest.fixture
async def front(tmp_path: Path):
    async with running_front(tmp_path, shared_memory=True) as front:
        yield front


async def run(*command: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, problems = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0, (out + problems).decode()
    return out.decode()


async def test_tritonclient(front: Front, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(GOOD["png"])
    said = json.loads(await run(sys.executable, str(HERE / "triton_everything.py"), front.address, str(image)))
    pixels = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    expected = OnnxModel(MODELS["class"].data).run(pixels)["probabilities"]
    assert (said["live"], said["by_alias"], said["missing"]) == (True, True, False)
    assert {"classification", "statistics", "system_shared_memory"} <= set(said["extensions"])
    for key in ("tensor", "aio"):
        np.testing.assert_allclose(said[key], expected, atol=1e-6)
    np.testing.assert_allclose(said["shared"]["values"], expected, atol=1e-6)
    np.testing.assert_allclose(said["half"], expected, atol=1e-3)
    assert said["encoded"] == [1, 4]
    labels = MODELS["class"].labels
    for row, scores in zip(said["best"], expected, strict=True):
        order = np.argsort(-scores, kind="stable")[:2]
        assert row == [f"{scores[index]:f}:{index}:{labels[index]}" for index in order]
    assert said["aio_stream"] == ["0", "1", "2", "3"]
    assert (said["stream"][0], said["stream"][2]) == ("id-0", "id-2")
    assert "not a finite number" in said["stream"][1]
    assert (said["shared"]["regions"], said["shared"]["left"]) == (["in", "out"], 0)
    assert (said["config"]["name"], said["config"]["max_batch_size"]) == ("class", 64)
    (statistics,) = said["statistics"]
    assert int(statistics["inference_count"]) >= 2 * 10
    assert int(statistics["inference_stats"]["compute_infer"]["ns"]) > 0
    assert [model["state"] for model in said["index"]] == ["READY"] * len(MODELS)
    assert said["load"] == ["", "answered"]
    codes = {
        key: said[key][0].removeprefix("StatusCode.") for key in ("load_missing", "unload", "cuda", "trace", "log")
    }
    assert codes == {
        "load_missing": "NOT_FOUND",
        "unload": "FAILED_PRECONDITION",
        "cuda": "UNIMPLEMENTED",
        "trace": "UNIMPLEMENTED",
        "log": "UNIMPLEMENTED",
    }
    assert "DeleteDeployment" in said["unload"][1]
    assert said["version"][0] == "StatusCode.NOT_FOUND"


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main():
    client = InferenceGRPCClient(url=sys.argv[1])
    pixels = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    answers = []
    for binary in (True, False):
        tensor = InferInput("images", list(pixels.shape), "FP32")
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        request = InferRequest(infer_inputs=[tensor], model_name="class", request_id="mine")
        answer = await client.infer(request)
        answers.append([answer.id, answer.outputs[0].as_numpy().tolist()])
    live, ready = await client.is_server_live(), await client.is_server_ready()
    print(json.dumps({"answers": answers, "up": [live, ready, await client.is_model_ready("class")]}))
    await client.close()

asyncio.run(main())
"""


async def test_kserves_client(front: Front, tmp_path: Path) -> None:
    python = os.environ.get(KSERVE_PYTHON)
    if not python:
        pytest.skip(f"{KSERVE_PYTHON} names no interpreter with kserve: KServe's client was NOT tried")
    program = tmp_path / "kserve_caller.py"
    program.write_text(KSERVE)
    said = json.loads((await run(python, str(program), front.address)).splitlines()[-1])
    pixels = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    expected = OnnxModel(MODELS["class"].data).run(pixels)["probabilities"]
    assert said["up"] == [True, True, True]
    for identity, values in said["answers"]:
        assert identity == "mine"
        np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("class", ("--sync",)),
        ("projects/default/deployments/class", ("--sync",)),
        ("class", ("--async", "--streaming")),
        ("class", ("--shared-memory", "system", "--output-shared-memory-size", "1024")),
    ],
    ids=["unary", "full-name", "stream", "shared-memory"],
)
async def test_perf_analyzer(front: Front, tmp_path: Path, name: str, extra: tuple[str, ...]) -> None:
    program = shutil.which("perf_analyzer", path=str(Path(sys.executable).parent))
    libraries = os.environ.get(PERF_LIBRARIES)
    if not program or not libraries:
        pytest.skip(f"{PERF_LIBRARIES} names no folders with its libraries: perf_analyzer was NOT tried")
    report = tmp_path / "report.csv"
    # Its random data are random bytes, and so not all of them finite numbers.
    model = ["-m", name, "-u", front.address, "-i", "grpc", "--input-data", "zero", "-b", "2", "-f", str(report)]
    bounds = ["--measurement-mode", "count_windows", "--measurement-request-count", "50", "-s", "999", "-r", "20"]
    await run(program, *model, *bounds, *extra, LD_LIBRARY_PATH=libraries)
    header, row = report.read_text().strip().splitlines()[:2]
    measured = dict(zip(header.split(","), row.split(","), strict=False))
    assert float(measured["Inferences/Second"]) > 0
    # It reads the server's own statistics.
    assert float(measured["Server Compute Infer"]) > 0
    assert max(front.replicas.batches) >= 2
