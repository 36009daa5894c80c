"""All that is known of one network, as plain data."""

import fnmatch
from dataclasses import asdict, dataclass
from typing import Any

from ..tree import Cost
from ..zoo import Arch, spec
from .audit import Finding, audit, check
from .built import built
from .tables import Citation, Remark, citations, figures, remarks


@dataclass(frozen=True)
class Description:
    """A network, its paper, its cost, what is published about it and where the sources disagree.

    `aux` are the parameters of each auxiliary head, which `cost` leaves out, by the part on which it hangs.  `settings`
    are the training settings that the paper states for all of its networks.
    """

    spec: Arch
    paper: Citation
    cost: Cost
    aux: dict[str, int]
    findings: tuple[Finding, ...]
    settings: tuple[Finding, ...]
    remarks: tuple[Remark, ...]

    @property
    def receptive_field(self) -> tuple[float, float]:
        """(height, width) in input pixels of a position of the last map before the head."""
        return self.cost.last_map.rf

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `layers` are the rows of the cost table."""
        return {
            "name": self.spec.name,
            "use": self.spec.use,
            "spec": self.spec.to_dict(),
            "paper": asdict(self.paper),
            "params": self.cost.params,
            "macs": self.cost.macs,
            "aux_params": self.aux,
            "input_size": self.spec.size,
            "receptive_field": list(self.receptive_field),
            "layers": [asdict(row) | {"params": row.params} for row in self.cost.rows],
            "findings": [asdict(finding) for finding in self.findings],
            "settings": [asdict(setting) for setting in self.settings],
            "remarks": [asdict(remark) for remark in self.remarks],
        }


def describe(name: str) -> Description:
    """Describe a registered network.  Raises ConfigError for an unknown name, with the nearest ones."""
    arch = spec(name)
    paper = next(citation for citation in citations() if citation.key == arch.paper)
    return Description(
        spec=arch,
        paper=paper,
        cost=built(arch).cost,
        aux={part: sum(p.numel() for p in head.parameters()) for part, head in built(arch).net.aux.items()},
        findings=tuple(audit(name)),
        settings=tuple(check(f) for f in figures() if (f.paper, f.convention) == (paper.paper, "setting")),
        remarks=tuple(r for r in remarks() if any(fnmatch.fnmatchcase(name, p) for p in r.networks)),
    )
