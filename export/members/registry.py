"""The list of all members, in the order of infer.members.registry."""

from export.members.baseline import BaselineExport
from export.members.cells import CellsExport
from export.members.experts import ExpertsExport
from export.members.imagenet import ImageNetExport
from export.members.member import MemberExport

MEMBERS: list[type[MemberExport]] = [BaselineExport, CellsExport, ExpertsExport, ImageNetExport]
