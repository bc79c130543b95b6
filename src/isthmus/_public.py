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
}
