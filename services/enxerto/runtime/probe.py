"""Ask a gRPC server for its health: `python -m enxerto.runtime.probe HOST:PORT`; exit status 0 when it serves.

For container health checks, and for Kubernetes when the port speaks TLS, which its own gRPC probe does not.
"""

import argparse
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2


def is_serving(address: str, credentials: grpc.ChannelCredentials | None, server_name: str, timeout_s: float) -> bool:
    """Whether the server at `address` answers SERVING within `timeout_s` seconds.

    Args:
        address: host and port.
        credentials: None for plain text.
        server_name: the name to expect in the certificate; empty for the address's own.
        timeout_s: how long to wait, in seconds.

    Raises:
        grpc.RpcError: the server cannot be reached or has no health service.
    """
    options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    opened = (
        grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    )
    with opened as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="enxerto.runtime.probe", description="Ask a gRPC server for its health.")
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--authorities", type=Path, help="PEM file of the certificates to trust; the port speaks TLS")
    parser.add_argument("--certificate", type=Path, help="PEM certificate of this client, when asked for")
    parser.add_argument("--key", type=Path, help="PEM key of this client")
    parser.add_argument("--server-name", default="", help="name in the server's certificate")
    parser.add_argument("--timeout-s", type=float, default=3.0)
    chosen = parser.parse_args(arguments)
    credentials = None
    if chosen.authorities:
        credentials = grpc.ssl_channel_credentials(
            chosen.authorities.read_bytes(),
            chosen.key.read_bytes() if chosen.key else None,
            chosen.certificate.read_bytes() if chosen.certificate else None,
        )
    try:
        serving = is_serving(chosen.address, credentials, chosen.server_name, chosen.timeout_s)
    except grpc.RpcError as error:
        sys.stderr.write(f"{chosen.address}: {error}\n")
        return 1
    return 0 if serving else 1


if __name__ == "__main__":
    sys.exit(main())
