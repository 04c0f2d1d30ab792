"""Failures as messages for people, JSON for machines, and exit codes."""

import json
import sys
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_NOT_FOUND = 4
EXIT_AWAY = 5
EXIT_INTERRUPTED = 130

_EXIT_CODES = {
    "INVALID_ARGUMENT": EXIT_REFUSED,
    "ALREADY_EXISTS": EXIT_REFUSED,
    "FAILED_PRECONDITION": EXIT_REFUSED,
    "ABORTED": EXIT_REFUSED,
    "RESOURCE_EXHAUSTED": EXIT_REFUSED,
    "UNAUTHENTICATED": EXIT_REFUSED,
    "PERMISSION_DENIED": EXIT_REFUSED,
    "NOT_FOUND": EXIT_NOT_FOUND,
    "UNAVAILABLE": EXIT_AWAY,
    "DEADLINE_EXCEEDED": EXIT_AWAY,
}
_SHOWN_FINDINGS = 20


def fail(error: Exception, *, as_json: bool) -> int:
    """Tell a failure on stderr and return the exit code."""
    import typer

    from enxerto.client import DeploymentFailedError, EnxertoError, ImportFailedError, TrainingFailedError
    from enxerto.local.errors import LocalError

    # typer shows only the leaves of this hierarchy in public.
    usage_error: Any = typer.BadParameter.__mro__[1]
    if isinstance(error, typer.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, usage_error) and not as_json:
        error.show()
        return EXIT_USAGE
    document: dict[str, Any] = {"code": "FAILED", "reason": "FAILED", "message": str(error)}
    exit_code = EXIT_FAILED
    if isinstance(error, EnxertoError):
        document = _service_failure(error)
        # The code of a run says why that ended, which is not how the command's own calls ended.
        ended = isinstance(error, ImportFailedError | TrainingFailedError | DeploymentFailedError)
        exit_code = EXIT_FAILED if ended else _EXIT_CODES.get(error.code, EXIT_FAILED)
    elif isinstance(error, LocalError):
        document = {"code": "LOCAL", "reason": error.reason, "message": str(error)}
    elif isinstance(error, usage_error):
        document = {"code": "USAGE", "reason": "USAGE", "message": error.format_message()}
        exit_code = EXIT_USAGE
    elif isinstance(error, OSError):
        document = {"code": "LOCAL", "reason": "OS_ERROR", "message": str(error)}
    else:
        # A fault of our own: its stack is what a report needs.
        raise error
    _print(document, as_json)
    return exit_code


def _service_failure(error: Any) -> dict[str, Any]:
    from enxerto.cli.session import to_json
    from enxerto.client import ImportFailedError

    document = {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "violations": to_json(error.violations),
        "metadata": error.metadata,
        "request_id": error.request_id,
    }
    if isinstance(error, ImportFailedError):
        document |= {"findings": to_json(error.findings), "finding_count": error.finding_count}
    return document


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": document}, ensure_ascii=False), file=sys.stderr)
        return
    lines = [f"error: {document['message']}"]
    lines += [f"  {item['field']}: {item['description']}" for item in document.get("violations", ())]
    findings = document.get("findings", ())
    lines += [f"  {item['severity']} {item['path']}: {item['message']}" for item in findings[:_SHOWN_FINDINGS]]
    if (rest := document.get("finding_count", 0) - _SHOWN_FINDINGS) > 0:
        lines.append(f"  and {rest} more; --json lists them")
    if document.get("request_id"):
        lines.append(f"  request id {document['request_id']}")
    print("\n".join(lines), file=sys.stderr)
