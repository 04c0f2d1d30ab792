"""Request ids, remembered in the transaction that creates the resource."""

from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from enxerto.kernel.errors import AlreadyExistsError
from enxerto.training.adapters.tables import requests
from enxerto.training.errors import RequestIdReusedError
from enxerto.training.ports import Idempotency


async def find(connection: AsyncConnection, scope: str, request: Idempotency | None) -> str | None:
    """Name of the resource that this request has created before.

    Raises:
        RequestIdReusedError: the id was used for another content.
    """
    if request is None:
        return None
    query = select(requests.c.fingerprint, requests.c.resource).where(
        requests.c.scope == scope, requests.c.request_id == request.request_id
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != request.fingerprint:
        raise RequestIdReusedError(request.request_id)
    return str(row.resource)


async def find_or_free(
    connection: AsyncConnection, scope: str, request: Idempotency | None, taken: Select[Any], error: AlreadyExistsError
) -> str | None:
    """Name of the resource that this request has created before; None where the request may create its own.

    Args:
        connection: with the transaction that creates.
        scope: of the request's id.
        request: that creates, if it can be repeated.
        taken: finds a resource of the same name.
        error: raised when another request has taken the name.

    Raises:
        RequestIdReusedError: see `find`.
    """
    # First the name: who took it with this request in between is found by the request.
    other = (await connection.execute(taken)).one_or_none()
    existing = await find(connection, scope, request)
    if existing is None and other is not None:
        raise error
    return existing


async def remember(connection: AsyncConnection, scope: str, request: Idempotency | None, resource: object) -> None:
    """Note what the request has created."""
    if request is not None:
        await connection.execute(
            insert(requests).values(
                scope=scope, request_id=request.request_id, fingerprint=request.fingerprint, resource=str(resource)
            )
        )
