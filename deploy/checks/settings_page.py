"""docs/settings.md: every setting of every service, read from the settings classes and their docstrings."""

import ast
import inspect
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from checks.settings_names import SETTINGS, variables
from enxerto.runtime.settings import SECRETS_FOLDER_VARIABLE, ServerSettings

_HEAD = f"""<!-- Made by deploy/check.py --write from the settings classes; never edited. -->
# Settings

Every setting is an environment variable. A value may also come from a file of that name in lower case, such as
`enxerto_registry_database_url`, in the folder that `{SECRETS_FOLDER_VARIABLE}` names; the environment wins. A process
refuses to start on a value that it cannot use. Object stores read the usual `AWS_*` variables besides.
"""


def descriptions(service: type[ServerSettings]) -> dict[str, str]:
    """The docstring below each field, those of base classes too: {field: text}."""
    found: dict[str, str] = {}
    for part in reversed(service.__mro__):
        if not issubclass(part, ServerSettings):
            continue
        (node,) = ast.parse(inspect.getsource(part)).body
        assert isinstance(node, ast.ClassDef)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is PydanticUndefined:
        return "**required**"
    value = field.default.get_secret_value() if hasattr(field.default, "get_secret_value") else field.default
    if value is None or value in ("", ()):
        return ""
    return f"`{value}`"


def settings_page() -> str:
    """The page's text."""
    lines = [_HEAD]
    for name, service in SETTINGS.items():
        texts = descriptions(service)
        lines += [f"## {name.capitalize()}", "", "| variable | default | |", "| --- | --- | --- |"]
        for variable, field in sorted(
            variables(service).items(), key=lambda item: item[1] in ServerSettings.model_fields
        ):
            text = texts.get(field, "").replace("|", "\\|")
            lines.append(f"| `{variable}` | {_default(service.model_fields[field])} | {text} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def settings_page_problems(path: Path) -> list[str]:
    """Whether the page is stale, and fields without a description."""
    problems = [] if path.exists() and path.read_text() == settings_page() else [f"{path.name} is stale: run --write"]
    for service in SETTINGS.values():
        problems += [
            f"{service.__name__}.{field} has no description"
            for field in service.model_fields
            if field not in descriptions(service)
        ]
    return problems
