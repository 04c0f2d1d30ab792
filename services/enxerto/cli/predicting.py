"""`enxerto predict`: every task's answer for people, as JSON, and drawn into the picture; and `enxerto embed`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.session import LARGEST_INT, JsonOption, console, emit_json, percent, session, short

if TYPE_CHECKING:
    from enxerto.client import Client, Deployment, Detection, Prediction, Segmentation, StylizedImage, Task

_SHOWN_OBJECTS = 20
_SHOWN_NUMBERS = 4


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(predict)
    app.command()(embed)


def predict(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP or BMP files.", exists=True, dir_okay=False)],
    deployment: Annotated[
        str, typer.Option(help="The deployment to ask; may be left out when there is just one.")
    ] = "",
    top_k: Annotated[
        int, typer.Option(min=1, max=LARGEST_INT, help="Classification: classes to show for each image.")
    ] = 3,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Detection: least score; the version's own by default.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the pictures with the answers drawn in, or for the paintings.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a deployment about images: what it is, where things are, which pixels, or the painting."""
    with session(context).client() as client:
        name, task = _asked(client, deployment)
        answers = _answers(client, name, task, images, top_k, threshold)
    saved = _saved(images, answers, save, task)
    if as_json:
        rows = zip(images, answers, saved, strict=True)
        emit_json({"predictions": [_row(image, answer, path) for image, answer, path in rows]})
        return
    for image, answer, path in zip(images, answers, saved, strict=True):
        where = f", see {path}" if path else ""
        console().print(f"{image}: {_describe(answer)}{where}   ({short(answer.model_version)})")


def embed(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP or BMP files.", exists=True, dir_okay=False)],
    deployment: Annotated[
        str, typer.Option(help="The deployment to ask; may be left out when there is just one.")
    ] = "",
    save: Annotated[
        Path | None,
        typer.Option(help="NPZ file for `images`, the paths, and `embeddings`, float32 (images, dimension)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a classifier's deployment where its backbone places images: near ones look alike to it."""
    with session(context).client() as client:
        name = deployment or _only_deployment(client).name
        answers = client.embed(name, images)
    if save:
        import numpy as np

        # A file and not its name, to which numpy adds an ending of its own.
        with save.open("wb") as file:
            np.savez(
                file,
                images=[str(image) for image in images],
                embeddings=np.array([one.values for one in answers], "<f4"),
            )
    if as_json:
        rows = [{"image": image, "embedding": one.values} for image, one in zip(images, answers, strict=True)]
        emit_json({"model_version": answers[0].model_version, "embeddings": rows, **({"saved": save} if save else {})})
        return
    for image, answer in zip(images, answers, strict=True):
        first = ", ".join(f"{value:.3g}" for value in answer.values[:_SHOWN_NUMBERS])
        shown = f"{image}: {len(answer.values)} numbers, {first}, ...   ({short(answer.model_version)})"
        console().print(shown)


def _asked(client: "Client", deployment: str) -> "tuple[str, Task]":
    found = client.deployment(deployment) if deployment else _only_deployment(client)
    # The service itself refuses a deployment that does not answer yet, and says why.
    version = found.serving_version or found.model_version
    return found.name, client.version(version).task


def _only_deployment(client: "Client") -> "Deployment":
    found = list(client.deployments(2))
    if len(found) != 1:
        known = "there is none" if not found else "there are several"
        raise typer.BadParameter(f"say which one: {known}; see `enxerto deployments list`", param_hint="--deployment")
    return found[0]


def _answers(
    client: "Client", name: str, task: "Task", images: Sequence[Path], top_k: int, threshold: float | None
) -> "Sequence[Prediction | Detection | Segmentation | StylizedImage]":
    match task:
        case "DETECTION":
            return client.detect(name, images, score_threshold=threshold)
        case "SEGMENTATION":
            return client.segment(name, images)
        case "STYLE":
            return client.stylize(name, images)
        case _:
            return client.classify(name, images, top_k=top_k)


def _saved(images: Sequence[Path], answers: Sequence[Any], folder: Path | None, task: "Task") -> list[Path | None]:
    if folder is None:
        return [None] * len(images)
    from enxerto.cli.drawing import draw

    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path | None] = []
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        # Pictures of one name from several folders do not overwrite one another.
        twin = any(image.stem == other.stem for other in images[:number])
        path = folder / f"{image.stem}{f'-{number}' if twin else ''}.{task.lower()}.png"
        path.write_bytes(draw(image, answer))
        paths.append(path)
    return paths


def _row(image: Path, answer: Any, saved: Path | None) -> dict[str, Any]:
    from enxerto.cli.session import to_json

    row = {"image": image, "answer": to_json(answer)}
    # Bytes have no place in JSON: what they show is saved with --save.
    for name in ("png", "content"):
        row["answer"].pop(name, None)
    return row | ({"saved": saved} if saved else {})


def _describe(answer: Any) -> str:
    from enxerto.client import Detection, Prediction, Segmentation

    match answer:
        case Prediction():
            return ", ".join(f"{item.label} {percent(item.probability)}" for item in answer.categories)
        case Detection():
            shown = [
                f"{one.label} {percent(one.score)} at {one.box.x_min:.0f},{one.box.y_min:.0f} to "
                f"{one.box.x_max:.0f},{one.box.y_max:.0f}"
                for one in answer.objects[:_SHOWN_OBJECTS]
            ]
            if (rest := len(answer.objects) - _SHOWN_OBJECTS) > 0:
                shown.append(f"and {rest} more")
            return "; ".join(shown) or "nothing found"
        case Segmentation():
            pixels = answer.width * answer.height
            return ", ".join(f"{one.label} {percent(one.pixel_count / pixels)}" for one in answer.segments)
        case _:
            return f"painted, {answer.width} x {answer.height}"
