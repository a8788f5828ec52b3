"""The list of all members, in the order of infer.members.registry."""

from export.members.baseline import BaselineExport
from export.members.imagenet import ImageNetExport
from export.members.member import MemberExport
from export.members.mixture import MixtureExport
from export.members.scan import ScanExport

MEMBERS: list[type[MemberExport]] = [BaselineExport, ScanExport, MixtureExport, ImageNetExport]
