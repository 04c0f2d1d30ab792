"""`enxerto quality`, `feedback` and `samples`: how well deployments answer, and what they keep for labelling."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import (
    LARGEST_INT,
    LARGEST_LONG,
    JsonOption,
    console,
    emit_json,
    emit_table,
    percent,
    session,
    short,
    wrong_usage,
)

if TYPE_CHECKING:
    from enxerto.client import VersionQuality

_SHOWN_CLASSES = 5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(quality)
    app.command()(feedback)
    samples = typer.Typer(help="Images kept for labelling.", no_args_is_help=True)
    samples.command("keep")(keep)
    samples.command("list")(list_)
    samples.command("download")(download)
    app.add_typer(samples, name="samples")


def quality(
    context: typer.Context,
    deployment: str,
    days: Annotated[float, typer.Option(min=0.01, help="Feedback counts for answers of the last days.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Show what a deployment answers, whether its images have drifted, and how often it was right."""
    with wrong_usage("--days"):
        window = timedelta(days=days)
    with session(context).client() as client:
        found = client.quality(deployment, window=window)
    if as_json:
        emit_json(found)
        return
    for version in found.versions:
        console().print(_describe(version))
    for one in found.accuracies:
        text = f"{short(one.model_version)}: right in {percent(one.accuracy)} of {one.feedback} answers with feedback"
        console().print(text)
    if not found.versions and not found.accuracies:
        console().print("Nothing was observed yet.")
    if found.samples:
        console().print(f"{found.samples} images are kept for labelling, {found.samples_bytes:,} bytes")


def _describe(version: "VersionQuality") -> str:
    shares = ", ".join(f"{one.label} {percent(one.share)}" for one in version.class_shares[:_SHOWN_CLASSES])
    drift = "drift not known"
    if version.embedding_drift is not None and version.held_out_drift is not None:
        drift = f"drift {version.embedding_drift:.2f}, held-out images {version.held_out_drift:.2f}"
    parts = [f"{version.observed_images} images observed", *([shares] if shares else []), drift]
    return f"{short(version.model_version)}: {'; '.join(parts)}{'  DRIFTED' if version.drifted else ''}"


def feedback(
    context: typer.Context,
    deployment: str,
    prediction_id: Annotated[str, typer.Argument(help="Of the answer: `predict --json` shows it.")],
    label: Annotated[str, typer.Argument(help="The true label.")],
    image: Annotated[int, typer.Option(min=0, max=LARGEST_INT, help="Position of the image in its request.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Say what the true label of an answered image is."""
    with session(context).client() as client:
        correct = client.feedback_by_id(deployment, prediction_id, label, image_index=image)
    if as_json:
        emit_json({"correct": correct})
    else:
        console().print("stored; the answer was right" if correct else "stored; the answer was wrong")


def keep(
    context: typer.Context,
    deployment: str,
    most: Annotated[int, typer.Option(min=0, max=10_000, help="Images to keep; 0 keeps none.")],
    uncertain_below: Annotated[float, typer.Option(min=0, max=1, help="Keep images of less confidence.")] = 0.0,
    drifted_beyond: Annotated[
        float, typer.Option(min=0, help="Keep images so many times as far from the mean as training images.")
    ] = 0.0,
    max_bytes: Annotated[int, typer.Option(min=0, max=LARGEST_LONG, help="Bytes to keep; 256 MiB when 0.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Keep uncertain and drifted images for labelling; the oldest make room for new ones."""
    with session(context).client() as client:
        policy = client.keep_samples(
            deployment,
            most,
            uncertain_below=uncertain_below,
            drifted_beyond=drifted_beyond,
            max_size_bytes=max_bytes,
        )
    if as_json:
        emit_json(policy)
    else:
        limit = f"{policy.max_samples} images and {policy.max_size_bytes:,} bytes"
        console().print(f"{deployment} keeps at most {limit}" if policy.max_samples else f"{deployment} keeps nothing")


def list_(context: typer.Context, deployment: str, as_json: JsonOption = False) -> None:
    """List the images that a deployment has kept."""
    with session(context).client() as client:
        found = list(client.samples(deployment))
    if as_json:
        emit_json({"samples": found})
        return
    emit_table(
        ("sample", "reason", "predicted", "confidence", "distance", "true label", "bytes"),
        (
            (
                short(one.name),
                one.reason,
                one.predicted_label,
                percent(one.confidence),
                "" if one.embedding_distance is None else f"{one.embedding_distance:.2f}",
                one.true_label,
                one.size_bytes,
            )
            for one in found
        ),
        "No samples. Keep some with: enxerto samples keep DEPLOYMENT --most 500 --uncertain-below 0.6",
    )


def download(
    context: typer.Context,
    deployment: str,
    folder: Annotated[Path, typer.Argument(help="For labelled/LABEL/ and unlabelled/PREDICTED/.", file_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Fetch what was kept, sorted by true label where feedback gave one; `labelled` can be imported as a dataset."""
    with session(context).client() as client:
        paths = client.download_samples(deployment, folder)
    if as_json:
        emit_json({"files": paths})
    else:
        console().print(f"{len(paths)} images are in {folder}")
