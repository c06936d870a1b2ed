"""Features of atoms and bonds as integer codes, in the order and the meaning of OGB's molecules.

    atoms   0 atomic number - 1        1 chirality: 0 none, 1 clockwise (`@@`), 2 counter-clockwise (`@`)
            2 neighbours, hydrogens included   3 charge + 5   4 hydrogens   5 unpaired electrons: always 0
            6 hybridisation: 0 sp, 1 sp2, 2 sp3, 3 sp3d, 4 sp3d2, 5 other   7 aromatic   8 in a ring
    bonds   0 order: 0 single, 1 double, 2 triple, 3 aromatic, 4 other
            1 side: 0 unknown, 1 Z, 2 E   2 conjugated

Exact, by what is written: 0, 2, 3, 4, 7 and 8 of atoms, 0 of bonds. By rules of thumb, which RDKit's own resemble:
hybridisation and conjugation. Chirality is as written, so it depends on the order of writing. Z and E compare the
neighbours at which the marks stand, which need not be those of the highest priority.

Source: Hu et al., "Open Graph Benchmark", arXiv 2005.00687.
"""

from dataclasses import dataclass

import numpy as np

from timetrial.data_loading.smiles import Atom, Bond, Molecule

CHIRALITY = {"": 0, "@@": 1, "@": 2}
NO_CHARGE = 5  # the code of charge 0
AROMATIC_BOND, OTHER_BOND = 3, 4
Z, E = 1, 2
SP2, SP3 = 1, 2
HYBRIDISATION = {2: 0, 3: SP2, 4: SP3, 5: 3, 6: 4}  # by bonded atoms and lone pairs
OTHER_HYBRIDISATION = 5
# Electrons in the outer shell and the usual valence, by atomic number; others count as having neither.
OUTER = {5: 3, 6: 4, 7: 5, 8: 6, 9: 7, 14: 4, 15: 5, 16: 6, 17: 7, 34: 6, 35: 7, 53: 7}
USUAL_VALENCE = {5: 3, 6: 4, 7: 3, 8: 2, 14: 4, 15: 3, 16: 2, 34: 2}
LAST_OF_SECOND_ROW = 10


@dataclass(frozen=True, kw_only=True)
class Features:
    """Arrays of one molecule."""

    nodes: np.ndarray  # (atoms, 9) uint8
    edges: np.ndarray  # (bonds, 3) uint8
    ends: np.ndarray  # (bonds, 2) uint16, atoms


def features(molecule: Molecule) -> Features:
    """The codes of all atoms and bonds."""
    bonds_of: list[list[int]] = [[] for _ in molecule.atoms]
    for number, bond in enumerate(molecule.bonds):
        bonds_of[bond.first].append(number)
        bonds_of[bond.second].append(number)
    at = [[molecule.bonds[number] for number in numbers] for numbers in bonds_of]
    conjugated = _conjugated(molecule, bonds_of)
    nodes = [
        _atom_codes(atom, bonds, not conjugated.isdisjoint(numbers))
        for atom, bonds, numbers in zip(molecule.atoms, at, bonds_of, strict=True)
    ]
    edges = [
        (_order(bond), _side(bond, at), number in conjugated) for number, bond in enumerate(molecule.bonds)
    ]
    ends = [(bond.first, bond.second) for bond in molecule.bonds]
    return Features(
        nodes=np.array(nodes, np.uint8),
        edges=np.array(edges, np.uint8).reshape(-1, 3),
        ends=np.array(ends, np.uint16).reshape(-1, 2),
    )


def _atom_codes(atom: Atom, bonds: list[Bond], conjugated: bool) -> tuple[int, ...]:
    degree = len(bonds) + atom.hydrogens
    return (
        atom.atomic_number - 1,
        CHIRALITY[atom.chirality],
        degree,
        atom.charge + NO_CHARGE,
        atom.hydrogens,
        0,
        _hybridisation(atom, bonds, degree, conjugated),
        int(atom.aromatic),
        int(any(bond.in_ring for bond in bonds)),
    )


def _hybridisation(atom: Atom, bonds: list[Bond], degree: int, conjugated: bool) -> int:
    if atom.aromatic:
        return SP2
    if atom.atomic_number not in OUTER:
        return OTHER_HYBRIDISATION
    free = OUTER[atom.atomic_number] - atom.charge - _valence(atom, bonds)
    directions = degree + max(free, 0) // 2
    if directions == 4 and degree <= 3 and conjugated:
        return SP2
    return HYBRIDISATION.get(directions, OTHER_HYBRIDISATION)


def _valence(atom: Atom, bonds: list[Bond]) -> int:
    """Of an atom that is not aromatic."""
    return sum(bond.order for bond in bonds) + atom.hydrogens


def _order(bond: Bond) -> int:
    return AROMATIC_BOND if bond.aromatic else bond.order - 1 if bond.order <= 3 else OTHER_BOND


def _conjugated(molecule: Molecule, bonds_of: list[list[int]]) -> set[int]:
    """The numbers of the bonds that share electrons with a neighbouring one.

    Every aromatic bond; and of an atom that takes part, a multiple bond and another one, both to atoms that do.
    """
    bonds = molecule.bonds
    takes_part = [
        _takes_part(atom, [bonds[number] for number in numbers])
        for atom, numbers in zip(molecule.atoms, bonds_of, strict=True)
    ]
    found = {number for number, bond in enumerate(bonds) if bond.aromatic}
    for numbers, able in zip(bonds_of, takes_part, strict=True):
        if able:
            among = [n for n in numbers if takes_part[bonds[n].first] and takes_part[bonds[n].second]]
            if len(among) > 1 and any(bonds[n].aromatic or bonds[n].order > 1 for n in among):
                found.update(among)
    return found


def _takes_part(atom: Atom, bonds: list[Bond]) -> bool:
    """Whether an atom has electrons to share: of a multiple bond, or a lone pair, in a plane of three neighbours."""
    degree = len(bonds) + atom.hydrogens
    if degree > 3 or atom.atomic_number not in USUAL_VALENCE:
        return False
    if atom.aromatic:
        return True
    if atom.atomic_number > LAST_OF_SECOND_ROW and OUTER[atom.atomic_number] > 4 and degree > 1:
        return False  # phosphorus, sulphur and heavier ones, which hardly overlap
    usual = USUAL_VALENCE[atom.atomic_number]
    if atom.charge == 0 and _valence(atom, bonds) > usual:
        return False
    return usual - degree + max(OUTER[atom.atomic_number] - usual - atom.charge, 0) > 0


def _side(bond: Bond, at: list[list[Bond]]) -> int:
    """Whether marked neighbours of a double bond lie on one side of it (Z) or not (E)."""
    if bond.order != 2:
        return 0
    above = [_neighbour_above(atom, at[atom]) for atom in (bond.first, bond.second)]
    if None in above:
        return 0
    return Z if above[0] == above[1] else E


def _neighbour_above(atom: int, bonds: list[Bond]) -> bool | None:
    """Whether the atom's first marked neighbour lies above it; None if none is marked."""
    for bond in bonds:
        if bond.direction:
            return (bond.direction == "/") == (bond.first == atom)
    return None
