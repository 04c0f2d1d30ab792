"""`enxerto quickstart`: the whole loop on one machine, in a few minutes."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, percent, session, short

if TYPE_CHECKING:
    from enxerto.cli.sample import Sample
    from enxerto.client import Client, Run


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(quickstart)


def quickstart(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders with images; scanned digits by default.")
    ] = None,
    port_base: Annotated[
        int | None,
        typer.Option(min=1024, max=65000, help="First of the 500 ports to use; those of before a crash, or 7300."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the platform, train with and without pretrained weights, promote, deploy and ask about a new image."""
    from enxerto.cli.platform import live_report
    from enxerto.cli.sample import SampleError, split_folder, write_digits
    from enxerto.local.supervisor import Supervisor

    begun = time.monotonic()
    chosen = session(context)
    target = chosen.home / "quickstart"
    try:
        sample = (
            split_folder(data, target / "own", dataset_id(data))
            if data is not None
            else write_digits(target / "digits")
        )
    except SampleError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    _title("1. Start the registry, the training service, the inference service and Ray", as_json)
    supervisor = Supervisor(chosen.home)
    with live_report(quiet=as_json) as report:
        supervisor.up(port_base=port_base, report=report)
    with chosen.client() as client:
        result = _loop(client, sample, target, as_json=as_json)
    result |= {"seconds": round(time.monotonic() - begun, 1), "processes": supervisor.status()}
    if as_json:
        emit_json(result)
    else:
        _tell(result, sample)


def _loop(client: "Client", sample: "Sample", target: Path, *, as_json: bool) -> dict[str, Any]:
    from enxerto.cli.datasets import import_with_progress, show_snapshot

    _title(f"2. Import {sample.folder}", as_json)
    snapshot = import_with_progress(client, sample.name, sample.folder, quiet=as_json)
    if not as_json:
        show_snapshot(snapshot)
    _title("3. Train a new head on EfficientNet-Lite0 with its ImageNet weights", as_json)
    pretrained = _train(client, snapshot.name, sample.name, "PRETRAINED", as_json=as_json)
    _title("4. The same budget from random weights, to see what the pretrained ones are worth", as_json)
    random = _train(client, snapshot.name, f"{sample.name}-from-scratch", "NONE", as_json=as_json)
    _title("5. Promote the version, deploy it and ask about an image that was not in training", as_json)
    client.promote(pretrained.model_version)
    with console(stderr=True).status("deploying"):
        deployment = client.deploy(sample.name, f"{sample.name}@production")
    image, truth = _asked(sample)
    answer = client.classify(sample.name, [image])[0]
    report = client.download(pretrained.model_version, target / "report", roles=["REPORT"])
    return {
        "image": image,
        "truth": truth,
        "answer": answer,
        "accuracy": {"pretrained": _accuracy(pretrained), "none": _accuracy(random)},
        "runs": {"pretrained": pretrained.name, "none": random.name},
        "version": pretrained.model_version,
        "deployment": deployment.name,
        "report": next((file for file in report if file.suffix == ".html"), target / "report"),
    }


def dataset_id(folder: Path) -> str:
    """A dataset's id from a folder's name."""
    text = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).lstrip("-")[:40].rstrip("-")
    return text if text[:1].isalpha() else f"data-{text}".rstrip("-")


def _asked(sample: "Sample") -> tuple[Path, str]:
    """The image to ask about; one from training, and said so, when every class was too small to spare one."""
    if sample.held_out:
        return sample.held_out[len(sample.held_out) // 2]
    image = next(path for path in sorted(sample.folder.rglob("*")) if path.is_file())
    return image, f"{image.parent.name} (it was in training: no class had an image to spare)"


def _train(client: "Client", snapshot: str, model: str, weights: str, *, as_json: bool) -> "Run":
    from enxerto.cli.watching import follow
    from enxerto.client import succeeded

    run = client.train(snapshot, model=model, weights=weights)
    if as_json:
        return client.wait(run)
    return succeeded(follow(client, run, as_json=False))


def _accuracy(run: "Run") -> float | None:
    return next((value for split in ("test", "val") if (value := run.metric("accuracy", split)) is not None), None)


def _title(text: str, as_json: bool) -> None:
    if not as_json:
        console().print(f"\n{text}", style="bold")


def _tell(result: dict[str, Any], sample: "Sample") -> None:
    out, answer = console(), result["answer"]
    out.print(f"\n{result['image']}")
    out.print(f"  is {answer.label} ({percent(answer.probability)}), says {short(answer.model_version)}.")
    out.print(f"  In truth: {result['truth']}\n")
    accuracy = result["accuracy"]
    emit_table(
        ("EfficientNet-Lite0, same budget", "accuracy on held-out images"),
        (
            ("with pretrained weights", percent(accuracy["pretrained"])),
            ("from random weights", percent(accuracy["none"])),
        ),
        "",
    )
    out.print(f"Report with curves, confusion matrix and predictions: {result['report']}")
    out.print("Metrics:")
    for process in result["processes"]:
        out.print(f"  {process.name:<10} {process.metrics_url}")
    out.print(f"\nThat took {result['seconds']:.0f} s. The platform goes on running. Try next:")
    image = result["image"]
    for command in (
        f"enxerto predict {image}",
        f"enxerto models show {sample.name}@production",
        f"enxerto train {sample.name} --strategy FINE_TUNE --epochs 3",
        "enxerto status",
        "enxerto down        # stops the platform; what was trained stays",
    ):
        out.print(f"  {command}")
