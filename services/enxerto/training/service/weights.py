"""Weights of base models that were brought in by hand."""

from collections.abc import AsyncIterator, Mapping

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violation
from enxerto.training.domain import Inquiry, InquiryKind, Progress
from enxerto.training.errors import WeightsRefusedError
from enxerto.training.ports import ImportedWeights, WeightsCatalogue, WeightsVault
from enxerto.training.service.inquiries import Inquiries
from enxerto.vision.catalogue import BaseModelFacts, list_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.safetensors_header import SafetensorsError, read_header


class WeightsSupply:
    """Brings imported weights to where jobs read them."""

    def __init__(self, catalogue: WeightsCatalogue, vault: WeightsVault) -> None:
        self._catalogue = catalogue
        self._vault = vault

    async def supply(self, spec: FinetuneSpec) -> Mapping[str, str]:
        """The sha256 of the imported weights that a run starts from, by base model; jobs can read them then."""
        if spec.weights is Weights.NONE:
            return {}
        return await self.supply_all(tuple(name for name in (spec.base_model, spec.encoder) if name))

    async def supply_all(self, base_models: tuple[str, ...]) -> Mapping[str, str]:
        """The same for a few base models."""
        known = await self._known()
        wanted = {name: known[name] for name in base_models if name in known}
        for one in wanted.values():
            await self._vault.fetch(one)
        return {name: one.sha256 for name, one in wanted.items()}

    async def digests(self) -> Mapping[str, str]:
        """Every base model's imported weights."""
        return {name: one.sha256 for name, one in (await self._known()).items()}

    async def _known(self) -> Mapping[str, ImportedWeights]:
        imported = await self._catalogue.all()
        shared = {facts.name: imported[facts.weights_of] for facts in list_facts() if facts.weights_of in imported}
        return {**imported, **shared}


class WeightsImports:
    """Takes weights in: checked first by their digest, else by their names and shapes, and never unpickled here."""

    def __init__(
        self,
        catalogue: WeightsCatalogue,
        vault: WeightsVault,
        inquiries: Inquiries,
        clock: Clock,
        *,
        max_bytes: int,
    ) -> None:
        self._catalogue = catalogue
        self._vault = vault
        self._inquiries = inquiries
        self._clock = clock
        self._max_bytes = max_bytes

    async def receive(
        self, facts: BaseModelFacts, sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]
    ) -> ImportedWeights:
        """Keep weights for every later run in every project, under the base model that they are of.

        A file whose whole sha256 is a known one is taken as it is. Of any other a job compares names and shapes with
        the network, reading it without running what it holds; and it must be safetensors, unless its sha256 begins as
        the publisher's file name says.

        Raises:
            WeightsRefusedError: the bytes are not what was announced, or not weights of this base model.
            UnavailableError: the registry, the cluster or the blob store cannot be reached.
        """
        if size_bytes > self._max_bytes:
            raise _refused("header.size_bytes", f"weights may have {self._max_bytes} bytes")
        found, head = await self._vault.receive(_counted(chunks, size_bytes))
        if found != sha256:
            raise _refused("header.sha256", f"the bytes that arrived have the sha256 {found}")
        if not is_published(facts, sha256):
            if not begins_as_published(facts, sha256):
                check_safetensors(head, size_bytes)
            await self._compare(facts, sha256)
        weights = ImportedWeights(facts.weights_of or facts.name, sha256, size_bytes, self._clock.now())
        await self._vault.publish(sha256, size_bytes)
        await self._catalogue.put(weights)
        return weights

    async def _compare(self, facts: BaseModelFacts, sha256: str) -> None:
        document = {"name": f"weights of {facts.name}", "base_model": facts.name, "sha256": sha256, "use_gpu": False}
        inquiry = Inquiry(InquiryKind.CHECK_WEIGHTS, None, Inquiries.uid(InquiryKind.CHECK_WEIGHTS, document), document)
        async for answer in self._inquiries.ask(inquiry):
            # The job's word is that it does not fail.
            if not isinstance(answer, Progress):
                return


def is_published(facts: BaseModelFacts, sha256: str) -> bool:
    """Whether the whole digest is the one that the weights' package, or their publisher, gives."""
    packaged = facts.packaged is not None and facts.packaged.sha256 == sha256
    return packaged or _published_digits(facts) == sha256


def begins_as_published(facts: BaseModelFacts, sha256: str) -> bool:
    """Whether the digest begins with the digits in the name of the publisher's file.

    torchvision publishes only the first 8 hexadecimal digits of each file's sha256. Another file that begins alike is
    made in hours, so that 32 bits say which file is meant, and not that it is harmless or whole.
    """
    digits = _published_digits(facts)
    return len(digits) >= 8 and sha256.startswith(digits)


def _published_digits(facts: BaseModelFacts) -> str:
    """By torch's convention: `<name>-<first hexadecimal digits of the sha256>.pth`; empty when the name has none."""
    if facts.download is None:
        return ""
    digits = facts.download.filename.rpartition("-")[2].partition(".")[0]
    return digits if all(digit in "0123456789abcdef" for digit in digits) else ""


def check_safetensors(head: bytes, size_bytes: int) -> None:
    """Check the header of a safetensors file, which says all names, types and shapes, without any library.

    Args:
        head: the first bytes, with the whole header.
        size_bytes: of the file.

    Raises:
        WeightsRefusedError: it is not safetensors, or the tensors do not fill the file exactly.
    """
    try:
        read_header(head, size_bytes)
    except SafetensorsError as error:
        text = (
            "must be a safetensors file, or a file with the published sha256; "
            "other files may run code when they are opened"
        )
        raise _refused("chunk", f"{text}: {error}") from error


async def _counted(chunks: AsyncIterator[bytes], size_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > size_bytes:
            break
        yield chunk
    if size != size_bytes:
        arrived = f"{size} bytes" if size < size_bytes else "more"
        raise _refused("header.size_bytes", f"{size_bytes} bytes were announced and {arrived} arrived")


def _refused(field: str, description: str) -> WeightsRefusedError:
    return WeightsRefusedError([Violation(field, description)])
