"""Our contract is Triton's on the wire: every message, field and RPC that we declare is theirs."""

import json
import subprocess
import sys

from google.protobuf import descriptor_pb2

from enxerto.inference.oip import open_inference_pb2 as ours
from enxerto.inference.oip.servicer import OpenInferenceServicer

# A program of its own: both register the same messages.
THEIRS = """
import json
from google.protobuf import descriptor_pb2, json_format
from tritonclient.grpc import model_config_pb2, service_pb2
files = []
for module in (model_config_pb2, service_pb2):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    files.append(json_format.MessageToDict(file))
print(json.dumps(files))
"""
# What Triton has and is never set here.
LEFT_OUT = {
    "ModelConfig": {
        "batch_input", "batch_output", "optimization", "sequence_batching", "ensemble_scheduling", "instance_group",
        "default_model_filename", "cc_model_filenames", "metric_tags", "model_warmup", "model_operations",
        "model_repository_agents",
    },
    "ModelInput": {"reshape", "is_shape_tensor", "allow_ragged_batch", "optional"},
    "ModelOutput": {"reshape", "is_shape_tensor"},
    "ModelVersionPolicy": {"latest", "all"},
    "ModelDynamicBatching": {
        "preserve_ordering", "priority_levels", "default_priority_level", "default_queue_policy",
        "priority_queue_policy",
    },
}  # fmt: skip


def theirs() -> list[descriptor_pb2.FileDescriptorProto]:
    done = subprocess.run([sys.executable, "-c", THEIRS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    from google.protobuf import json_format

    return [json_format.ParseDict(file, descriptor_pb2.FileDescriptorProto()) for file in json.loads(done.stdout)]


def messages(prefix: str, found: list[descriptor_pb2.DescriptorProto]) -> dict[str, descriptor_pb2.DescriptorProto]:
    flat = {}
    for one in found:
        flat[prefix + one.name] = one
        flat |= messages(f"{prefix}{one.name}.", list(one.nested_type))
    return flat


def field(one: descriptor_pb2.FieldDescriptorProto) -> tuple[object, ...]:
    return one.number, one.type, one.label, one.type_name


def test_every_rpc_is_answered() -> None:
    for method in ours.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert method.name in vars(OpenInferenceServicer), method.name


def test_messages_fields_and_rpcs_are_tritons() -> None:
    own = descriptor_pb2.FileDescriptorProto()
    ours.DESCRIPTOR.CopyToProto(own)
    files = theirs()
    expected = messages("", [message for file in files for message in file.message_type])
    found = messages("", list(own.message_type))
    assert len(found) > 60
    for name, message in found.items():
        mine = {one.name: field(one) for one in message.field}
        wanted = {one.name: field(one) for one in expected[name].field if one.name not in LEFT_OUT.get(name, set())}
        assert mine == wanted, name
    methods = [
        [(one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming) for one in service]
        for service in (own.service[0].method, files[1].service[0].method)
    ]
    assert sorted(methods[0]) == sorted(methods[1])
    enums = {enum.name: enum for file in files for enum in file.enum_type}
    for enum in own.enum_type:
        assert [(one.name, one.number) for one in enum.value] == [
            (one.name, one.number) for one in enums[enum.name].value
        ]
