"""Write docs/api from the contracts and their comments: `python protos/reference.py`; `--check` only compares."""

import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
PAGES = PROTOS.parent / "docs" / "api"
TITLES = {
    "enxerto.registry.v1": ("registry.md", "Registry"),
    "enxerto.training.v1": ("training.md", "Training"),
    "enxerto.inference.v1": ("inference.md", "Inference"),
    "inference": ("open-inference.md", "Open Inference Protocol"),
    "enxerto.type.v1": ("types.md", "Shared types"),
}
_HEAD = "<!-- Made by protos/reference.py from the contracts; never edited. -->"

Path_ = tuple[int, ...]
Comments = dict[Path_, str]


def compile_contracts() -> FileDescriptorSet:
    """Compile every contract, comments included."""
    sources = sorted(path for folder in ("enxerto", "inference") for path in (PROTOS / folder).rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "contracts.binpb"
        well_known = resources.files("grpc_tools") / "_proto"
        includes = [f"-I{PROTOS}", f"-I{PROTOS / 'third_party'}", f"-I{well_known}"]
        options = ["--include_source_info", f"--descriptor_set_out={target}"]
        if protoc.main(["protoc", *includes, *options, *map(str, sources)]):
            raise SystemExit("the contracts do not compile")
        return FileDescriptorSet.FromString(target.read_bytes())


def comments_of(file: FileDescriptorProto) -> Comments:
    """Leading comment of every element, by its path in the descriptor."""
    locations = file.source_code_info.location
    return {tuple(place.path): " ".join(place.leading_comments.split()) for place in locations}


def render_package(title: str, files: list[FileDescriptorProto], pages: dict[str, str]) -> str:
    """One page: services first, then messages and enums in the order of the contracts."""
    package = files[0].package
    lines = [_HEAD, f"# {title}", "", f"Package `{package}`.", ""]
    for file in files:
        comments = comments_of(file)
        for index, service in enumerate(file.service):
            lines += _service(service, comments, (6, index), pages)
    lines += ["## Messages", ""]
    for file in files:
        comments = comments_of(file)
        for index, message in enumerate(file.message_type):
            lines += _message(message, comments, (4, index), f"{package}.{message.name}", pages)
        for index, enum in enumerate(file.enum_type):
            lines += _enum(enum, comments, (5, index), enum.name)
    return "\n".join(lines).rstrip() + "\n"


def _service(service: ServiceDescriptorProto, comments: Comments, path: Path_, pages: dict[str, str]) -> Iterator[str]:
    yield from (f"## {service.name}", "", comments.get(path, ""), "")
    yield from ("| method | request | answer | |", "| --- | --- | --- | --- |")
    for index, method in enumerate(service.method):
        request = f"{'stream of ' if method.client_streaming else ''}{_link(method.input_type, pages)}"
        answer = f"{'stream of ' if method.server_streaming else ''}{_link(method.output_type, pages)}"
        yield f"| `{method.name}` | {request} | {answer} | {_cell(comments.get((*path, 2, index), ''))} |"
    yield ""


def _message(
    message: DescriptorProto, comments: Comments, path: Path_, full_name: str, pages: dict[str, str]
) -> Iterator[str]:
    short = full_name.removeprefix(_package(full_name, pages) + ".")
    yield from (f"### {short}", "")
    if text := comments.get(path):
        yield from (text, "")
    maps = {f".{full_name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    if message.field:
        yield from ("| field | type | |", "| --- | --- | --- |")
    for index, field in enumerate(message.field):
        choice = ""
        if field.HasField("oneof_index") and not field.proto3_optional:
            choice = f" One of `{message.oneof_decl[field.oneof_index].name}`."
        text = _cell(comments.get((*path, 2, index), "") + choice)
        yield f"| `{field.name}` = {field.number} | {_type(field, maps, pages)} | {text} |"
    yield ""
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(nested, comments, (*path, 3, index), f"{full_name}.{nested.name}", pages)
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, comments, (*path, 4, index), f"{short}.{enum.name}")


def _enum(enum: EnumDescriptorProto, comments: Comments, path: Path_, name: str) -> Iterator[str]:
    yield from (f"### {name}", "")
    if text := comments.get(path):
        yield from (text, "")
    yield from ("| value | |", "| --- | --- |")
    for index, value in enumerate(enum.value):
        yield f"| `{value.name}` = {value.number} | {_cell(comments.get((*path, 2, index), ''))} |"
    yield ""


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto], pages: dict[str, str]) -> str:
    if entry := maps.get(field.type_name):
        key, value = (_type(part, maps, pages) for part in entry.field)
        return f"map of {key} to {value}"
    if field.type_name:
        name = _link(field.type_name, pages)
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _package(name: str, pages: dict[str, str]) -> str:
    return max((package for package in pages if name.startswith(package + ".")), key=len, default="")


def _link(type_name: str, pages: dict[str, str]) -> str:
    name = type_name.removeprefix(".")
    package = _package(name, pages)
    if not package:
        return f"`{name}`"
    short = name.removeprefix(package + ".")
    return f"[{short}]({pages[package]}#{short.lower().replace('.', '')})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def render(contracts: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """Every page: {file name: text}."""
    ordered = sorted(contracts, key=lambda file: (file.package, file.name))
    packages = {name: list(files) for name, files in itertools.groupby(ordered, key=lambda file: file.package)}
    if unknown := packages.keys() - TITLES.keys():
        raise SystemExit(f"no page for {', '.join(sorted(unknown))}: name it in TITLES")
    pages = {package: page for package, (page, _) in TITLES.items()}
    return {
        page: render_package(title, packages[package], pages)
        for package, (page, title) in TITLES.items()
        if package in packages
    }


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` say which of them are stale."""
    wanted = render(compile_contracts().file)
    if "--check" not in arguments:
        PAGES.mkdir(parents=True, exist_ok=True)
        for page, text in wanted.items():
            (PAGES / page).write_text(text)
        return 0
    present = {path.name: path.read_text() for path in PAGES.glob("*.md")}
    stale = sorted(page for page in wanted.keys() | present.keys() if wanted.get(page) != present.get(page))
    if stale:
        sys.stderr.write(f"docs/api is stale ({', '.join(stale)}): run python protos/reference.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
