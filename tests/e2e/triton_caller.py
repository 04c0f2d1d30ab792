"""Asks a deployment through an unmodified tritonclient. A program of its own: tritonclient and the contracts of this
project register the same messages, so that one process cannot hold both.

    python triton_caller.py HOST:PORT MODEL BATCH.npy IMAGE…

Prints JSON: the probabilities for the tensor and for the encoded images.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tritonclient import grpc as triton

address, model, batch_file, *images = sys.argv[1:]
client = triton.InferenceServerClient(address)
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(model)


def infer(values: np.ndarray, datatype: str) -> list[list[float]]:
    tensor = triton.InferInput("images", values.shape, datatype)
    tensor.set_data_from_numpy(values)
    answer = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput("probabilities")])
    return answer.as_numpy("probabilities").tolist()


encoded = np.array([Path(image).read_bytes() for image in images], dtype=np.object_)
metadata = client.get_model_metadata(model, as_json=True)
print(
    json.dumps(
        {
            "server": client.get_server_metadata(as_json=True)["name"],
            "inputs": [(item["name"], item["datatype"]) for item in metadata["inputs"]],
            "tensor": infer(np.load(batch_file), "FP32"),
            "encoded": infer(encoded, "BYTES"),
        }
    )
)
client.close()
