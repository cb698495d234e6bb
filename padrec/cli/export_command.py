"""The command that puts a recommender into one folder."""

from padrec.cli.one_message_parser import call_configured
from padrec.recommender import Recommender
from padrec.recommender_folder import DecoderSettings


def export(arguments: list[str]) -> None:
    """Run `padrec export` with these arguments."""
    call_configured("export", write, arguments)


def write(
    target: str,
    output: str,
    draft: str | None = None,
    decoder: DecoderSettings | None = None,
    report: str | None = None,
    arm: str = "padrec",
    hub: str | None = None,
) -> None:
    """Write a recommender to one folder: target, draft, catalog, decoder settings and model card.

    `padrec serve` and `Recommender.from_pretrained` read it.

    Args:
        target: folder of `save_pretrained`, or checkpoint of `padrec fit`.
        output: where to write.
        draft: folder or checkpoint of a draft of this target; without, lists are written by the target alone.
        decoder: how the draft is used.
        report: `report.json` of `padrec test`, which fills in the model card.
        arm: the report's arm that this recommender is.
        hub: repository of the Hugging Face hub to upload to as well, `owner/name`.
    """
    recommender = Recommender.load(target, draft, decoder, device="cpu")
    recommender.save_pretrained(output, report, arm)
    print(f"Recommender written to {output}")
    if hub is not None:
        recommender.push_to_hub(hub, report=report, arm=arm)
