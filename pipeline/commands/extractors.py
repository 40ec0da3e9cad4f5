"""`xelvad extractors`: the clip networks that there are, and what of them is at hand."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from .command import DONE, Command, output, print_wide


def add_arguments(parser: ArgumentParser) -> None:
    pass


def run(arguments: Namespace) -> int:
    from ...extractors import EXTRACTORS
    from ...extractors.weights import weights_of

    table = Table("extractor", "input", "features", "weights", "here", "licence of the weights", "what")
    for spec in EXTRACTORS.values():
        known = weights_of(spec)
        crops = f"{spec.crops} x " if spec.crops else ""
        table.add_row(
            spec.name,
            f"{spec.clip_length} x {spec.preprocessing.crop} x {spec.preprocessing.crop}",
            f"{crops}{spec.feature_dim}",
            "\n".join(each.name for each in known),
            "\n".join("yes" if each.is_here else "fetch" if each.can_be_fetched else "add" for each in known),
            "\n".join(dict.fromkeys(each.licence for each in known)),
            spec.description,
        )
    table.columns[0].no_wrap = True
    print_wide(table)
    output.print(
        "here: yes, in the cache; fetch: `xelvad weights fetch NAME` gets them, or the first extraction; add: download "
        "them by hand, then `xelvad weights add NAME FILE`; `xelvad weights list` says from where"
    )
    return DONE


COMMAND = Command("The clip networks that there are, and what of them is at hand.", add_arguments, run)
