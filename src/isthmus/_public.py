"""The public names of the package and where each one lives; read lazily by ``isthmus.__getattr__``."""

PUBLIC: dict[str, str] = {
    "Network": "isthmus.core.network:Network",
    "Objective": "isthmus.core.objective:Objective",
    "Permutation": "isthmus.core.symmetry:Permutation",
    "Site": "isthmus.core.symmetry:Site",
    "Status": "isthmus.core.status:Status",
    "Symmetry": "isthmus.core.symmetry:Symmetry",
    "UnitGroup": "isthmus.core.symmetry:UnitGroup",
    "load": "isthmus.core.checkpoint:load",
    "save": "isthmus.core.checkpoint:save",
    "Barrier": "isthmus.connect.barrier:Barrier",
    "Bezier": "isthmus.connect.paths:Bezier",
    "Line": "isthmus.connect.paths:Line",
    "PairBarriers": "isthmus.connect.pairs:PairBarriers",
    "Plane": "isthmus.connect.paths:Plane",
    "Polygon": "isthmus.connect.paths:Polygon",
    "Simplex": "isthmus.connect.paths:Simplex",
    "barrier": "isthmus.connect.barrier:barrier",
    "barriers": "isthmus.connect.pairs:barriers",
}
