"""Everything that an unmodified tritonclient can ask of a front. A program of its own: tritonclient and the contracts
of this project register the same messages, so that one process cannot hold both.

    python triton_everything.py HOST:PORT IMAGE

Prints JSON.
"""

import asyncio
import json
import queue
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import tritonclient
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

# What newer setuptools have no more, and tritonclient asks for: the one function of it that it calls.
old = types.ModuleType("pkg_resources")
old.resource_filename = (
    lambda package, name: str(  # type: ignore[attr-defined]
        Path(tritonclient.__path__[0]).joinpath(*package.split(".")[1:], name)
    )
)
sys.modules.setdefault("pkg_resources", old)
from tritonclient.utils import shared_memory  # noqa: E402

address, image_file = sys.argv[1:]
image = Path(image_file).read_bytes()
pixels = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)


def given(values: np.ndarray, datatype: str) -> list[triton.InferInput]:
    tensor = triton.InferInput("images", values.shape, datatype)
    tensor.set_data_from_numpy(values)
    return [tensor]


def refused(call: object, *arguments: object, **options: object) -> tuple[str, str]:
    try:
        call(*arguments, **options)  # type: ignore[operator]
    except InferenceServerException as error:
        return error.status() or "", error.message()
    return "", "answered"


def streamed(client: triton.InferenceServerClient) -> list[object]:
    """Ids of good requests, and the error of the one between them."""
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(3):
        values = given(pixels, "FP32") if index != 1 else given(np.full_like(pixels, np.nan), "FP32")
        client.async_stream_infer("class", values, request_id=f"id-{index}")
    seen = []
    for _ in range(3):
        result, error = answers.get(timeout=30)
        seen.append(str(error) if error else result.get_response().id)  # type: ignore[attr-defined]
    client.stop_stream()
    return seen


async def asynchronous() -> tuple[list[object], list[str]]:
    async with triton_aio.InferenceServerClient(address) as client:
        single = (await client.infer("class", given(pixels, "FP32"))).as_numpy("probabilities").tolist()

        async def requests() -> AsyncIterator[dict[str, object]]:
            for index in range(4):
                yield {"model_name": "class", "inputs": given(pixels, "FP32"), "request_id": str(index)}

        ids = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            ids.append(result.get_response().id)
        return single, ids


def through_shared_memory(client: triton.InferenceServerClient) -> dict[str, object]:
    inside = shared_memory.create_shared_memory_region("in", "/enxerto_test_in", pixels.nbytes)
    outside = shared_memory.create_shared_memory_region("out", "/enxerto_test_out", 2 * 4 * 4)
    try:
        shared_memory.set_shared_memory_region(inside, [pixels])
        client.register_system_shared_memory("in", "/enxerto_test_in", pixels.nbytes)
        client.register_system_shared_memory("out", "/enxerto_test_out", 2 * 4 * 4)
        tensor = triton.InferInput("images", pixels.shape, "FP32")
        tensor.set_shared_memory("in", pixels.nbytes)
        wanted = triton.InferRequestedOutput("probabilities")
        wanted.set_shared_memory("out", 2 * 4 * 4)
        answer = client.infer("class", [tensor], outputs=[wanted])
        output = answer.get_output("probabilities")
        values = shared_memory.get_contents_as_numpy(outside, np.float32, list(output.shape)).tolist()
        status = sorted(client.get_system_shared_memory_status().regions)
        client.unregister_system_shared_memory()
        left = len(client.get_system_shared_memory_status().regions)
        return {"values": values, "regions": status, "left": left}
    finally:
        shared_memory.destroy_shared_memory_region(inside)
        shared_memory.destroy_shared_memory_region(outside)


with triton.InferenceServerClient(address) as client:
    best = client.infer(
        "class", given(pixels, "FP32"), outputs=[triton.InferRequestedOutput("probabilities", class_count=2)]
    )
    single, stream_ids = asyncio.run(asynchronous())
    print(
        json.dumps(
            {
                "live": client.is_server_live() and client.is_server_ready() and client.is_model_ready("class"),
                "by_alias": client.is_model_ready("class", "production"),
                "missing": client.is_model_ready("missing"),
                "extensions": list(client.get_server_metadata().extensions),
                "tensor": client.infer("class", given(pixels, "FP32")).as_numpy("probabilities").tolist(),
                "half": client.infer("class", given(pixels.astype(np.float16), "FP16"))
                .as_numpy("probabilities")
                .tolist(),
                "encoded": client.infer("class", given(np.array([image], np.object_), "BYTES"), priority=1)
                .as_numpy("probabilities")
                .shape,
                "best": [[text.decode() for text in row] for row in best.as_numpy("probabilities")],
                "aio": single,
                "aio_stream": stream_ids,
                "stream": streamed(client),
                "shared": through_shared_memory(client),
                "config": client.get_model_config("class", as_json=True)["config"],
                "statistics": client.get_inference_statistics("class", as_json=True)["model_stats"],
                "index": client.get_model_repository_index(as_json=True)["models"],
                "load": refused(client.load_model, "class"),
                "load_missing": refused(client.load_model, "missing"),
                "unload": refused(client.unload_model, "class"),
                "cuda": refused(client.register_cuda_shared_memory, "x", b"aGFuZGxl", 0, 4),
                "trace": refused(client.get_trace_settings),
                "log": refused(client.get_log_settings),
                "version": refused(client.infer, "class", given(pixels, "FP32"), model_version="9"),
            }
        )
    )
