"""The body of every service's `__main__`: settings, logging, event loop, exit code."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError

from enxerto.runtime import logs
from enxerto.runtime.errors import StartupError
from enxerto.runtime.settings import ServerSettings

S = TypeVar("S", bound=ServerSettings)

EXIT_FAILED = 1
EXIT_USAGE = 2


def run_service(service: str, settings_type: type[S], serve: Callable[[S], Awaitable[None]]) -> int:
    """Run a service until it is told to stop.

    Args:
        service: short name, for logs and messages.
        settings_type: read from the environment by its own rules.
        serve: runs the service; returns after the drain.

    Returns:
        The exit code: 0 after a drain, 1 when it failed, 2 when a setting is bad. What an operator can mend is told on
        stderr on one line each, without a stack.
    """
    try:
        settings = settings_type()
    except ValidationError as error:
        prefix = settings_type.model_config.get("env_prefix", "")
        for problem in error.errors():
            path = "_".join(str(part) for part in problem["loc"])
            sys.stderr.write(f"enxerto {service}: {(prefix + path).upper()}: {problem['msg']}\n")
        return EXIT_USAGE
    logs.configure_logging(service, settings.log_level)

    async def main() -> None:
        await serve(settings)

    try:
        asyncio.run(main())
    except StartupError as error:
        sys.stderr.write(f"enxerto {service}: {error}\n")
        return EXIT_FAILED
    except Exception:
        logging.getLogger(__name__).exception("stopped by an unforeseen error")
        return EXIT_FAILED
    return 0
