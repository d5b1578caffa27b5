"""The normal modes of a structure, printed and written."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cryoinfer.cli.outputs import make_folder, require_free_folder
from cryoinfer.cli.structures import told_structure
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.data.nodes import Nodes
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.io.nmd import write_nmd
from cryoinfer.io.replacing import replace_file
from cryoinfer.physics.structures.elastic import (
    RIGID_MOTIONS,
    ElasticNetwork,
    SpringLaw,
)
from cryoinfer.report.modes import (
    MODE_HEADS,
    ModesContent,
    mode_rows,
    render_modes_report,
)
from cryoinfer.results.run_record import software_versions

_FOR_FLUCTUATIONS = 50
"""Modes that fluctuations are summed over: they have most of it."""

_MODES, _REPORT = "modes.nmd", "report.html"


@dataclass(frozen=True)
class ModesOptions:
    """What a user asks of the modes of a structure.

    Attributes
    ----------
    structure : str
        An example, or the path of a file.
    modes : int
    cutoff : float
        Length of the longest spring, in angstrom.
    springs : {"constant", "inverse-square"}
    out : Path or None
        Folder of what is written; nothing is without.
    overwrite : bool
    """

    structure: str
    modes: int
    cutoff: float
    springs: SpringLaw
    out: Path | None
    overwrite: bool


def show_modes(options: ModesOptions, console: Console) -> None:
    """Print the softest normal modes, and write them if a folder is given.

    Raises
    ------
    InputError
        If the structure, or its elastic network, cannot be used.
    OutputError
        If the folder holds modes already, or cannot be written.
    """
    if options.out is not None:
        require_free_folder(options.out, (_MODES, _REPORT), options.overwrite)
    given = told_structure(options.structure, console)
    model, nodes = given.model, Nodes.of_model(given.model)
    kept = model.select(nodes.atom)
    network = ElasticNetwork.between(
        kept.coordinates_angstrom, options.cutoff, options.springs
    )
    most = 3 * len(network) - RIGID_MOTIONS
    modes = network.normal_modes(min(max(options.modes, _FOR_FLUCTUATIONS), most))
    count = min(options.modes, len(modes))
    chains = list(dict.fromkeys(kept.chain_names))
    content = ModesContent(
        title=Path(options.structure).name,
        created=datetime.now().astimezone().isoformat(timespec="minutes"),
        nodes=kept,
        springs=len(network.first),
        direction=modes.direction[:count].numpy(),
        stiffness=modes.stiffness[:count].numpy(),
        amplitude=modes.amplitude_sd_angstrom(1.0)[:count].numpy(),
        collectivity=modes.collectivity()[:count].numpy(),
        fluctuation=modes.fluctuation().numpy(),
        fluctuation_modes=len(modes),
        notes=given.notes,
        arguments={
            "structure": options.structure,
            "--modes": str(options.modes),
            "--cutoff": f"{options.cutoff:g}",
            "--springs": options.springs,
        },
        versions=software_versions(),
    )
    rows = {
        "Atoms": f"{len(model):,}",
        "Nodes": f"{len(network):,} in chain{'s' * (len(chains) > 1)} "
        f"{', '.join(chains)}",
        "Springs": f"{len(network.first):,} of up to {options.cutoff:g} A",
        "B-factors": "say nothing here"
        if content.correlation is None
        else f"correlated by {content.correlation:.2f} with the fluctuations of the "
        f"{len(modes)} softest modes",
    }
    say_rows(console, rows)
    console.print(_table(content))
    if options.out is not None:
        _write(options.out, content, kept, console)


def _table(content: ModesContent) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in MODE_HEADS:
        table.add_column(head, justify="right")
    for row in mode_rows(content):
        table.add_row(*row)
    return table


def _write(
    out: Path, content: ModesContent, nodes: AtomicModel, console: Console
) -> None:
    make_folder(out)
    replace_file(
        out / _MODES,
        lambda part: write_nmd(
            part, content.title, nodes, content.direction, content.amplitude.tolist()
        ),
    )
    page = render_modes_report(content)
    replace_file(out / _REPORT, lambda part: part.write_text(page, "utf-8", "replace"))
    say(console, f"Written to {out / _MODES} and {out / _REPORT}")
