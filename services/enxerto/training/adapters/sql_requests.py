"""Request ids, remembered in the transaction that creates the resource."""

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

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


async def remember(connection: AsyncConnection, scope: str, request: Idempotency | None, resource: object) -> None:
    """Note what the request has created."""
    if request is not None:
        await connection.execute(
            insert(requests).values(
                scope=scope, request_id=request.request_id, fingerprint=request.fingerprint, resource=str(resource)
            )
        )
