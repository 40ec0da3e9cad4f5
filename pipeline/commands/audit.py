"""`xelvad audit`: a data set on disk against its lists, before anyone spends a day on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.markup import escape
from rich.table import Table

from .command import DONE, SOME_SET_ASIDE, Command, config_of, dataset_arguments, features_of, output

if TYPE_CHECKING:
    from ..upkeep.audit import Audit, Finding

SHOWN = 5  # findings of one kind; the file has all


def add_arguments(parser: ArgumentParser) -> None:
    from ..upkeep.config import AuditConfig

    dataset_arguments(parser, features_needed=False)
    parser.add_class_arguments(AuditConfig)
    parser.add_argument("--out", type=Path, help="JSON file for all that was found")


def run(arguments: Namespace) -> int:
    from ..datasets import DatasetChoice
    from ..support.progress import CONSOLE
    from ..upkeep.audit import audit, write_audit
    from ..upkeep.config import AuditConfig

    choice, config = config_of(DatasetChoice, arguments), config_of(AuditConfig, arguments)
    features = features_of(arguments) if arguments.features else None
    result = audit(choice, features, config, test_fold=arguments.test_fold, report=CONSOLE)
    print_audit(result)
    if arguments.out is not None:
        write_audit(result, arguments.out)
        output.print(f"all findings: {arguments.out}", markup=False)
    return SOME_SET_ASIDE if result.troubles else DONE


def print_audit(audit: Audit) -> None:
    """The numbers of videos, then what was found."""
    columns = {"listed": audit.listed, "published": audit.official, "videos": audit.found, "features": audit.features}
    shown = {name: asdict(counts) for name, counts in columns.items() if counts is not None}
    table = Table(audit.dataset, *shown)
    for kind in shown["listed"]:
        table.add_row(kind.replace("_", ", "), *(str(counts[kind]) for counts in shown.values()))
    output.print(table)
    unknown = f" ({audit.unknown_frames} videos only --deep can count)" if audit.unknown_frames else ""
    share = f", {100 * audit.anomalous_share:.2f} % of the test frames anomalous" if audit.anomalous_share else ""
    output.print(f"{audit.frames:,} frames{unknown}{share}")
    if audit.frame_rates:
        output.print("frames per second: " + ", ".join(f"{rate} ({n} videos)" for rate, n in audit.frame_rates.items()))
    for finding in audit.notes:
        output.print(f"note: {finding.video}: {finding.detail}", markup=False)
    if audit.troubles:
        output.print(_troubles(audit.troubles))
    else:
        output.print("nothing is wrong")


def _troubles(findings: tuple[Finding, ...]) -> Table:
    """A row for each of the first few findings of a kind."""
    table = Table("trouble", "video", "what")
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    for kind, alike in kinds.items():
        for finding in alike[:SHOWN]:
            table.add_row(kind, escape(finding.video), escape(finding.detail))
        if len(alike) > SHOWN:
            table.add_row(kind, "", f"and {len(alike) - SHOWN} more")
    return table


COMMAND = Command("A data set on disk against its lists, before anyone spends a day on it.", add_arguments, run)
