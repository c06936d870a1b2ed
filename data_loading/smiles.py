"""Molecules from their SMILES: atoms with their hydrogens, bonds, rings.

Read is what OpenSMILES calls atoms (of the organic subset or in brackets), bonds, branches, ring closures and
parts that are not bonded, with tetrahedral (`@`) and cis-trans (`/`) marks; no wildcards and no other chirality.
Hydrogens that an atom is written with are counted on it; a hydrogen in brackets of its own is an atom.

Source: the OpenSMILES specification, version 1.0.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from timetrial.engine.errors import DataError

ELEMENTS = re.findall(
    r"\w+",
    """
    H He
    Li Be B C N O F Ne
    Na Mg Al Si P S Cl Ar
    K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
    Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
    Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
    Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """,
)  # a period a row
ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(ELEMENTS, 1)}
# What an atom without brackets is filled up to with hydrogens: the lowest of these that its bonds do not exceed.
VALENCES = {
    **{"B": (3,), "C": (4,), "N": (3, 5), "O": (2,), "P": (3, 5), "S": (2, 4, 6)},
    **{halogen: (1,) for halogen in ("F", "Cl", "Br", "I")},
}
AROMATIC = {"b", "c", "n", "o", "p", "s", "se", "as", "te"}
ORDERS = {"-": 1, "/": 1, "\\": 1, "=": 2, "#": 3, "$": 4, ":": 1}

TOKEN = re.compile(
    r"(?P<bracket>\[[^\]]*\])|(?P<plain>Br|Cl|[BCNOPSFIbcnops])|(?P<bond>[-=#$:/\\])"
    r"|(?P<ring>\d|%\d\d)|(?P<open>\()|(?P<close>\))|(?P<dot>\.)"
)
BRACKET = re.compile(
    r"\[\d*(?P<symbol>[A-Z][a-z]?|[a-z]{1,2})(?P<chirality>@{0,2})(?P<hydrogens>H\d?)?"
    r"(?P<charge>[+-]\d|\++|-+)?(?::\d+)?\]"
)


class Atom(NamedTuple):
    """One atom."""

    atomic_number: int
    charge: int = 0
    hydrogens: int = 0  # that are no atoms of their own
    aromatic: bool = False
    chirality: str = ""  # `@` or `@@` as written, "" for none


class Bond(NamedTuple):
    """One bond between two atoms, by number."""

    first: int
    second: int
    order: int = 1  # of an aromatic bond 1
    aromatic: bool = False
    direction: str = ""  # `/`: second lies above first; `\\`: below
    in_ring: bool = False


class Molecule(NamedTuple):
    """Atoms in the order in which they are written, bonds in the order in which they are completed."""

    atoms: tuple[Atom, ...]
    bonds: tuple[Bond, ...]


class _Closure(NamedTuple):
    """A ring bond of which one end is written."""

    atom: int
    symbol: str


def read_smiles(text: str) -> Molecule:
    """The molecule. DataError where the text is no SMILES of the kind above."""
    return _Reader(text).molecule()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._atoms: list[Atom] = []
        self._plain: set[int] = set()  # atoms without brackets, whose hydrogens follow from their bonds
        self._bonds: list[Bond] = []
        self._unsaid: set[int] = set()  # bonds without an order: aromatic in an aromatic ring, else single
        self._joined: set[frozenset[int]] = set()
        self._last: int | None = None  # the atom that the next one is bonded to
        self._symbol = ""  # of the next bond
        self._branches: list[int] = []
        self._open: dict[str, _Closure] = {}

    def molecule(self) -> Molecule:
        place = 0
        while place < len(self._text):
            token = TOKEN.match(self._text, place)
            if token is None:
                raise self._error(place, "no SMILES")
            self._read(str(token.lastgroup), token[0], place)
            place = token.end()
        if self._branches or self._open or self._symbol:
            raise self._error(place, "a branch, ring or bond that is not completed")
        if not self._atoms:
            raise self._error(place, "no atom")
        bonds = tuple(self._finished_bonds())
        return Molecule(atoms=tuple(self._finished_atoms(bonds)), bonds=bonds)

    def _read(self, kind: str, token: str, place: int) -> None:
        if kind in ("bracket", "plain"):
            atom = self._bracket(token, place) if kind == "bracket" else _plain(token)
            if kind == "plain":
                self._plain.add(len(self._atoms))
            self._atoms.append(atom)
            number = len(self._atoms) - 1
            if self._last is not None:
                self._bond(self._last, number, self._symbol, place)
            elif self._symbol:
                raise self._error(place, "a bond from no atom")
            self._last, self._symbol = number, ""
        elif self._last is None:
            raise self._error(place, "no atom before it")
        elif kind == "bond" and not self._symbol:
            self._symbol = token
        elif kind == "ring":
            self._close_ring(token.removeprefix("%").lstrip("0"), self._last, place)
        elif kind == "open" and not self._symbol:
            self._branches.append(self._last)
        elif kind == "close" and not self._symbol and self._branches:
            self._last = self._branches.pop()
        elif kind == "dot" and not self._symbol:
            self._last = None
        else:
            raise self._error(place, "out of place")

    def _bracket(self, token: str, place: int) -> Atom:
        parts = BRACKET.fullmatch(token)
        symbol = parts["symbol"] if parts else ""
        element = ATOMIC_NUMBERS.get(symbol.capitalize())
        if parts is None or element is None or (symbol.islower() and symbol not in AROMATIC):
            raise self._error(place, "no atom that can be read")
        sign, hydrogens = parts["charge"] or "", parts["hydrogens"] or ""
        size = int(sign[1:]) if sign[1:].isdigit() else len(sign)
        return Atom(
            atomic_number=element,
            charge=-size if sign.startswith("-") else size,
            hydrogens=int(hydrogens[1:] or 1) if hydrogens else 0,
            aromatic=symbol.islower(),
            chirality=parts["chirality"],
        )

    def _close_ring(self, number: str, atom: int, place: int) -> None:
        symbol, self._symbol = self._symbol, ""
        opened = self._open.pop(number, None)
        if opened is None:
            self._open[number] = _Closure(atom=atom, symbol=symbol)
        elif opened.symbol:
            if symbol and ORDERS[symbol] != ORDERS[opened.symbol]:
                raise self._error(place, "a ring closed by another bond than it was opened with")
            self._bond(opened.atom, atom, opened.symbol, place)
        elif symbol:  # a direction is meant from where it is written
            self._bond(atom, opened.atom, symbol, place)
        else:
            self._bond(opened.atom, atom, "", place)

    def _bond(self, first: int, second: int, symbol: str, place: int) -> None:
        ends = frozenset((first, second))
        if len(ends) == 1 or ends in self._joined:
            raise self._error(place, "a second bond between the same atoms")
        self._joined.add(ends)
        aromatic = symbol == ":"
        direction = symbol if symbol in ("/", "\\") else ""
        if symbol == direction and self._atoms[first].aromatic and self._atoms[second].aromatic:
            aromatic = True
            self._unsaid.add(len(self._bonds))
        bond = Bond(
            first=first,
            second=second,
            order=ORDERS.get(symbol, 1),
            aromatic=aromatic,
            direction=direction,
        )
        self._bonds.append(bond)

    def _finished_bonds(self) -> Iterator[Bond]:
        """With their rings; an unsaid bond between aromatic rings is single."""
        rings = ring_bonds(len(self._atoms), [(bond.first, bond.second) for bond in self._bonds])
        for number, bond in enumerate(self._bonds):
            aromatic = bond.aromatic and (number in rings or number not in self._unsaid)
            yield bond._replace(aromatic=aromatic, in_ring=number in rings)

    def _finished_atoms(self, bonds: tuple[Bond, ...]) -> Iterator[Atom]:
        """With the hydrogens that are not written."""
        used = [0] * len(self._atoms)
        for bond in bonds:
            used[bond.first] += bond.order
            used[bond.second] += bond.order
        for number, atom in enumerate(self._atoms):
            if number in self._plain:
                valences = VALENCES[ELEMENTS[atom.atomic_number - 1]]
                if atom.aromatic:  # one electron more is bound, and no higher valence is meant
                    free = max(valences[0] - used[number] - 1, 0)
                else:
                    free = min((v - used[number] for v in valences if v >= used[number]), default=0)
                atom = atom._replace(hydrogens=free)
            yield atom

    def _error(self, place: int, what: str) -> DataError:
        return DataError(f"{self._text!r} cannot be read as SMILES: {what} at character {place + 1}")


def _plain(symbol: str) -> Atom:
    return Atom(atomic_number=ATOMIC_NUMBERS[symbol.capitalize()], aromatic=symbol.islower())


def ring_bonds(num_atoms: int, ends: list[tuple[int, int]]) -> set[int]:
    """The numbers of the bonds that lie on a ring.

    A bond does if it closes a ring over a spanning forest, or if it is in the forest on the path that one closes.
    """
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(num_atoms)]
    for number, (first, second) in enumerate(ends):
        neighbours[first].append((second, number))
        neighbours[second].append((first, number))
    depth = [-1] * num_atoms
    parent: list[tuple[int, int]] = [(-1, -1)] * num_atoms  # atom and bond
    for root in range(num_atoms):
        if depth[root] >= 0:
            continue
        depth[root], waiting = 0, [root]
        while waiting:
            atom = waiting.pop()
            for other, number in neighbours[atom]:
                if depth[other] < 0:
                    depth[other], parent[other] = depth[atom] + 1, (atom, number)
                    waiting.append(other)
    forest = {number for _, number in parent}
    rings = set()
    for number, (first, second) in enumerate(ends):
        if number in forest:
            continue
        rings.add(number)
        while first != second:
            if depth[first] < depth[second]:
                first, second = second, first
            first, up = parent[first]
            rings.add(up)
    return rings
