"""The two sides of the serving benchmarks: ONNX Runtime in a loop, and a deployment with what is asked of it."""

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory

import grpc
import numpy as np
import onnxruntime as ort
from PIL import Image, ImageFilter

from benchmark_models import THREADS
from enxerto.inference.oip import open_inference_pb2, open_inference_pb2_grpc
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from enxerto.vision.contracts import INPUT_NAME
from enxerto.vision.images import load, to_batch
from enxerto.vision.onnx.session import OnnxModel, choose_providers
from fakes.tiny_onnx import PROJECT, RegistryWriter, TinyModel
from platforms import Platform

BATCHES = (1, 4, 8, 16)


def photo() -> bytes:
    """A JPEG of 640x480 with the detail of a photograph."""
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Plain:
    """ONNX Runtime in a loop: its own defaults, with as many threads as a replica has."""

    def __init__(self, model: bytes, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        providers = list(choose_providers(ort.get_available_providers(), device))
        self._session = ort.InferenceSession(model, options, providers=providers)
        self._pool = ThreadPoolExecutor(THREADS)
        self.spec = OnnxModel(model).card.preprocess

    def tensors(self, tensor: np.ndarray, batch: int) -> None:
        self._run(np.repeat(tensor, batch, axis=0))

    def jpegs(self, jpeg: bytes, batch: int) -> None:
        self._run(to_batch(list(self._pool.map(lambda data: load(data, self.spec), [jpeg] * batch))))

    def _run(self, images: np.ndarray) -> None:
        self._session.run(None, {INPUT_NAME: images})

    def best_batch(self, tensor: np.ndarray) -> int:
        """The batch size of the highest throughput."""

        def seconds(batch: int) -> float:
            self.tensors(tensor, batch)
            start = time.perf_counter()
            for _ in range(3):
                self.tensors(tensor, batch)
            return (time.perf_counter() - start) / batch

        return min(BATCHES, key=seconds)


def deploy(platform: Platform, model: bytes, device: str) -> str:
    """Register and deploy; the deployment's name once it is ready."""
    classifier = OnnxModel(model)
    registry = RegistryWriter(platform.address("registry"))
    tiny = TinyModel(labels=classifier.card.labels.names, size=classifier.card.preprocess.height)
    version = registry.add_version(registry.create_model("bench"), tiny, data=model, outputs=classifier.card.outputs)
    registry.close()
    with grpc.insecure_channel(platform.address("inference")) as channel:
        stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        deployment = stub.CreateDeployment(
            deployment_service_pb2.CreateDeploymentRequest(
                parent=PROJECT,
                deployment_id="bench",
                deployment=deployment_pb2.Deployment(
                    model_version=version, device=deployment_pb2.Deployment.Device.Value(f"DEVICE_{device.upper()}")
                ),
            )
        )
        while deployment.state != deployment_pb2.Deployment.STATE_READY:
            assert deployment.state == deployment_pb2.Deployment.STATE_DEPLOYING, deployment
            time.sleep(0.2)
            deployment = stub.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=deployment.name))
    return str(deployment.name)


@contextmanager
def shared(platform: Platform, tensor: np.ndarray) -> Iterator[str]:
    """The name of a region that the front knows, with the tensor in it."""
    region = SharedMemory(create=True, size=tensor.nbytes)
    try:
        np.ndarray(tensor.shape, tensor.dtype, region.buf)[:] = tensor
        with grpc.insecure_channel(platform.address("inference")) as channel:
            open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).SystemSharedMemoryRegister(
                open_inference_pb2.SystemSharedMemoryRegisterRequest(
                    name=region.name, key=f"/{region.name}", byte_size=tensor.nbytes
                )
            )
        yield region.name
    finally:
        region.close()
        region.unlink()


def infer_request(tensor: np.ndarray, region: str = "") -> open_inference_pb2.ModelInferRequest:
    """With the tensor, or with the name of the region that it is in."""
    given = open_inference_pb2.ModelInferRequest.InferInputTensor(name="images", datatype="FP32", shape=tensor.shape)
    if region:
        given.parameters["shared_memory_region"].string_param = region
        given.parameters["shared_memory_byte_size"].int64_param = tensor.nbytes
    contents = [] if region else [tensor.tobytes()]
    return open_inference_pb2.ModelInferRequest(model_name="bench", inputs=[given], raw_input_contents=contents)
